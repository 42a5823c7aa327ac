"""A network as a picture: its stages as slabs, as papers draw them, in SVG."""

from dataclasses import dataclass
from math import prod, sqrt
from xml.etree import ElementTree

from cnnkit.anatomy.trace import Anatomy, Part
from cnnkit.core.shape import by

__all__ = ["draw"]

FONT = "Helvetica, Arial, sans-serif"
TEXT, TITLE, LINE, MARGIN, GAP = 13, 18, 19, 24, 18  # pixels
TALLEST, WIDEST, LEAST = 220, 48, 5  # pixels of a slab
SLANT = 0.28  # how far a slab goes back, to the right and upwards, for its height
VECTOR = 10  # pixels in width
NOTE = "Slabs: rows, columns and channels of the maps; bars: features. Lengths are on a square-root scale."
FACES = {  # front, top, side, edges
    "input": ("#c9ced6", "#e3e6eb", "#f1f3f6", "#6b7480"),
    "map": ("#6f9fd8", "#a4c4ea", "#cfe0f5", "#2c5486"),
    "vector": ("#f0a04b", "", "", "#9a5a10"),
}


@dataclass
class _Slab:
    """What stands in one column: a box and what is written under it."""

    style: str
    name: str
    about: str
    cells: tuple[str, str, str]
    height: float
    width: float
    back: float = 0  # to the right and upwards

    @property
    def column(self) -> float:
        return max(self.width + self.back, _length(self.name, bold=True), *map(_length, self.cells)) + GAP


def draw(parts: Anatomy, title: str) -> str:
    """Return a picture of the network's stages as SVG.

    A map C x H x W is a slab, as high, deep and wide as the square roots of H, W and C; a vector is a bar, as high as
    the square root of its length. Under each stand its output, its parameters and its receptive field; exact figures
    show under the mouse.
    """
    slabs = _slabs(parts)
    heads = ("output", "parameters", "field")
    names = max(map(_length, heads)) + GAP
    classes = f"{parts.output[0]:,} classes" if len(parts.output) == 1 else ""
    facts = f"{parts.params:,} parameters, {parts.macs:,} MACs"
    drawn = sum(slab.column for slab in slabs) + _length(classes) + GAP
    width = 2 * MARGIN + max(names + drawn, _length(title, TITLE, bold=True), _length(facts), _length(NOTE))
    top = MARGIN + TITLE + LINE + GAP
    tallest = max(slab.height + slab.back for slab in slabs)
    axis, below = top + tallest / 2, top + tallest + GAP + TEXT
    height = below + (len(heads) + 2) * LINE + MARGIN / 2

    svg = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:.0f} {height:.0f}")
    svg.set("font-family", FONT)
    svg.set("font-size", str(TEXT))
    _add(svg, "title", title)
    _add(svg, "rect", width="100%", height="100%", fill="white")
    _text(svg, title, MARGIN, MARGIN + TITLE / 2, size=TITLE, bold=True)
    _text(svg, facts, MARGIN, MARGIN + TITLE / 2 + LINE, fill="#666")
    for row, head in enumerate(heads, start=1):
        _text(svg, head, MARGIN, below + row * LINE, fill="#666")
    _text(svg, NOTE, MARGIN, below + (len(heads) + 1.5) * LINE, fill="#666")
    left, end = MARGIN + names, None
    for slab in slabs:
        x = left + (slab.column - slab.width - slab.back) / 2
        if end is not None:
            _arrow(svg, end, x, axis)
        group = _add(svg, "g", **{"class": slab.style})
        _add(group, "title", slab.about)
        _box(group, slab, x, axis - (slab.height - slab.back) / 2)
        middle = left + slab.column / 2
        _text(svg, slab.name, middle, below, bold=True, anchor="middle")
        for row, cell in enumerate(slab.cells, start=1):
            _text(svg, cell, middle, below + row * LINE, anchor="middle")
        left, end = left + slab.column, x + slab.width + slab.back
    if classes and end is not None:
        _arrow(svg, end, left, axis)
        _text(svg, classes, left + 4, axis + TEXT / 3)
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def _slabs(parts: Anatomy) -> list[_Slab]:
    whole = Part("input", "", 0, 0, parts.input)
    columns = [whole, *parts.stages]
    maps = [part.output for part in columns if len(part.output) == 3]
    features = [prod(part.output) for part in columns if len(part.output) != 3]
    tallest, widest = (
        max(sqrt(max(rows, cols)) for _, rows, cols in maps),
        max(sqrt(channels) for channels, _, _ in maps),
    )
    slabs = []
    for part in columns:
        output, seen = by(*part.output), part.receptive
        field = by(*seen.size) if seen else "?"
        sees = "all" if seen and seen.step == (0, 0) else field
        cells = (output, "", "") if part is whole else (output, _short(part.params) if part.params else "-", sees)
        about = f"{part.name}: {output}, {part.params:,} parameters, {part.macs:,} MACs, field {field}"
        if len(part.output) == 3:
            channels, rows, cols = map(sqrt, part.output)
            height, back = (TALLEST * side / tallest for side in (rows, SLANT * cols))
            style = "input" if part is whole else "map"
            slabs.append(_Slab(style, part.name, about, cells, height, LEAST + WIDEST * channels / widest, back))
        else:
            height = LEAST + TALLEST * sqrt(prod(part.output) / max(features))
            slabs.append(_Slab("vector", part.name, about, cells, height, VECTOR))
    return slabs


