"""Elements of SVG drawings: text of known width, arrows and others."""

from xml.etree import ElementTree

from cnnkit.core.text import printable

__all__ = ["TEXT", "add", "arrow", "canvas", "text", "text_width", "to_text"]

FONT = "Helvetica, Arial, sans-serif"
TEXT = 13  # pixels


def text_width(text: str, size: float = TEXT, *, bold: bool = False) -> float:
    """Return an upper bound of a text's width: that in DejaVu Sans, the widest common font."""

    def ems(letter: str) -> float:
        if letter in " .,:;'ijl-":
            return 0.4
        if letter in "mwMW@%" or not letter.isascii():
            return 1.0
        return 0.86 if letter.isupper() or letter in "&<>" else 0.64

    return sum(map(ems, printable(text))) * size * (1.12 if bold else 1)


def canvas(width: float, height: float, title: str) -> ElementTree.Element:
    """Return a white, scalable drawing of this size in pixels."""
    svg = ElementTree.Element("svg", xmlns="http://www.w3.org/2000/svg", viewBox=f"0 0 {width:.0f} {height:.0f}")
    svg.set("font-family", FONT)
    svg.set("font-size", str(TEXT))
    add(svg, "title", title)
    add(svg, "rect", width="100%", height="100%", fill="white")
    return svg


def to_text(svg: ElementTree.Element) -> str:
    """Return the drawing as the content of a file."""
    ElementTree.indent(svg)
    return ElementTree.tostring(svg, encoding="unicode") + "\n"


def arrow(svg: ElementTree.Element, start: float, end: float, y: float) -> None:
    """Add an arrow from left to right, slightly shorter than from `start` to `end`."""
    start, end = start + 4, end - 4
    add(svg, "path", d=f"M{start:.1f} {y:.1f}H{end:.1f}m-4 -4l4 4l-4 4", fill="none", stroke="#444")


def text(
    svg: ElementTree.Element,
    words: str,
    x: float,
    y: float,
    *,
    size: float = TEXT,
    bold: bool = False,
    anchor: str = "start",
    fill: str = "#222",
) -> None:
    """Add text with its baseline at y, unless it is empty."""
    more = {"text-anchor": anchor, "font-size": str(size), "font-weight": "bold" if bold else "normal"}
    if words:
        add(svg, "text", words, x=f"{x:.1f}", y=f"{y:.1f}", fill=fill, **more)


def add(parent: ElementTree.Element, tag: str, text: str | None = None, **attributes: str) -> ElementTree.Element:
    """Add an element with its text and attributes, and return it."""
    child = ElementTree.SubElement(parent, tag, attributes)
    child.text = text and printable(text)  # XML allows no control characters
    return child
