"""The drawing: valid SVG, everything inside, nothing over anything else, sizes that tell the truth."""

import re
import xml.etree.ElementTree as ElementTree
from collections import OrderedDict
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnkit.anatomy import draw, trace
from cnnkit.nets import ZOO, create
from helpers.cli import Cli, one_line

SVG = "{http://www.w3.org/2000/svg}"
QUICK = {
    "alexnet",
    "densenet",
    "googlenet",
    "googlenet.tv",
    "lenet",
    "lenet_bn",
    "nin",
    "resnet18",
    "resnet50.tv",
    "vgg16.tv",
}
every = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in QUICK else pytest.mark.slow) for name in sorted(ZOO)]
)
# DejaVu Sans in thousandths of its size: the widest font that is likely to draw the text
WIDTHS = {
    278: "ijl'", 318: " .,", 337: ":;", 352: "f", 361: "-", 390: "()", 392: "t", 411: "r", 521: "s", 525: "z", 550: "c",
    557: "L", 579: "k", 592: "vxy", 603: "P", 615: "oae", 632: "E", 635: "bdgpqhnuS_", 636: "0123456789", 656: "K",
    684: "AV", 695: "BRXZFTYIJ", 698: "C", 732: "U", 752: "HN", 775: "DG", 787: "OQ&", 838: "<>w", 863: "M", 974: "m",
    989: "W",
}  # fmt: skip
ADVANCE = {letter: width / 1000 for width, letters in WIDTHS.items() for letter in letters}


@dataclass
class Area:
    what: str
    left: float
    top: float
    right: float
    bottom: float

    def overlaps(self, other: "Area") -> bool:
        across = min(self.right, other.right) - max(self.left, other.left)
        down = min(self.bottom, other.bottom) - max(self.top, other.top)
        return across > 0.1 and down > 0.1


@dataclass
class Picture:
    size: tuple[float, float]
    boxes: list[Area]  # with all their faces
    fronts: list[Area]
    texts: list[Area]
    arrows: list[Area]
    styles: list[str]


def read(svg: str) -> Picture:
    root = ElementTree.fromstring(svg)
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (left, top) == (0, 0)
    boxes, fronts, texts, arrows, styles = [], [], [], [], []
    for group in root.iter(f"{SVG}g"):
        faces = [re.findall(r"[-\d.]+", face.attrib["points"]) for face in group.iter(f"{SVG}polygon")]
        about = (group.findtext(f"{SVG}title") or "").partition(":")[0]

        def around(numbers: list[str], what: str = about) -> Area:
            across, down = [*map(float, numbers[::2])], [*map(float, numbers[1::2])]
            return Area(what, min(across), min(down), max(across), max(down))

        fronts.append(around(faces[0]))
        boxes.append(around([number for face in faces for number in face]))
        styles.append(group.attrib["class"])
    for text in root.iter(f"{SVG}text"):
        content, size = text.text or "", float(text.attrib["font-size"])
        bold = 1.1 if text.attrib["font-weight"] == "bold" else 1
        length = sum(ADVANCE.get(letter, 1) for letter in content) * size * bold
        x, y = float(text.attrib["x"]), float(text.attrib["y"])
        start = x - length / 2 if text.attrib["text-anchor"] == "middle" else x
        texts.append(Area(content, start, y - 0.8 * size, start + length, y + 0.25 * size))
    for arrow in root.iter(f"{SVG}path"):
        start, y, end = map(float, re.findall(r"[-\d.]+", arrow.attrib["d"])[:3])
        arrows.append(Area("arrow", start, y - 4, end, y + 4))
    return Picture((width, height), boxes, fronts, texts, arrows, styles)


def checked(svg: str) -> Picture:
    """Read a drawing and make sure that all of it is inside and nothing over anything else."""
    picture = read(svg)
    areas = [*picture.boxes, *picture.texts, *picture.arrows]
    for area in areas:
        assert area.left >= 0, area
        assert area.top >= 0, area
        assert area.right <= picture.size[0], area
        assert area.bottom <= picture.size[1], area
        assert area.right > area.left, area
    for one, other in combinations(areas, 2):
        assert not one.overlaps(other), (one, other)
    return picture


