"""Plots within HTML pages: their lines, bars, tables and ids."""

import math
import re
import subprocess
import sys
from dataclasses import dataclass
from html.parser import HTMLParser
from itertools import pairwise
from xml.etree import ElementTree

import pytest

from cnnkit.figures import Panel, Series, bar_plot, coverage_plot, line_plot, palette_css, reliability_plot

EVIL = "<img src=x onerror=alert(1)>"
VOID = {"meta", "br", "img"}


@dataclass(frozen=True)
class Bin:
    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: tuple[float, float, float] | None


@dataclass(frozen=True)
class Answers:
    threshold: float
    answered: int
    share: float
    accuracy: tuple[float, float, float] | None


BINS = [
    Bin(0, 0.5, 0, None, None),
    Bin(0.5, 0.75, 40, 0.6, (0.5, 0.35, 0.65)),
    Bin(0.75, 1, 1200, 0.9, (0.8, 0.78, 0.82)),
]
ANSWERS = [Answers(0, 100, 1, (0.8, 0.7, 0.9)), Answers(0.5, 50, 0.5, (0.9, 0.8, 0.95)), Answers(1, 0, 0, None)]
COUNTS = {"cat": {"train": 90, "test": 10}, EVIL: {"train": 50, "test": 0}, "חתול": {"train": 1, "test": 1}}


def lines(**more: object) -> Panel:
    series = [Series("training", [1, 2, 3], [0.3, 0.2, 0.1]), Series("validation", [1, 2, 3], [0.4, 0.5, 0.2], True)]
    return Panel("Loss", "epoch", "nats", more.get("series", series), bool(more.get("log_x", False)))  # type: ignore[arg-type]


PLOTS = {
    "lines": lambda name: line_plot(lines(), "Loss by epoch.", name=name),
    "reliability": lambda name: reliability_plot(BINS, name=name),
    "coverage": lambda name: coverage_plot(ANSWERS, name=name),
    "bars": lambda name: bar_plot(COUNTS, "images", name=name, caption=f"Images of {EVIL}"),
}


def drawing(figure: str) -> ElementTree.Element:
    """Return the plot in a figure, which is a well-formed element."""
    found = re.search(r"<svg [^>]*role=.*?</svg>", figure)
    assert found
    return ElementTree.fromstring(found[0])


def table(figure: str) -> list[list[str]]:
    """Return the cells of its table, as text."""
    rows = re.findall(r"<tr>(.*?)</tr>", figure)
    return [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]


def paths(svg: ElementTree.Element, **attributes: str) -> list[list[tuple[float, float]]]:
    """Return the points of the lines with these attributes."""
    found = [path for path in svg.iter("path") if attributes.items() <= path.attrib.items()]
    return [
        [(float(x), float(y)) for x, y in re.findall(r"[ML](-?[\d.]+) (-?[\d.]+)", path.get("d", ""))] for path in found
    ]


def texts(svg: ElementTree.Element) -> list[str]:
    return [text.text or "" for text in svg.iter("text")]


@pytest.mark.parametrize("kind", PLOTS)
def test_plot_has_title_description_and_table(kind: str) -> None:
    figure = PLOTS[kind]("one")
    svg = drawing(figure)
    assert svg.get("role") == "img"
    assert [(part.tag, part.get("id")) for part in svg[:2]] == [("title", "one-title"), ("desc", "one-text")]
    assert svg.get("aria-labelledby") == "one-title one-text"
    assert all(part.text for part in svg[:2])
    assert "<details><summary>Data of the plot</summary>" in figure
    assert len(table(figure)) > 1
    assert figure.count("<figcaption>") == 1


class Elements(HTMLParser):
    """The elements of a page, closed in order."""

    def __init__(self, page: str):
        super().__init__()
        self.open: list[str] = []
        self.seen: list[str] = []
        self.ids: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        self.ids += [value or "" for name, value in attrs if name == "id"]
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_plots_on_a_page_have_unique_ids_and_only_known_elements() -> None:
    page = Elements("".join(plot(f"{kind}-{number}") for kind, plot in PLOTS.items() for number in (1, 2)))
    assert page.open == []
    assert len(page.ids) == len(set(page.ids)) == 24
    known = "figure figcaption span svg path bdi title desc g text rect details summary p table thead tr th tbody td"
    assert set(page.seen) <= set(known.split())


