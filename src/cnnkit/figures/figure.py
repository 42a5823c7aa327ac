"""The frame of a plot in an HTML page: a <figure> with caption, legend, drawing, and the table behind it."""

import math
from collections.abc import Sequence
from typing import NamedTuple
from xml.etree import ElementTree

from cnnkit.core.text import html
from cnnkit.figures.curves import COLOURS
from cnnkit.figures.html import html_table
from cnnkit.figures.svg import add

__all__ = ["Estimate", "Key", "area", "estimate", "figure", "marker", "paint", "palette_css", "stroke"]

# COLOURS for dark pages: each has a contrast of at least 3 to 1 with #121212
DARK = ("#56a8e0", "#f08030", "#2cc295", "#d98fb8", "#e69f00", "#7cc8f2", "#d0d0d0")
SHAPES = (  # of markers around 0 0: circle, square, diamond, triangles, plus
    "M-3 0a3 3 0 1 0 6 0a3 3 0 1 0-6 0z",
    "M-3-3h6v6h-6z",
    "M0-4l4 4-4 4-4-4z",
    "M-4 3h8l-4-7z",
    "M-4-3h8l-4 7z",
    "M-1-4h2v3h3v2h-3v3h-2v-3h-3v-2h3z",
)
DASHES = "6 4"
MAX_ROWS = 200  # of a table
Estimate = tuple[float, float, float]  # a value and its 95 % interval


class Key(NamedTuple):
    """An entry of the legend: a line, or an area with this `shade` (opacity)."""

    label: str
    colour: int
    dashed: bool = False
    shade: float | None = None


def palette_css() -> str:
    """Return the rules that set the colours of the series for light and dark pages."""
    light, dark = (
        "".join(f"--series-{number}:{colour};" for number, colour in enumerate(colours, start=1))
        for colours in (COLOURS, DARK)
    )
    return f":root{{{light}}}@media screen and (prefers-color-scheme:dark){{:root{{{dark}}}}}"


def paint(colour: int) -> str:
    """Return the colour of this index as CSS."""
    number = colour % len(COLOURS)
    return f"var(--series-{number + 1},{COLOURS[number]})"


def stroke(colour: int, dashed: bool = False) -> dict[str, str]:
    """Return the attributes of a line."""
    dashes = {"stroke-dasharray": DASHES} if dashed else {}
    return {"fill": "none", "stroke": paint(colour), "stroke-width": "2"} | dashes


def marker(svg: ElementTree.Element, x: float, y: float, colour: int, hollow: bool = False) -> None:
    """Draw the marker of a series; `hollow` is for dashed lines."""
    fill = {"fill": "var(--page,Canvas)"} if hollow else {"fill": paint(colour)}
    shape = SHAPES[colour % len(SHAPES)]
    add(svg, "path", d=shape, transform=f"translate({x:.1f} {y:.1f})", stroke=paint(colour), **fill)


def figure(
    name: str,
    svg: ElementTree.Element,
    caption: str,
    keys: Sequence[Key],
    columns: Sequence[str],
    rows: Sequence[Sequence[object]],
    remark: str = "",
) -> str:
    """Return a drawing as a <figure> with its caption, legend, and a table of its values after a `remark`.

    `name` is the figure's id. The table has at most MAX_ROWS rows: every second, third, ... one of more.
    """
    if (step := math.ceil(len(rows) / MAX_ROWS)) > 1:
        rows, remark = rows[::step], f"{remark} One row in {step:,} is shown.".lstrip()
    legend = "".join(f'<span class="key">{_sample(key)} <bdi>{html(key.label)}</bdi></span> ' for key in keys)
    words = f"<p>{html(remark)}</p>" if remark else ""
    return (
        f'<figure class="plot" id="{html(name)}"><figcaption>{html(caption)} {legend}</figcaption>'
        f"{ElementTree.tostring(svg, encoding='unicode')}"
        f"<details><summary>Data of the plot</summary>{words}{html_table(columns, rows)}</details></figure>"
    )


def estimate(value: Estimate | None) -> list[str]:
    """Return the cells of a value and its interval."""
    return [f"{one:.4f}" for one in value] if value else ["-"] * 3


def _sample(key: Key) -> str:
    """Return a small drawing of an entry's line or area."""
    svg = ElementTree.Element("svg", {"aria-hidden": "true"}, viewBox="0 0 28 12", width="28", height="12")
    if key.shade is None:
        add(svg, "path", d="M0 6H28", **stroke(key.colour, key.dashed))
        marker(svg, 14, 6, key.colour, key.dashed)
    else:
        area(svg, 0, 1, 28, 10, key.colour, key.shade)
    return ElementTree.tostring(svg, encoding="unicode")


def area(
    svg: ElementTree.Element, x: float, y: float, width: float, height: float, colour: int, shade: float = 1.0
) -> None:
    """Draw a rectangle with an outline, filled with this opacity."""
    sides = {name: f"{value:.1f}" for name, value in (("x", x), ("y", y), ("width", width), ("height", height))}
    add(svg, "rect", **sides, fill=paint(colour), stroke=paint(colour), **{"fill-opacity": f"{shade:g}"})
