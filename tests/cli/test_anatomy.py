"""The command anatomy: its table, CSV, Markdown and JSON."""

import csv
import io
import json
from pathlib import Path

import pytest

from cnnkit.deploy import Bundle, save_bundle
from cnnkit.nets import ZOO, create
from helpers.cli import Cli, one_line


def lines_of(cli: Cli, *arguments: object) -> list[str]:
    """Return what `cnnkit anatomy` prints, with single spaces."""
    result = cli("anatomy", *arguments)
    assert result.code == 0, result.err
    return [" ".join(line.split()) for line in result.out.splitlines()]


def test_table_shows_each_layer(cli: Cli) -> None:
    lines = lines_of(cli, "lenet")
    assert lines[0] == "lenet, input 1 x 28 x 28"
    assert "0 Conv2d 6 x 24 x 24 156 0.4 86,400 30.7 5 x 5 1 0 3.06 16.56" in lines
    assert "conv2 16 x 4 x 4 2,416 5.4 153,600 54.5 16 x 16 4 0 9.38 8.00" in lines
    assert "head Linear 10 850 1.9 840 0.3 all - - 0.00 0.37" in lines
    total = lines.index("total 44,426 100.0 281,640 100.0 34.48 27.00")
    assert lines[total + 1] == "published 60,000 340,908"
    text = " ".join(lines)
    for words in ("published: LeCun et al. 1998", "KiB for one image", "weights: 173.54 KiB"):
        assert words in text
    assert "plus 452 moving statistics (Keras' total: 45,330)" in lines_of(cli, "lenet_bn")


def test_table_shows_starts_and_larger_units(cli: Cli) -> None:
    lines = lines_of(cli, "resnet18.tv", "--depth", 1)
    assert "stem 64 x 56 x 56 9,536 0.1 118,013,952 6.5 11 x 11 4 -5 8.23 6.12" in lines
    assert "conv5 512 x 7 x 7 8,393,728 71.8 411,041,792 22.7 435 x 435 32 -217 0.86 0.38" in lines
    assert "published 11,689,512 1,814,000,000" in lines
    assert any(line.startswith("memory in MiB for one image") for line in lines)
    lines = lines_of(cli, "resnet18", "--input", "1x225x224")
    assert "0 SameConv2d 64 x 113 x 112 3,200 0.0 39,689,216 2.1 7 x 7 2 -3, -2 0.20 3.28" in lines


STEM = ["stem", "0 SameConv2d", "1 BatchNorm2d", "2 ReLU", "3 SameMaxPool2d", "conv2", "0 Residual"]


@pytest.mark.parametrize(
    ("depth", "first"),
    [
        ([], [*STEM, "body", "conv1 Conv2d"]),
        (["--depth", 2], [*STEM, "1 Residual"]),
        (["--depth", 1], ["stem", "conv2", "conv3", "conv4", "conv5", "pool", "head Linear", "total"]),
        (["--depth", 0], ["total"]),
    ],
)
def test_depth_limits_the_rows(cli: Cli, depth: list[object], first: list[str]) -> None:
    lines = lines_of(cli, "resnet18", "--markdown", *depth)
    names = [line.split(" | ")[0].removeprefix("| ").replace("&nbsp;", "") for line in lines if line.startswith("|")]
    assert names[2 : 2 + len(first)] == first


def test_csv_has_a_row_for_each_part(cli: Cli) -> None:
    rows = [*csv.DictReader(io.StringIO(cli("anatomy", "lenet", "--csv").out))]
    assert [row["name"] for row in rows if int(row["level"]) < 2] == ["", "conv1", "conv2", "dense", "head"]
    assert len(rows) == 1 + 4 + 11
    assert rows[5] == {
        "level": "1", "name": "conv2", "kind": "Sequential", "output": "16x4x4", "params": "2416",
        "params_share": str(2416 / 44_426), "statistics": "0", "macs": "153600", "macs_share": str(153_600 / 281_640),
        "output_bytes": "1024", "training_bytes": "9600", "inference_bytes": "8192",
        "field_size_vertical": "16", "field_size_horizontal": "16", "field_step_vertical": "4",
        "field_step_horizontal": "4", "field_start_vertical": "0", "field_start_horizontal": "0",
    }  # fmt: skip
    assert len(cli("anatomy", "lenet", "--csv", "--depth", 0).out.splitlines()) == 2


