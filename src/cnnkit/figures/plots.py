"""Plots of lines as SVG within HTML pages that load nothing: curves over epochs, coverage and accuracy.

Each plot is a <figure> with a caption, a drawing that has a title and a description, and a table of its values. Colours
are the custom properties --series-1, --series-2, ... (`palette_css` sets them for light and dark pages; without it,
those for light pages are used); text has the page's colour; dashes and markers are a second cue. `name` is the figure's
id, unique on the page, and begins all ids in it.
"""

import math
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Protocol
from xml.etree import ElementTree

from cnnkit.figures.axes import Scale, add_text, drawing, frame, linear, logarithmic, margin, tick_labels
from cnnkit.figures.curves import Panel, Series
from cnnkit.figures.figure import Key, estimate, figure, marker, paint, stroke
from cnnkit.figures.svg import add

__all__ = ["Answers", "coverage_plot", "line_plot"]

WIDTH, HEIGHT = 520.0, 300.0
TOP, BOTTOM, RIGHT = 24.0, 46.0, 16.0  # margins of the axes
MAX_MARKS = 12  # on a line
HUGE = 1e300  # larger numbers are skipped, like Inf
Point = tuple[float, float]


class Answers(Protocol):
    """The images with a confidence of at least `threshold`: number, share of all, and accuracy with its interval."""

    @property
    def threshold(self) -> float:
        """The lowest confidence."""

    @property
    def answered(self) -> int:
        """The number of images."""

    @property
    def share(self) -> float:
        """Their share of all images."""

    @property
    def accuracy(self) -> tuple[float, float, float] | None:
        """Their accuracy and its interval."""


def line_plot(panel: Panel, description: str, *, name: str, caption: str = "") -> str:
    """Return the lines of a panel as a plot; the caption defaults to its title.

    NaN and Inf are skipped.
    """
    lines = [_points(panel, series) for series in panel.series]
    svg, x, y = _axes(panel, [point for line in lines for point in line], name, description)
    _draw(svg, x, y, panel, lines)
    values = [dict(line) for line in lines]
    places = sorted({place for line in values for place in line})
    kind = ",.0f" if panel.has_whole_x() else ".6g"
    rows = [[format(place, kind), *(_number(line.get(place)) for line in values)] for place in places]
    columns = [panel.x_label, *(series.label for series in panel.series)]
    return figure(name, svg, caption or panel.title, _legend(panel), columns, rows)


def coverage_plot(answers: Sequence[Answers], *, name: str, caption: str = "Coverage and accuracy") -> str:
    """Return the share of the images that are answered, and their accuracy with its interval, over the threshold."""
    thresholds = [one.threshold for one in answers]
    shares = [one.share for one in answers]
    known = [(one.threshold, *one.accuracy) for one in answers if one.accuracy]
    accurate, accuracies = [one[0] for one in known], [one[1] for one in known]
    series = [
        Series("accuracy of the answers, with its 95 % interval", accurate, accuracies),
        Series("images answered", thresholds, shares, True, 1),
    ]
    panel = Panel(caption, "threshold: lowest confidence of an answer", "share", series)
    lines = [_points(panel, one) for one in series]
    band = [(one[0], one[2]) for one in known] + [(one[0], one[3]) for one in reversed(known)]
    description = (
        "The higher the confidence that an answer must have, the fewer images are answered. "
        "A line shows their share, another one the accuracy of the answers."
    )
    svg, x, y = _axes(panel, [*band, *lines[0], *lines[1]], name, description)
    if band:
        add(svg, "path", d=_path([(x(one), y(other)) for one, other in band]), fill=paint(0), **{"fill-opacity": "0.2"})
    _draw(svg, x, y, panel, lines)
    columns = ["threshold", "images", "share", "accuracy", "low", "high"]
    rows = [
        [f"{one.threshold:.4g}", f"{one.answered:,}", f"{one.share:.4f}", *estimate(one.accuracy)] for one in answers
    ]
    return figure(name, svg, caption, _legend(panel), columns, rows)


def _axes(
    panel: Panel, points: Sequence[Point], name: str, description: str
) -> tuple[ElementTree.Element, Scale, Scale]:
    """Return a drawing with axes for these points, and their scales."""
    svg = drawing(name, WIDTH, HEIGHT, panel.title, description)
    y = linear((value for _, value in points), HEIGHT - BOTTOM, TOP, grow=True)
    places, left = [place for place, _ in points], margin(tick_labels(y.ticks))
    if panel.log_x:
        x = logarithmic(places, left, WIDTH - RIGHT)
    else:
        x = linear(places, left, WIDTH - RIGHT, 8, whole=panel.has_whole_x())
    frame(svg, x, y, panel.x_label, panel.y_label)
    if not points:
        add_text(svg, "no values", (x.start + x.end) / 2, HEIGHT / 2, "middle")
    return svg, x, y


def _draw(svg: ElementTree.Element, x: Scale, y: Scale, panel: Panel, lines: Sequence[Sequence[Point]]) -> None:
    """Draw each line of the panel through its points, with markers on some."""
    for series, line in zip(panel.series, lines, strict=True):
        pixels = [(x(place), y(value)) for place, value in line]
        add(svg, "path", d=_path(list(_thin(pixels))), **stroke(series.colour, series.dashed))
        for one in pixels[:: math.ceil(len(pixels) / MAX_MARKS) or 1]:
            marker(svg, *one, series.colour, series.dashed)


def _points(panel: Panel, series: Series) -> list[Point]:
    """Return the points that can be plotted, from left to right."""
    return sorted(point for point in zip(*panel.points(series), strict=True) if max(map(abs, point)) < HUGE)


def _thin(pixels: Sequence[Point]) -> Iterator[Point]:
    """Yield the points of a line; of more than two in a column of pixels, the lowest and the highest."""
    for _, column in groupby(pixels, lambda point: round(point[0])):
        some = list(column)
        if len(some) > 2:
            ends = {min(some, key=lambda point: point[1]), max(some, key=lambda point: point[1])}
            some = [point for point in some if point in ends]
        yield from some


def _path(pixels: Sequence[Point]) -> str:
    return "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in pixels) if pixels else ""


def _legend(panel: Panel) -> list[Key]:
    return [Key(series.label, series.colour, series.dashed) for series in panel.series]


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.6g}"
