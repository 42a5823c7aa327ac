"""Diagrams of networks in SVG, with stages as slabs, as papers draw them."""

from dataclasses import dataclass
from math import prod, sqrt
from xml.etree import ElementTree

from cnnkit.anatomy.trace import Anatomy, Part
from cnnkit.core.shape import by
from cnnkit.figures.svg import TEXT, add, arrow, canvas, text, text_width, to_text

__all__ = ["draw"]

TITLE, LINE, MARGIN, GAP = 18, 19, 24, 18  # pixels
MAX_HEIGHT, MAX_WIDTH, MIN_LENGTH = 220, 48, 5  # pixels of a slab
SLANT = 0.28  # depth of a slab, drawn to the right and upwards, relative to its height
VECTOR = 10  # pixels of a bar's width
NOTE = "Slabs: rows, columns and channels of the maps; bars: features. Lengths are on a square-root scale."
FACES = {  # front, top, side, edges
    "input": ("#c9ced6", "#e3e6eb", "#f1f3f6", "#6b7480"),
    "map": ("#6f9fd8", "#a4c4ea", "#cfe0f5", "#2c5486"),
    "vector": ("#f0a04b", "", "", "#9a5a10"),
}


@dataclass
class _Slab:
    """One column of the diagram: a box and the text under it."""

    style: str
    name: str
    about: str
    cells: tuple[str, str, str]
    height: float
    width: float
    back: float = 0  # depth, drawn to the right and upwards

    @property
    def column(self) -> float:
        return max(self.width + self.back, text_width(self.name, bold=True), *map(text_width, self.cells)) + GAP


def draw(parts: Anatomy, title: str) -> str:
    """Return a diagram of the network's stages as SVG.

    A map C x H x W is a slab whose height, depth and width follow the square roots of H, W and C; a vector is a bar
    whose height follows the square root of its length. Below each are its output, parameters and receptive field;
    tooltips have the exact numbers.
    """
    slabs = _slabs(parts)
    heads = ("output", "parameters", "field")
    names = max(map(text_width, heads)) + GAP
    classes = f"{parts.output[0]:,} classes" if len(parts.output) == 1 else ""
    facts = f"{parts.params:,} parameters, {parts.macs:,} MACs"
    drawn = sum(slab.column for slab in slabs) + text_width(classes) + GAP
    width = 2 * MARGIN + max(names + drawn, text_width(title, TITLE, bold=True), text_width(facts), text_width(NOTE))
    top = MARGIN + TITLE + LINE + GAP
    tallest = max(slab.height + slab.back for slab in slabs)
    axis, below = top + tallest / 2, top + tallest + GAP + TEXT
    height = below + (len(heads) + 2) * LINE + MARGIN / 2

    svg = canvas(width, height, title)
    text(svg, title, MARGIN, MARGIN + TITLE / 2, size=TITLE, bold=True)
    text(svg, facts, MARGIN, MARGIN + TITLE / 2 + LINE, fill="#666")
    for row, head in enumerate(heads, start=1):
        text(svg, head, MARGIN, below + row * LINE, fill="#666")
    text(svg, NOTE, MARGIN, below + (len(heads) + 1.5) * LINE, fill="#666")
    left, end = MARGIN + names, None
    for slab in slabs:
        x = left + (slab.column - slab.width - slab.back) / 2
        if end is not None:
            arrow(svg, end, x, axis)
        group = add(svg, "g", **{"class": slab.style})
        add(group, "title", slab.about)
        _box(group, slab, x, axis - (slab.height - slab.back) / 2)
        middle = left + slab.column / 2
        text(svg, slab.name, middle, below, bold=True, anchor="middle")
        for row, cell in enumerate(slab.cells, start=1):
            text(svg, cell, middle, below + row * LINE, anchor="middle")
        left, end = left + slab.column, x + slab.width + slab.back
    if classes and end is not None:
        arrow(svg, end, left, axis)
        text(svg, classes, left + 4, axis + TEXT / 3)
    return to_text(svg)


def _slabs(parts: Anatomy) -> list[_Slab]:
    whole = Part("input", "", 0, 0, parts.input)
    columns = [whole, *parts.stages]
    maps = [part.output for part in columns if len(part.output) == 3]
    features = [prod(part.output) for part in columns if len(part.output) != 3]
    tallest = max(sqrt(max(rows, cols)) for _, rows, cols in maps)
    widest = max(sqrt(channels) for channels, _, _ in maps)
    slabs = []
    for part in columns:
        output, seen = by(*part.output), part.receptive
        field = by(*seen.size) if seen else "?"
        sees = "all" if seen and seen.step == (0, 0) else field
        cells = (output, "", "") if part is whole else (output, _short(part.params) if part.params else "-", sees)
        about = f"{part.name}: {output}, {part.params:,} parameters, {part.macs:,} MACs, field {field}"
        if len(part.output) == 3:
            channels, rows, cols = map(sqrt, part.output)
            height, back = (MAX_HEIGHT * side / tallest for side in (rows, SLANT * cols))
            style = "input" if part is whole else "map"
            slabs.append(
                _Slab(style, part.name, about, cells, height, MIN_LENGTH + MAX_WIDTH * channels / widest, back)
            )
        else:
            height = MIN_LENGTH + MAX_HEIGHT * sqrt(prod(part.output) / max(features))
            slabs.append(_Slab("vector", part.name, about, cells, height, VECTOR))
    return slabs


def _short(count: int) -> str:
    """Format a count with three significant digits.

    >>> _short(156), _short(2_416), _short(11_689_512), _short(999_999)
    ('156', '2.42 k', '11.7 M', '1.00 M')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        value = count / size
        if value >= 0.9995:  # rounds to 1.00
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    return str(count)


def _box(group: ElementTree.Element, slab: _Slab, x: float, y: float) -> None:
    """Add the faces of the slab; (x, y) is the upper left corner of its front."""
    front, top, side, edge = FACES[slab.style]
    right, bottom, back = x + slab.width, y + slab.height, slab.back
    faces = [
        (front, [(x, y), (right, y), (right, bottom), (x, bottom)]),
        (top, [(x, y), (x + back, y - back), (right + back, y - back), (right, y)]),
        (side, [(right, y), (right + back, y - back), (right + back, bottom - back), (right, bottom)]),
    ]
    for colour, corners in faces[: 3 if back else 1]:
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
        add(group, "polygon", points=points, fill=colour, stroke=edge, **{"stroke-linejoin": "round"})