def test_names_of_lines_and_classes_are_escaped() -> None:
    evil = lines(series=[Series(EVIL, [1], [1]), Series("\x1b[31mред\u202e", [1], [2])])
    figure = line_plot(evil, EVIL, name="a", caption=EVIL) + PLOTS["bars"]("b")
    assert "<img" not in figure
    assert figure.count("&lt;img src=x") >= 6
    assert "\x1b" not in figure
    assert "\u202e" not in figure
    assert "חתול" in figure


def test_lines_pass_through_their_values() -> None:
    svg = drawing(line_plot(lines(), "d", name="a"))
    solid, dashed = paths(svg, **{"stroke-width": "2"})
    assert [path.get("stroke-dasharray") for path in svg.iter("path") if path.get("stroke-width")] == [None, "6 4"]
    ys = [y for _, y in solid + dashed]
    values = [0.3, 0.2, 0.1, 0.4, 0.5, 0.2]
    scale = (ys[4] - ys[2]) / (values[4] - values[2])
    assert scale < 0
    assert ys == pytest.approx([ys[2] + scale * (value - 0.1) for value in values], abs=0.06)
    assert [x for x, _ in solid] == [x for x, _ in dashed]
    assert {"1", "2", "3", "epoch", "nats"} <= set(texts(svg))


def test_table_has_the_values_of_each_line() -> None:
    series = [Series("a", [1, 2], [0.5, 0.25]), Series("b", [2, 3], [1, math.nan])]
    assert table(line_plot(lines(series=series), "d", name="a")) == [
        ["epoch", "a", "b"],
        ["1", "0.5", "-"],
        ["2", "0.25", "1"],
    ]


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e305])
def test_values_that_cannot_be_drawn_are_skipped(value: float) -> None:
    figure = line_plot(lines(series=[Series("a", [1, 2, 3], [1, value, 2])]), "d", name="a")
    assert "nan" not in figure
    assert "inf" not in figure
    assert [len(line) for line in paths(drawing(figure), **{"stroke-width": "2"})] == [2]


def test_panel_without_values_says_so() -> None:
    figure = line_plot(lines(series=[Series("a", [1], [math.nan])]), "d", name="a")
    assert "no values" in texts(drawing(figure))
    assert "no values" in texts(drawing(line_plot(lines(series=[]), "d", name="a")))


def test_single_epoch_is_a_marker_in_the_middle() -> None:
    svg = drawing(line_plot(lines(series=[Series("a", [1], [0.5])]), "d", name="a"))
    markers = [path for path in svg.iter("path") if path.get("transform")]
    assert len(markers) == 1
    assert [text for text in texts(svg) if text == "1"] == ["1"]


def test_long_run_is_thinned_but_keeps_its_extremes() -> None:
    number = 20_000
    values = [1 + 0.1 * math.sin(step) for step in range(number)]
    values[12_345] = 3.0
    figure = line_plot(lines(series=[Series("a", range(1, number + 1), values)]), "d", name="a")
    (line,) = paths(drawing(figure), **{"stroke-width": "2"})
    assert len(line) < 1100
    lows = sorted(y for _, y in line)
    assert lows[0] < lows[1] - 100  # the spike
    assert all(right >= left for (left, _), (right, _) in pairwise(line))
    rows = table(figure)
    assert len(rows) == 201
    assert [rows[1][0], rows[2][0]] == ["1", "101"]
    assert "One row in 100 is shown." in figure
    assert len(figure) < 60_000


def test_logarithmic_axis_has_powers_of_ten() -> None:
    series = [Series("a", [1e-4, 1e-3, 1e-2], [1, 2, 3])]
    svg = drawing(line_plot(lines(series=series, log_x=True), "d", name="a"))
    assert {"0.0001", "0.001", "0.01"} <= set(texts(svg))
    (line,) = paths(svg, **{"stroke-width": "2"})
    assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=0.2)


