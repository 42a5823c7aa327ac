"""Curves of runs in the terminal and as SVG and PNG."""

import re
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from cnnkit.figures import Panel, Plot, Series, text_plot
from helpers.cli import Cli, one_line
from helpers.report import in_terminal, insert_row
from helpers.training import metrics

SVG = "{http://www.w3.org/2000/svg}"


BLUE, VERMILION = "#0072b2", "#d55e00"


def test_curves_are_plain_text_where_there_is_no_terminal(
    cli: Cli, runs: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "72")
    done = cli("plot", "runs/lenet-digits-1")
    assert (done.code, done.err) == (0, "")
    assert done.out.isascii()
    assert "\x1b" not in done.out
    lines = done.out.splitlines()
    assert max(map(len, lines)) == 72
    assert [line.strip() for line in lines if ":" in line] == [
        "Loss: cross entropy (nats)",
        "Accuracy: share of the images",
    ]
    assert sum(line.strip() == "epoch" for line in lines) == 2
    assert sum(line.split() == ["1", "2", "3"] for line in lines) == 2
    assert lines.count("A training") == lines.count("a validation") == 2


def heights(text: str, letter: str) -> list[int]:
    """Return where a letter stands in the columns of a plot that have it: the lowest row, counted from the top."""
    rows = [match[1] for line in text.splitlines() if (match := re.fullmatch(r" *[\d.]*[|+](.*)\|", line))]
    return [
        max(row for row, letters in enumerate(column) if letters == letter)
        for column in zip(*rows, strict=True)
        if letter in column
    ]