def _short(count: int) -> str:
    """Write a count with three digits.

    >>> _short(156), _short(2_416), _short(11_689_512), _short(999_999)
    ('156', '2.42 k', '11.7 M', '1.00 M')
    """
    for unit, size in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        value = count / size
        if value >= 0.9995:  # which is written as 1.00
            return f"{value:.{max(0, 3 - len(str(int(value))))}f} {unit}"
    return str(count)


def _length(text: str, size: float = TEXT, *, bold: bool = False) -> float:
    """Return at most how wide a text is: which font draws it is not known, DejaVu Sans is the widest usual one."""

    def ems(letter: str) -> float:
        if letter in " .,:;'ijl-":
            return 0.4
        if letter in "mwMW@%" or not letter.isascii():
            return 1.0
        return 0.86 if letter.isupper() or letter in "&<>" else 0.64

    return sum(map(ems, text)) * size * (1.12 if bold else 1)


def _box(group: ElementTree.Element, slab: _Slab, x: float, y: float) -> None:
    """Add the slab's faces; (x, y) is the upper left corner of the front."""
    front, top, side, edge = FACES[slab.style]
    right, bottom, back = x + slab.width, y + slab.height, slab.back
    faces = [
        (front, [(x, y), (right, y), (right, bottom), (x, bottom)]),
        (top, [(x, y), (x + back, y - back), (right + back, y - back), (right, y)]),
        (side, [(right, y), (right + back, y - back), (right + back, bottom - back), (right, bottom)]),
    ]
    for colour, corners in faces[: 3 if back else 1]:
        points = " ".join(f"{across:.1f},{down:.1f}" for across, down in corners)
        _add(group, "polygon", points=points, fill=colour, stroke=edge, **{"stroke-linejoin": "round"})


def _arrow(svg: ElementTree.Element, start: float, end: float, y: float) -> None:
    start, end = start + 4, end - 4
    _add(svg, "path", d=f"M{start:.1f} {y:.1f}H{end:.1f}m-4 -4l4 4l-4 4", fill="none", stroke="#444")


def _text(
    svg: ElementTree.Element,
    text: str,
    x: float,
    y: float,
    *,
    size: float = TEXT,
    bold: bool = False,
    anchor: str = "start",
    fill: str = "#222",
) -> None:
    more = {"text-anchor": anchor, "font-size": str(size), "font-weight": "bold" if bold else "normal"}
    if text:
        _add(svg, "text", text, x=f"{x:.1f}", y=f"{y:.1f}", fill=fill, **more)


def _add(parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text and "".join(c if c.isprintable() else "?" for c in text)  # XML has no control characters
    return child