def test_reliability_diagram_has_a_bar_and_an_interval_for_each_filled_bin() -> None:
    figure = reliability_plot(BINS, name="a")
    svg = drawing(figure)
    bars = [{key: float(bar.get(key, "0")) for key in ("x", "y", "width", "height")} for bar in svg.iter("rect")]
    assert [bar["height"] for bar in bars] == [150, 240]  # of 300
    assert [bar["width"] for bar in bars] == [75, 75]
    whiskers = [re.match(r"M([\d.]+) ([\d.]+)V([\d.]+)", path.get("d", "")) for path in svg.iter("path")]
    spans = [(float(found[2]) - float(found[3])) / 300 for found in whiskers if found]
    assert spans == pytest.approx([0.3, 0.04], abs=0.001)
    assert {"40", "1,200", "confidence", "accuracy"} <= set(texts(svg))
    assert table(figure)[1:] == [
        ["0.000 to 0.500", "0", "-", "-", "-", "-"],
        ["0.500 to 0.750", "40", "0.6000", "0.5000", "0.3500", "0.6500"],
        ["0.750 to 1.000", "1,200", "0.9000", "0.8000", "0.7800", "0.8200"],
    ]
    assert "1,240 images" in figure
    assert "<rect" not in reliability_plot(BINS[:1], name="a").split("</figcaption>")[1]


def test_coverage_has_two_lines_and_a_band() -> None:
    figure = coverage_plot(ANSWERS, name="a")
    svg = drawing(figure)
    accuracy, share = paths(svg, **{"stroke-width": "2"})
    assert (len(accuracy), len(share)) == (2, 3)
    (band,) = paths(svg, **{"fill-opacity": "0.2"})
    assert [x for x, _ in band] == [x for x, _ in accuracy] + [x for x, _ in reversed(accuracy)]
    assert all(low > high for (_, low), (_, high) in zip(band, reversed(band[2:]), strict=False))  # an SVG counts down
    assert table(figure)[3] == ["1", "0", "0.0000", "-", "-", "-"]
    assert "no values" in texts(drawing(coverage_plot([], name="a")))


def test_bars_are_as_long_as_their_counts() -> None:
    figure = PLOTS["bars"]("a")
    svg = drawing(figure)
    widths = [float(bar.get("width", "0")) for bar in svg.iter("rect")]
    assert len(widths) == 5  # a count of 0 has none
    unit = widths[0] / 90
    assert widths == pytest.approx([count * unit for count in (90, 10, 50, 1, 1)], abs=0.11)
    assert len({bar.get("fill-opacity") for bar in svg.iter("rect")}) == 2
    assert [row[1:] for row in table(figure)] == [["train", "test"], ["90", "10"], ["50", "0"], ["1", "1"]]


def test_parts_of_a_bar_adjoin() -> None:
    svg = drawing(bar_plot({"cat": {"train": 50, "validation": 20, "test": 30}}, "images", name="a", caption="c"))
    bars = [(float(bar.get("x", "0")), float(bar.get("width", "0"))) for bar in svg.iter("rect")]
    assert [right for right, _ in bars[1:]] == pytest.approx([left + width for left, width in bars[:-1]], abs=0.11)


def test_of_many_classes_the_largest_and_smallest_are_shown() -> None:
    figure = bar_plot({f"class {i}": {"train": i} for i in range(10_000)}, "images", name="a", caption="c")
    rows = [row[0] for row in table(figure)[1:]]
    assert (rows[0], rows[-1], len(rows)) == ("class 9999", "class 0", 60)
    assert "The 30 largest and the 30 smallest of 10,000 classes are shown." in figure
    assert len(figure) < 30_000


def test_long_label_is_shortened_in_the_drawing_and_whole_in_the_table() -> None:
    figure = bar_plot({"W" * 300: {"train": 1}}, "images", name="a", caption="c")
    assert any(re.fullmatch(r"W+\.\.\.", text) for text in texts(drawing(figure)))
    assert table(figure)[1][0] == "W" * 300


def luminance(colour: str) -> float:
    """Return the relative luminance of WCAG 2."""
    channels = [int(colour[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (one / 12.92 if one <= 0.04045 else ((one + 0.055) / 1.055) ** 2.4 for one in channels)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_palette_for_dark_pages_is_readable() -> None:
    light, dark = palette_css().split("@media screen and (prefers-color-scheme:dark)")
    pairs = re.findall(r"(--series-\d):(#\w+);", dark)
    assert [name for name, _ in pairs] == re.findall(r"--series-\d", light)
    page = luminance("#121212") + 0.05
    assert all((luminance(colour) + 0.05) / page > 3 for _, colour in pairs)


def test_plots_need_neither_torch_nor_matplotlib() -> None:
    code = (
        "import sys\n"
        "from cnnkit.figures import bar_plot, line_plot\n"
        "bar_plot({'a': {'b': 1}}, 'c', name='d', caption='e')\n"
        "assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
