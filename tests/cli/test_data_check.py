"""The command data check: report, JSON and exit code."""

import json
import os

from PIL import Image

from helpers.check import folders, noise, save, spoil
from helpers.cli import Cli, one_line


def test_check_reports_findings_and_exits_with_3(cli: Cli) -> None:
    root = folders()
    for number in range(47):
        (root / f"train/cat/bad {number:02}[red].png").write_text("x")
    result = cli("data", "check", root)
    one_line(result, 3, "data: unfit for training: files that are not images (47)", "--quarantine DIR")
    assert "train/cat/bad 09[red].png" in result.out
    assert "train/cat/bad 10[red].png" not in result.out
    assert "and 37 more" in result.out
    assert result.out.startswith("data: 59 files, 12 readable images")


def test_check_of_valid_folder_ends_with_verdict(cli: Cli) -> None:
    root = folders()
    assert cli("data", "check", root).out.splitlines()[-1] == "data: fit for training"
    save(root / "train/cat/copy.png", Image.open(root / "train/cat/0.png"))
    result = cli("data", "check", root)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "data: fit for training (warnings: 1)"
    assert "train/cat/0.png, train/cat/copy.png (same" in result.out


def test_json_has_all_findings(cli: Cli) -> None:
    root = folders()
    spoil(root)
    name = os.fsdecode(b"\xff\n.png")
    (root / "train/cat" / name).touch()
    result = cli("data", "check", root, "--json")
    assert result.code == 3
    report = json.loads(result.out)
    assert report["harms"]
    assert {"kind", "severity", "text", "remedy", "detail", "paths", "culprits"} == set(report["findings"][0])
    assert [f"train/cat/{name}"] in [finding["paths"] for finding in report["findings"]]
    assert report["statistics"]["images"] == 12
    assert report["verdict"] == result.err.removeprefix("cnnkit: ").strip()
    assert cli("data", "check", root).code == 3  # and its text can be printed


def test_wrong_usage_of_check_is_refused(cli: Cli) -> None:
    one_line(cli("data", "check", "nowhere"), 3, "nowhere: no such folder")
    root = folders()
    one_line(cli("data", "check", root, "--quarantine", root / "bad"), 2, "contain each other", ".quarantine")
    one_line(cli("data", "check", root, "--workers", 0), 2, "workers")


def test_check_shows_largest_and_smallest_of_many_classes(cli: Cli) -> None:
    for label in range(30):
        for number in range(3 + label // 10):
            save(f"data/class {label:02}/{number}.png", noise(4, 4))
    lines = cli("data", "check", "data").out.splitlines()
    assert sum(line.strip().startswith("class ") for line in lines) == 21  # and the head
    assert any("10 classes in between" in line for line in lines)