@every
def test_every_network_is_drawn_whole_and_legibly(name: str) -> None:
    with torch.device("meta"):
        net = create(name)
    parts = trace(net, ZOO[name].input)
    picture = checked(draw(parts, name))
    stages = [stage.name for stage in parts.stages]
    assert [box.what for box in picture.boxes] == ["input", *stages]
    assert [text.what for text in picture.texts if text.what in ("input", *stages)] == ["input", *stages]
    assert len(picture.arrows) == len(stages) + 1
    maps = [parts.input, *(stage.output for stage in parts.stages if len(stage.output) == 3)]
    assert picture.styles == ["input", *["map"] * (len(maps) - 1), *["vector"] * (len(stages) + 1 - len(maps))]
    slabs = [*zip(picture.fronts, maps, strict=False)]
    tall = {(front.bottom - front.top) / size[1] ** 0.5 for front, size in slabs}
    assert max(tall) - min(tall) < 0.1  # all on one scale
    for (one, small), (other, large) in combinations(slabs, 2):
        wider = (other.right - other.left) - (one.right - one.left)
        assert abs(wider) < 0.2 if small[0] == large[0] else (wider > 0) == (small[0] < large[0])


def test_lenets_picture_says_all() -> None:
    parts = trace(create("lenet"), (1, 28, 28))
    svg = draw(parts, "LeNet")
    picture = checked(svg)
    words = [text.what for text in picture.texts]
    for column in (
        ["conv2", "16 x 4 x 4", "2.42 k", "16 x 16"],
        ["dense", "84", "41.0 k", "all"],
        ["input", "1 x 28 x 28"],
    ):
        at = words.index(column[0])
        assert words[at : at + len(column)] == column
    assert {"LeNet", "44,426 parameters, 281,640 MACs", "10 classes"} <= {*words}
    assert "conv2: 16 x 4 x 4, 2,416 parameters, 153,600 MACs, field 16 x 16" in svg
    dense, head = picture.boxes[-2:]
    assert dense.bottom - dense.top > head.bottom - head.top
    assert dense.right - dense.left == head.right - head.left
    assert 'fill="white"' in svg
    assert [box.left for box in picture.boxes] == sorted(box.left for box in picture.boxes)


def test_names_are_escaped_and_as_long_as_they_like() -> None:
    stages = {
        "<b>&amp;\"'": nn.Conv2d(3, 8, 3),
        "MMMMMMMMMMMMMMMMMMMMMMMMMMMMMM": nn.MaxPool2d(2),
        "第一": nn.Conv2d(8, 200, 5),
        "bell\x07": nn.Sequential(nn.Flatten(), nn.LazyLinear(5)),
    }
    net = nn.Sequential(OrderedDict(stages))
    net(torch.zeros(1, 3, 40, 20))
    picture = checked(draw(trace(net, (3, 40, 20)), "<svg> & " + "W" * 100))
    words = [text.what for text in picture.texts]
    assert words[0] == "<svg> & " + "W" * 100
    assert {"<b>&amp;\"'", "第一", r"bell\x07"} <= {*words}
    for at, (rows, columns) in enumerate([(40, 20), (38, 18), (19, 9), (15, 5)]):
        front, box = picture.fronts[at], picture.boxes[at]
        slant = (box.right - front.right) / (front.bottom - front.top)
        assert slant == pytest.approx(0.28 * (columns / rows) ** 0.5, abs=0.01)


def test_a_field_that_is_not_known_is_a_dash() -> None:
    net = nn.Sequential(OrderedDict(up=nn.Upsample(scale_factor=2), head=nn.Flatten()))
    svg = draw(trace(net, (1, 4, 4)), "up")
    words = [text.what for text in checked(svg).texts]
    assert words[words.index("up", 1) :][:4] == ["up", "1 x 8 x 8", "-", "?"]
    assert "up: 1 x 8 x 8, 0 parameters, 0 MACs, field ?" in svg


def test_features_without_a_head_end_in_no_classes() -> None:
    picture = checked(draw(trace(create("lenet")[:2], (1, 28, 28)), "features"))
    assert len(picture.arrows) == 2
    assert not any("classes" in text.what for text in picture.texts)


def test_the_verb_writes_the_file(cli: Cli) -> None:
    result = cli("draw", "lenet")
    assert (result.code, result.out) == (0, "lenet.svg: 4 stages, input 1 x 28 x 28\n")
    assert checked(Path("lenet.svg").read_text()).texts[0].what == "lenet"
    result = cli("draw", "lenet", "--input", "3x40x60", "--num-classes", 7, "--output", "own.svg")
    assert result.out == "own.svg: 4 stages, input 3 x 40 x 60\n"
    words = {text.what for text in checked(Path("own.svg").read_text()).texts}
    assert {"3 x 40 x 60", "7 classes"} <= words
    one_line(cli("draw", "lenett"), 2, "did you mean 'lenet'")
    one_line(cli("draw", "lenet", "--output", "no/x.svg"), 1, "no/x.svg")


def test_the_diagram_is_svg_and_says_so(cli: Cli) -> None:
    one_line(cli("draw", "lenet", "--output", "lenet.png"), 2, "lenet.png: the diagram is SVG")
    assert not Path("lenet.png").exists()