def test_markdown_is_a_table(cli: Cli) -> None:
    lines = cli("anatomy", "lenet", "--markdown", "--depth", 1).out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {12}
    assert table[1].replace("-", "") == "| : |" + " : |" * 10
    assert table[3] == "| conv2 | 16 x 4 x 4 | 2,416 | 5.4 | 153,600 | 54.5 | 16 x 16 | 4 | 0 | 9.38 | 8.00 |"


def test_json_contains_the_tree(cli: Cli) -> None:
    report = json.loads(cli("anatomy", "resnet18.tv", "--json", "--depth", 2).out)
    assert (report["net"], report["input"]) == ("resnet18.tv", [3, 224, 224])
    assert report["published"] == {
        "params": 11_689_512,
        "macs": 1_814_000_000,
        "source": ZOO["resnet18.tv"].published.source,
    }
    assert report["training_bytes"] == sum(stage["training_bytes"] for stage in report["stages"])
    conv2 = report["stages"][1]
    assert [(part["name"], part["kind"], part["parts"]) for part in conv2["parts"]] == [
        ("conv2.0", "Residual", []), ("conv2.1", "Residual", [])
    ]  # fmt: skip
    assert conv2["receptive"] == {"size": [43, 43], "step": [4, 4], "start": [-21, -21]}
    assert json.loads(cli("anatomy", "lenet_bn", "--json").out)["published"] is None


def test_unknown_receptive_field_is_shown(cli: Cli) -> None:
    """Five by five pixels of the map, uneven cells of seven."""
    arguments = "vgg11.tv", "--input", "3x160x160", "--depth", 1
    [line] = [line for line in lines_of(cli, *arguments) if line.startswith("pool")]
    assert line.split(" 0 0.0 0 0.0 ")[1].startswith("? - - ")
    [row] = [
        row for row in csv.DictReader(io.StringIO(cli("anatomy", *arguments, "--csv").out)) if row["name"] == "pool"
    ]
    assert [value for key, value in row.items() if key.startswith("field")] == [""] * 6
    [stage] = [
        stage for stage in json.loads(cli("anatomy", *arguments, "--json").out)["stages"] if stage["name"] == "pool"
    ]
    assert stage["receptive"] is None


def test_short_name_selects_the_zoo_network(cli: Cli) -> None:
    assert lines_of(cli, "resnet50", "--depth", 0)[0] == "resnet50.tv, input 3 x 224 x 224"


def test_anatomy_of_bundle_uses_its_input_and_classes(cli: Cli) -> None:
    card = Bundle(
        net="lenet", arguments={}, in_channels=3, image_size=(32, 40), classes=("a", "b"), mean=(0, 0, 0),
        std=(1, 1, 1), data="", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    save_bundle(Path("own"), create("lenet", in_channels=3, num_classes=2, image_size=(32, 40)), card)
    assert lines_of(cli, "own", "--depth", 0)[0] == "own, input 3 x 32 x 40"
    for option in (["--input", "1x28x28"], ["--num-classes", 2]):
        one_line(cli("anatomy", "own", *option), 2, "own is trained: its input and classes are fixed")


def test_table_truncates_no_number_or_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnkit.cli import console

    monkeypatch.setattr(console.page, "width", 30)
    out = cli("anatomy", "resnet50.tv").out
    assert "…" not in out
    for words in ("0 AdaptiveAvgPool2d", "norm1 BatchNorm2d", "2048 x 7 x 7", "427 x 427", "4,089,184,256"):
        assert words in out


def test_wrong_usage_is_refused(cli: Cli) -> None:
    one_line(cli("anatomy", "lenet", "--json", "--csv"), 2, "--json, --csv and --markdown", "choose one")
    one_line(cli("anatomy", "lenet", "--csv", "--markdown"), 2, "choose one")
    one_line(cli("anatomy", "lenet", "--depth", "-1"), 2, "--depth", "-1")
    one_line(cli("anatomy", "lenet", "--num-classes", 10**20), 2, "--num-classes must be at most 1,000,000")
    one_line(cli("anatomy", "lenet", "--num-classes", 0), 2, "num_classes must be an int >= 1")
    one_line(cli("anatomy", "lenet", "--input", "1x9999999999x9999999999"), 2, "1x9999999999x9999999999")