def test_a_line_is_drawn_where_its_values_are(capsys: pytest.CaptureFixture[str]) -> None:
    ramp = list(range(1, 101))
    print(
        text_plot(Panel("Up", "epoch", "unit", [Series("up", ramp, ramp), Series("flat", ramp, [50.0] * 100, True, 3)]))
    )
    out = capsys.readouterr().out
    rising, flat = heights(out, "A"), heights(out, "d")
    assert rising == sorted(rising, reverse=True)
    assert (rising[0], rising[-1]) == (max(rising), 0)
    assert max(rising) >= 10
    assert len(flat) >= 70
    assert set(flat) == {max(rising) // 2}


def test_a_logarithmic_axis_is_even_in_powers_of_ten(capsys: pytest.CaptureFixture[str]) -> None:
    rates = [10 ** (-5 + step / 10) for step in range(41)]
    print(text_plot(Panel("Find", "learning rate", "unit", [Series("loss", rates, range(41))], log_x=True)))
    out = capsys.readouterr().out
    assert any(line.split() == ["1e-05", "0.0001", "0.001", "0.01", "0.1"] for line in out.splitlines())
    marks = next(line for line in out.splitlines() if line.count("+") > 3)
    gaps = [
        right - left for left, right in pairwise(match.start() for match in re.finditer(r"(?<=[+-])\+", marks[:-1]))
    ]
    assert len(gaps) == 4
    assert max(gaps) - min(gaps) <= 1
    rising = heights(out, "A")
    assert rising == sorted(rising, reverse=True)
    assert len(rising) >= 70


def test_what_is_no_number_is_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    holes = Series("loss", [0.0, 0.1, 1.0, 10.0, 100.0], [5.0, 4.0, float("nan"), 2.0, float("inf")])
    panel = Panel("Find", "learning rate", "nats", [holes], log_x=True)
    assert panel.points(holes) == ([0.1, 10.0], [4.0, 2.0])
    print(text_plot(panel))
    Plot([panel]).save(Path("find.svg"))
    assert "A loss" in capsys.readouterr().out
    assert [(dashed, len(points)) for dashed, points in curves("find.svg", BLUE)] == [(False, 2)]


def test_curves_in_a_terminal_have_its_width_and_colours(runs: Path) -> None:
    coloured = in_terminal(70, "plot", "runs/lenet-digits-1", "--metric", "loss")
    assert "\x1b[38;5;33m" in coloured
    assert any("⠁" <= letter <= "⣿" for letter in coloured)
    assert "•• validation" in re.sub(r"\x1b\[[0-9;]*m", "", coloured)
    assert max(map(len, re.sub(r"\x1b\[[0-9;]*m", "", coloured).splitlines())) == 70
    for calm in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        plain = in_terminal(70, "plot", "runs/lenet-digits-1", "--metric", "loss", **calm)
        assert "\x1b" not in plain
        assert plain.isascii()
        assert "a validation" in plain


def test_several_runs_are_told_apart(cli: Cli, runs: Path) -> None:
    done = cli("plot", "runs/lenet-digits-1", "runs/lenet-digits-2", "--metric", "accuracy")
    legend = [line for line in done.out.splitlines() if re.match(r"\w lenet", line)]
    assert legend == ["A lenet-digits-1 training", "a lenet-digits-1 validation", "B lenet-digits-2 training"]
    (runs / "sweep").mkdir()
    (runs / "lenet-digits-2").rename(runs / "sweep/lenet-digits-1")
    alike = cli("plot", "runs/lenet-digits-1", "runs/sweep/lenet-digits-1", "--metric", "lr")
    assert "A runs/lenet-digits-1 training\nB runs/sweep/lenet-digits-1 training" in alike.out


@pytest.mark.parametrize("metric", ["loss", "accuracy", "lr", "time", "speed"])
def test_every_metric_has_a_curve(cli: Cli, runs: Path, metric: str) -> None:
    done = cli("plot", "runs/lenet-digits-1", "--metric", metric)
    assert done.code == 0
    assert sum(line.strip() == "epoch" for line in done.out.splitlines()) == 1
    assert "AAAA" in done.out


def test_a_single_epoch_is_a_point(cli: Cli, runs: Path) -> None:
    path = runs / "lenet-digits-1/metrics.jsonl"
    path.write_text(path.read_text().splitlines(keepends=True)[0])
    done = cli("plot", "runs/lenet-digits-1", "--output", "one.svg", "--metric", "accuracy")
    assert done.code == 0
    assert [line.strip() for line in done.out.splitlines() if line.strip().isdigit()] == ["1"]
    assert [(dashed, len(points)) for dashed, points in curves("one.svg", BLUE)] == [(False, 1), (True, 1)]
    texts = ["".join(text.itertext()) for text in ElementTree.parse("one.svg").iter(f"{SVG}text")]
    assert [text for text in texts if text.startswith(("1", "0.9"))] == ["1"]


def test_a_run_without_an_epoch_has_no_curve(cli: Cli, runs: Path) -> None:
    (runs / "lenet-digits-1/metrics.jsonl").unlink()
    one_line(cli("plot", "runs/lenet-digits-1", "--output", "a.png"), 1, "lenet-digits-1", "no epoch is finished yet")
    assert not Path("a.png").exists()
    both = cli("plot", "runs/lenet-digits-1", "runs/lenet-digits-2")
    assert both.code == 0
    assert "lenet-digits-1: no epoch is finished yet\n" in both.out
    assert "A training" in both.out


def test_what_plot_cannot_use(cli: Cli, runs: Path) -> None:
    one_line(cli("plot"), 2, "which runs?")
    one_line(cli("plot", "runs"), 2, "runs is not a run folder")
    one_line(cli("plot", "runs/lenet-digits-1", "--metric", "los"), 2, "unknown metric 'los'", "'loss'")
    for name in ("curves.jpg", "curves", ".png"):
        one_line(cli("plot", "runs/lenet-digits-1", "--output", name), 2, name, ".png, .svg or .pdf")
    one_line(
        cli("plot", "runs/lenet-digits-1", "--output", "no/such/folder/a.png"), 1, "cannot write", "no/such/folder"
    )
    insert_row(7)(runs / "lenet-digits-1")
    one_line(cli("plot", "runs/lenet-digits-1"), 3, "runs/lenet-digits-1/metrics.jsonl: line 2")
    assert [path.name for path in Path().iterdir()] == ["runs"]


def curves(svg: str, colour: str) -> list[tuple[bool, list[tuple[float, float]]]]:
    """Return the lines of a colour in the panels of a picture: dashed or not, and their points in pixels."""
    found = []
    for group in ElementTree.parse(svg).iter(f"{SVG}g"):
        if group.get("id", "").startswith("axes_"):
            for path in group.iter(f"{SVG}path"):
                style, steps = path.get("style", ""), path.get("d", "")
                if path.get("clip-path") and f"stroke: {colour}" in style and "fill: none" in style:
                    points = re.findall(r"[ML] ([\d.]+) ([\d.]+)", steps)
                    found.append(("stroke-dasharray" in style, [(float(x), float(y)) for x, y in points]))
    return found


def test_a_picture_shows_the_metrics_where_they_are(cli: Cli, runs: Path) -> None:
    done = cli("plot", "runs/lenet-digits-1", "--output", "curves.svg")
    assert done.out.endswith("\ncurves.svg: loss, accuracy of lenet-digits-1\n")
    texts = ["".join(text.itertext()) for text in ElementTree.parse("curves.svg").iter(f"{SVG}text")]
    words = {"lenet-digits-1", "Loss", "Accuracy", "cross entropy (nats)", "share of the images", "epoch"}
    assert words | {"training", "validation", "1", "2", "3"} <= set(texts)
    assert texts.count("training") == texts.count("validation") == 1
    rows = metrics(runs / "lenet-digits-1")
    drawn = curves("curves.svg", BLUE)
    assert [dashed for dashed, _ in drawn] == [False, True, False, True]
    for panel, kind in enumerate(("loss", "accuracy")):
        values = [row[f"{part}_{kind}"] for part in ("train", "val") for row in rows]
        pixels = [point for _, line in drawn[2 * panel : 2 * panel + 2] for point in line]
        assert len(pixels) == len(values) == 6
        low, high = values.index(min(values)), values.index(max(values))
        scale = (pixels[high][1] - pixels[low][1]) / (values[high] - values[low])
        assert scale < 0  # an SVG counts downwards
        for value, (_, y) in zip(values, pixels, strict=True):
            assert y == pytest.approx(pixels[low][1] + scale * (value - values[low]), abs=1e-3)
        across = [x for x, _ in pixels]
        assert across[:3] == across[3:]
        assert across[1] - across[0] == pytest.approx(across[2] - across[1], abs=1e-3)


def test_each_run_has_a_colour_in_pictures(cli: Cli, runs: Path) -> None:
    assert cli("plot", "runs/lenet-digits-1", "runs/lenet-digits-2", "--output", "a.svg", "--metric", "loss").code == 0
    assert [dashed for dashed, _ in curves("a.svg", BLUE)] == [False, True]
    assert [dashed for dashed, _ in curves("a.svg", VERMILION)] == [False]


@pytest.mark.parametrize(("kind", "begin"), [("png", b"\x89PNG\r\n\x1a\n"), ("svg", b"<?xml"), ("pdf", b"%PDF-")])
def test_the_same_curves_are_the_same_file(
    runs: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch, kind: str, begin: bytes
) -> None:
    files = []
    for now in ("100000000", "1700000000"):  # what matplotlib takes for today
        monkeypatch.setenv("SOURCE_DATE_EPOCH", now)
        assert cli("plot", "runs/lenet-digits-1", "--output", f"curves.{kind}").code == 0
        files.append(Path(f"curves.{kind}").read_bytes())
    assert files[0] == files[1]
    assert files[0].startswith(begin)
    assert len(files[0]) > 5000


def test_names_are_no_formulas(capsys: pytest.CaptureFixture[str]) -> None:
    panel = Panel("$a$ & <b>", "x", "y", [Series("_hidden $c$", [1, 2], [1, 2])])
    Plot([panel], "$d$").save("odd.svg")
    texts = ["".join(text.itertext()) for text in ElementTree.parse("odd.svg").iter(f"{SVG}text")]
    assert {"$a$ & <b>", "_hidden $c$", "$d$"} <= set(texts)
