"""Plots of bars as SVG within HTML pages that load nothing: a reliability diagram, counts by class and split.

They are figures like those of `plots`.
"""

from collections.abc import Mapping, Sequence
from typing import Protocol
from xml.etree import ElementTree

from cnnkit.core.text import counted, printable
from cnnkit.figures.axes import TEXT, Scale, add_text, drawing, frame, linear, margin
from cnnkit.figures.figure import Estimate, Key, area, estimate, figure, marker
from cnnkit.figures.svg import add, text_width

__all__ = ["Bin", "bar_plot", "reliability_plot"]

SIDE, STRIP = 300.0, 44.0  # of the square of a reliability diagram, and the height of the counts below it
TOP, BOTTOM, RIGHT = 24.0, 46.0, 16.0  # margins of the axes
SHADE = 0.3  # of the bars of a reliability diagram
WIDTH, ROW, INSET = 520.0, 20.0, 3.0  # of a plot of bars, a row, and the space above and below a bar
SHADES = (1.0, 0.25, 0.6)  # of the parts of a bar
MAX_ROWS, MAX_LABEL = 60, 170.0  # rows of bars; width of a label


class Bin(Protocol):
    """Predictions with a confidence from `low` to `high`: number, mean confidence, and accuracy with its interval."""

    @property
    def low(self) -> float:
        """The lowest confidence."""

    @property
    def high(self) -> float:
        """The highest confidence."""

    @property
    def count(self) -> int:
        """The number of images."""

    @property
    def confidence(self) -> float | None:
        """Their mean confidence."""

    @property
    def accuracy(self) -> Estimate | None:
        """Their accuracy and its interval."""


def reliability_plot(bins: Sequence[Bin], *, name: str, caption: str = "Reliability diagram") -> str:
    """Return the accuracy of the predictions in each bin of confidence, against the diagonal of perfect calibration."""
    total = sum(one.count for one in bins)
    left = margin(["images"])
    width, height = left + SIDE + RIGHT, TOP + SIDE + BOTTOM + STRIP
    description = (
        "A bar for each range of confidence, as high as the accuracy of the predictions in it, with its 95 % interval "
        f"at their mean confidence. Perfect calibration is the diagonal. Below, the number of the "
        f"{counted(total, 'image')} in each range."
    )
    svg = drawing(name, width, height, caption, description)
    x = linear((0, 1), left, left + SIDE)
    y = linear((0, 1), TOP + SIDE, TOP)
    for one in bins:
        if one.accuracy and one.confidence is not None:
            start = x(one.low)
            area(svg, start, y(one.accuracy[0]), x(one.high) - start, y(0) - y(one.accuracy[0]), 0, SHADE)
    frame(svg, x, y, "confidence", "accuracy")
    diagonal = {"stroke": "currentColor", "stroke-dasharray": "2 3"}
    add(svg, "path", d=f"M{x(0):.1f} {y(0):.1f}L{x(1):.1f} {y(1):.1f}", **diagonal)
    for one in bins:
        if one.accuracy and one.confidence is not None:
            _whisker(svg, x(one.confidence), y(one.accuracy[1]), y(one.accuracy[2]))
            marker(svg, x(one.confidence), y(one.accuracy[0]), 0)
    _counts(svg, bins, x, height)
    columns = ["confidence", "images", "mean confidence", "accuracy", "low", "high"]
    rows = [
        [
            f"{one.low:.3f} to {one.high:.3f}",
            f"{one.count:,}",
            "-" if one.confidence is None else f"{one.confidence:.4f}",
            *estimate(one.accuracy),
        ]
        for one in bins
    ]
    return figure(name, svg, caption, [Key("accuracy, with its 95 % interval", 0, shade=SHADE)], columns, rows)


def bar_plot(counts: Mapping[str, Mapping[str, int]], x_label: str, *, name: str, caption: str) -> str:
    """Return a horizontal bar for each class, divided into splits; `counts` has a number for each class and split.

    Of more than 60 classes, the 30 largest and the 30 smallest are shown, by size.
    """
    rows, remark = list(counts.items()), ""
    if len(rows) > MAX_ROWS:
        rows.sort(key=lambda row: -sum(row[1].values()))
        remark = f"The {MAX_ROWS // 2} largest and the {MAX_ROWS // 2} smallest of {len(rows):,} classes are shown."
        rows = rows[: MAX_ROWS // 2] + rows[-MAX_ROWS // 2 :]
    parts = list(dict.fromkeys(part for _, row in rows for part in row))
    totals = [sum(row.values()) for _, row in rows]
    labels = [_shortened(label) for label, _ in rows]
    left, right = margin(labels), margin(f"{total:,}" for total in totals)
    height = TOP + ROW * len(rows) + BOTTOM
    splits = f", divided into {', '.join(parts)}" if len(parts) > 1 else ""
    description = f"A bar for each class, as long as its count{splits}. {remark}".rstrip()
    svg = drawing(name, WIDTH, height, caption, description)
    x = linear([0, *totals], left, WIDTH - right, whole=True)
    frame(svg, x, Scale(0, 1, height - BOTTOM, TOP, ()), x_label, "")
    for place, (label, (_, row), total) in enumerate(zip(labels, rows, totals, strict=True)):
        top, start = TOP + ROW * place, 0
        for number, part in enumerate(parts):
            if count := row.get(part, 0):
                pixel = x(start)
                shade = SHADES[number % len(SHADES)]
                area(svg, pixel, top + INSET, x(start + count) - pixel, ROW - 2 * INSET, number, shade)
                start += count
        add_text(svg, label, left - 6, top + ROW / 2 + TEXT / 3, "end")
        add_text(svg, f"{total:,}", x(total) + 4, top + ROW / 2 + TEXT / 3)
    keys = [Key(part, number, shade=SHADES[number % len(SHADES)]) for number, part in enumerate(parts)]
    table = [[label, *(f"{row.get(part, 0):,}" for part in parts)] for label, row in rows]
    return figure(name, svg, caption, keys if len(parts) > 1 else [], ["class", *parts], table, remark)


def _whisker(svg: ElementTree.Element, x: float, low: float, high: float) -> None:
    add(svg, "path", d=f"M{x:.1f} {low:.1f}V{high:.1f}m-3 0h6M{x - 3:.1f} {low:.1f}h6", stroke="currentColor")


def _counts(svg: ElementTree.Element, bins: Sequence[Bin], x: Scale, bottom: float) -> None:
    """Write the number of images of each bin, upwards."""
    add_text(svg, "images", 0, bottom - 2)
    for one in bins:
        if one.count:
            middle = x((one.low + one.high) / 2) + TEXT / 3
            add(svg, "text", f"{one.count:,}", transform=f"translate({middle:.1f} {bottom - 2:.1f})rotate(-90)")


def _shortened(label: str) -> str:
    """Return a label that is narrow enough."""
    label = printable(label)
    if text_width(label, TEXT) <= MAX_LABEL:
        return label
    while label and text_width(f"{label}...", TEXT) > MAX_LABEL:
        label = label[:-1]
    return f"{label}..."
