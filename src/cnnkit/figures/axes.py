"""Axes of SVG plots: round ticks, scales from values to pixels, and the frame around the values."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from xml.etree import ElementTree

from cnnkit.figures.svg import add, text_width

__all__ = [
    "TEXT",
    "Scale",
    "add_text",
    "drawing",
    "frame",
    "linear",
    "logarithmic",
    "margin",
    "nice_ticks",
    "tick_labels",
]

TEXT = 12  # pixels, as all lengths here
GRID = {"stroke": "currentColor", "stroke-opacity": "0.15"}
TICK, GAP = 4, 6  # length of a tick, and its distance from the label
FACTORS = (1, 2, 5, 10)  # a step between ticks is one of them times a power of ten
ALIKE, LEAST = 1e-12, 1e-100  # values that differ by less, relatively or absolutely, are a constant
LONG = 1e9  # numbers above it, and below its inverse, are labelled with an exponent


@dataclass(frozen=True)
class Scale:
    """The mapping of values from `low` to `high` to pixels from `start` to `end`, and the ticks among them."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value; values outside the scale are at its ends."""
        low, high, value = (math.log10(one) if self.log else one for one in (self.low, self.high, value))
        share = (value - low) / (high - low)
        return self.start + min(max(share, 0.0), 1.0) * (self.end - self.start)


def nice_ticks(low: float, high: float, most: int = 6, *, whole: bool = False) -> list[float]:
    """Return at most `most` multiples of 1, 2 or 5 times a power of ten from `low` to `high`, integers if `whole`.

    >>> nice_ticks(0, 1), nice_ticks(1, 30, whole=True), nice_ticks(0.93, 0.968, 4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [10.0, 20.0, 30.0], [0.94, 0.96])
    """
    if low == high:
        return [low]
    factor, power = _step(low, high, most, whole)
    step = factor * 10.0**power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [float(f"{count * factor}e{power}") for count in range(first, last + 1)]


def tick_labels(ticks: Sequence[float]) -> list[str]:
    """Return the ticks with the same number of decimals, as few as tell them apart.

    >>> tick_labels([0, 0.05, 0.1]), tick_labels([0, 5000]), tick_labels([0, 1e12])
    (['0.00', '0.05', '0.10'], ['0', '5,000'], ['0', '1e+12'])
    """
    decimals = next((d for d in range(10) if all(math.isclose(round(one, d), one, abs_tol=1e-12) for one in ticks)), 9)
    gap = min((high - low for low, high in pairwise(ticks)), default=1)
    if max(map(abs, ticks), default=0) > LONG or gap < 1 / LONG:
        return [f"{one:.6g}" for one in ticks]
    return [f"{one:,.{decimals}f}" for one in ticks]


def linear(
    values: Iterable[float], start: float, end: float, most: int = 6, *, whole: bool = False, grow: bool = False
) -> Scale:
    """Return the scale of these values, with room around a constant; `grow` extends it to a tick at each end."""
    found = list(values)
    low, high = min(found, default=0.0), max(found, default=1.0)
    if high - low <= max(ALIKE * max(abs(low), abs(high)), LEAST):
        room = 0.5 if whole or not low else abs(low) / 2
        low, high = low - room, high + room
    if grow:
        factor, power = _step(low, high, most, whole)
        step = factor * 10.0**power
        low, high = (rounded(value / step) * step for rounded, value in ((math.floor, low), (math.ceil, high)))
    return Scale(low, high, start, end, tuple(nice_ticks(low, high, most, whole=whole)))


def logarithmic(values: Iterable[float], start: float, end: float, most: int = 6) -> Scale:
    """Return the logarithmic scale of these positive values, from one power of ten to another."""
    found = [math.log10(value) for value in values] or [0.0]
    low, high = math.floor(min(found)), math.ceil(max(found))
    high += low == high
    powers = range(low, high + 1, math.ceil((high - low) / (most - 1)))
    return Scale(
        float(f"1e{low}"), float(f"1e{high}"), start, end, tuple(float(f"1e{power}") for power in powers), True
    )


def drawing(name: str, width: float, height: float, title: str, description: str) -> ElementTree.Element:
    """Return an empty <svg> for an HTML page, which screen readers announce with its title and description.

    It takes the page's font and colour, and shrinks with the page. `name` begins the ids in it.
    """
    svg = ElementTree.Element("svg", viewBox=f"0 0 {width:.0f} {height:.0f}", role="img")
    svg.set("aria-labelledby", f"{name}-title {name}-text")
    svg.set("style", f"width:100%;max-width:{width:.0f}px;height:auto;direction:ltr")
    svg.set("font-size", f"{TEXT}")
    svg.set("fill", "currentColor")
    add(svg, "title", title, id=f"{name}-title")
    add(svg, "desc", description, id=f"{name}-text")
    return svg


def frame(svg: ElementTree.Element, x: Scale, y: Scale, x_label: str, y_label: str) -> None:
    """Draw the grid, the labels of the ticks, and the names of the axes."""
    grid, bottom, left = add(svg, "g", **GRID), max(y.start, y.end), min(x.start, x.end)
    for tick, label in zip(y.ticks, tick_labels(y.ticks), strict=True):
        add(grid, "path", d=f"M{x.start:.1f} {y(tick):.1f}H{x.end:.1f}")
        add_text(svg, label, left - GAP, y(tick) + TEXT / 3, "end")
    for tick, label in zip(x.ticks, tick_labels(x.ticks), strict=True):
        add(grid, "path", d=f"M{x(tick):.1f} {bottom:.1f}v{TICK}")
        add_text(svg, f"{tick:g}" if x.log else label, x(tick), bottom + TICK + TEXT, "middle")
    add(svg, "path", d=f"M{x.start:.1f} {bottom:.1f}H{x.end:.1f}", stroke="currentColor")
    add_text(svg, x_label, (x.start + x.end) / 2, bottom + TICK + 2.4 * TEXT, "middle")
    add_text(svg, y_label, 0, TEXT)


def add_text(svg: ElementTree.Element, words: str, x: float, y: float, anchor: str = "start") -> None:
    """Add text in the page's colour with its baseline at y."""
    more = {} if anchor == "start" else {"text-anchor": anchor}
    add(svg, "text", words, x=f"{x:.1f}", y=f"{y:.1f}", **more)


def margin(labels: Iterable[str]) -> float:
    """Return the width that these labels take beside an axis."""
    return max((text_width(label, TEXT) for label in labels), default=0) + GAP


def _step(low: float, high: float, most: int, whole: bool) -> tuple[int, int]:
    """Return the smallest step that gives at most `most` ticks, as a factor and a power of ten."""
    least = (high - low) / (most - 1)
    if whole:
        least = max(least, 1.0)
    power = math.floor(math.log10(least))
    return next((factor, power) for factor in FACTORS if factor * 10.0**power >= least * (1 - 1e-9))
