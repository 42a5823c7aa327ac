"""Watching: the table of runs, their curves in pictures and in the terminal, and TensorBoard."""

import json
import os
import pty
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest
from filelock import FileLock
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnnkit.core.files import atomic_write
from cnnkit.data import Batches, Preprocess, load_dataset
from cnnkit.experiment import RunFolder
from cnnkit.figures import Panel, Plot, Series, text_plot
from cnnkit.nets import create
from cnnkit.report import RunSummary, list_runs, sort_runs, summarise
from cnnkit.train import EpochRecord, StepRecord, TrainConfig, Trainer, TrainRecord
from cnnkit.train.tensorboard import TensorBoard
from conftest import Cli, one_line, start

SVG = "{http://www.w3.org/2000/svg}"
BLUE, VERMILION = "#0072b2", "#d55e00"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, the second without validation, and when they were begun."""
    folder = tmp_path_factory.mktemp("trained")
    for more in (["--lr", 0.003], ["--validation", 0]):
        process = start("train", "lenet", "--epochs", 3, "--batch-size", 256, *more, cwd=folder)
        out, err = process.communicate()
        assert process.returncode == 0, out + err
    return folder / "runs"


@pytest.fixture
def runs(trained: Path) -> Path:
    """A copy of them that a test may break."""
    shutil.copytree(trained, "runs")
    return Path("runs")


def metrics(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def change(run: Path, **settings: object) -> None:
    RunFolder(run).write_settings(RunFolder(run).settings() | settings)


def in_terminal(columns: int, *arguments: object, **environment: str) -> str:
    """Return what the command line shows in a terminal of so many columns."""
    master, slave = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnkit", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=clean | {"COLUMNS": str(columns), "TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0, shown
    return shown.decode().replace("\r\n", "\n")


# the table


def test_a_run_is_summed_up_from_its_folder(runs: Path) -> None:
    with_validation, without = list_runs(runs)
    rows = metrics(runs / "lenet-digits-1")
    best = [row for row in rows if row["best"]][-1]
    assert best["val_accuracy"] == max(row["val_accuracy"] for row in rows)
    begun = (runs / "lenet-digits-1/environment.json").stat().st_mtime
    assert abs(with_validation.started - begun) < 1
    assert with_validation == RunSummary(
        path=runs / "lenet-digits-1",
        name="lenet-digits-1",
        state="done",
        started=with_validation.started,
        net="lenet",
        data="digits",
        epochs=3,
        epochs_asked=3,
        seconds=sum(row["seconds"] for row in rows),
        best_epoch=best["epoch"],
        val_loss=best["val_loss"],
        val_accuracy=best["val_accuracy"],
    )
    assert (without.best_epoch, without.val_accuracy, without.started > with_validation.started) == (3, None, True)


def test_the_json_has_the_same_keys_for_every_run(cli: Cli, runs: Path) -> None:
    (runs / "lenet-digits-2/config.toml").unlink()
    RunFolder(runs / "lenet-digits-1").write_json("test.json", {"data": "digits", "images": 360, "accuracy": 0.75})
    done = cli("runs", "--json")
    assert done.code == 0
    whole, damaged = json.loads(done.out)
    assert (
        list(whole)
        == list(damaged)
        == [
            *("path", "name", "state", "started", "problem", "net", "data", "epochs", "epochs_asked", "seconds"),
            *("best_epoch", "val_loss", "val_accuracy", "test_accuracy"),
        ]
    )
    assert whole["path"] == "runs/lenet-digits-1"
    assert whole["test_accuracy"] == 0.75
    assert whole["val_accuracy"] == max(row["val_accuracy"] for row in metrics(runs / "lenet-digits-1"))
    assert datetime.fromisoformat(whole["started"]).tzinfo
    assert (damaged["state"], damaged["net"]) == ("damaged", None)


def test_evaluating_a_run_fills_its_test_column(cli: Cli, runs: Path) -> None:
    accuracy = json.loads(cli("evaluate", "runs/lenet-digits-1", "--json").out)["accuracy"]
    assert [run.test_accuracy for run in list_runs(runs)] == [accuracy, None]
    row = next(line for line in cli("runs").out.splitlines() if "lenet-digits-1" in line)
    assert f" {accuracy:.4f} " in row


def test_the_table_shows_each_run_on_a_line(cli: Cli, runs: Path) -> None:
    change(runs / "lenet-digits-2", epochs=7, data="/some/where/photos")
    rows = metrics(runs / "lenet-digits-1")
    best = [row for row in rows if row["best"]][-1]
    done = cli("runs")
    head, first, second = (line.split() for line in done.out.splitlines() if line.strip(" ─"))
    assert head == ["run", "net", "data", "epochs", "val", "at", "test", "time", "started", "state"]
    seconds = round(sum(row["seconds"] for row in rows))
    assert first[:8] == [
        *("lenet-digits-1", "lenet", "digits", "3/3", f"{best['val_accuracy']:.4f}", str(best["epoch"]), "-"),
        f"0:00:{seconds:02}",
    ]
    assert (first[-1], second[:4], second[-1]) == ("done", ["lenet-digits-2", "lenet", "photos", "3/7"], "stopped")


def test_long_names_fold_and_numbers_stay_whole_in_80_columns(runs: Path) -> None:
    (runs / "lenet-digits-1").rename(runs / "a_rather_long_name-of-a-run-100")
    shown = re.sub(r"\x1b\[[0-9;]*m", "", in_terminal(80, "runs"))
    lines = shown.splitlines()
    assert max(map(len, lines)) == 80
    best = max(row["val_accuracy"] for row in metrics(runs / "a_rather_long_name-of-a-run-100"))
    assert any(re.search(rf" 3/3 {best:.4f} .* 0:00:\d\d .* done", line) for line in lines)
    assert max(map(len, in_terminal(132, "runs").splitlines())) > 80


def test_names_are_shown_as_they_are(cli: Cli, runs: Path) -> None:
    (runs / "lenet-digits-1").rename(runs / "[red]a[bold]")
    assert "[red]a[bold]" in cli("runs").out


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ([], "abcd"),
        (["val"], "cbad"),
        (["test"], "bacd"),
        (["time"], "dacb"),
        (["net"], "bcad"),
        (["net", "time"], "cbad"),
        (["data", "run"], "abcd"),
        (["started"], "abcd"),
    ],
)
def test_sorting(keys: list[str], expected: str) -> None:
    def run(name: str, net: str | None, val: float | None, test: float | None, seconds: float) -> RunSummary:
        started = float(ord(name))
        return RunSummary(
            *(Path(name), name, "done", started),
            net=net,
            data=net and "digits",
            val_accuracy=val,
            test_accuracy=test,
            seconds=seconds,
        )

    some = [
        run("a", "resnet18", 0.5, 0.8, 20),
        run("b", "lenet", 0.6, 0.9, 40),
        run("c", "lenet", 0.7, None, 30),
        run("d", None, None, None, 10),
    ]
    assert "".join(run.name for run in sort_runs(some, keys)) == expected


def test_sorting_on_the_command_line(cli: Cli, runs: Path) -> None:
    (runs / "lenet-digits-2").rename(runs / "lenet-digits-10")
    shutil.copytree(runs / "lenet-digits-1", runs / "lenet-digits-9")

    def names(*arguments: str) -> list[str]:
        return [row["name"].rpartition("-")[2] for row in json.loads(cli("runs", *arguments, "--json").out)]

    assert names("--sort", "run") == ["1", "9", "10"]
    assert names("--sort", "val", "--sort", "run") == ["1", "9", "10"]
    assert names("--sort", "time") in (["1", "9", "10"], ["10", "1", "9"])
    one_line(cli("runs", "--sort", "vall"), 2, "unknown sort key 'vall'", "did you mean 'val'?", "started")


def test_a_sweeps_runs_are_found_a_level_down(cli: Cli, runs: Path) -> None:
    Path("runs/sweep").mkdir()
    (runs / "lenet-digits-2").rename(runs / "sweep/lenet-digits-1")
    shutil.copytree(runs / "sweep", runs / ".hidden")
    shutil.copytree(runs / "sweep", runs / "too/deep")
    (runs / "notes").mkdir()
    assert [row["name"] for row in json.loads(cli("runs", "--json").out)] == ["lenet-digits-1", "sweep/lenet-digits-1"]
    one = json.loads(cli("runs", "runs/sweep/lenet-digits-1", "--json").out)
    assert [(row["path"], row["name"]) for row in one] == [("runs/sweep/lenet-digits-1", "lenet-digits-1")]


def test_a_folder_without_runs(cli: Cli) -> None:
    one_line(cli("runs"), 2, "runs: there is no such folder", "cnnkit train")
    Path("runs").mkdir()
    empty = cli("runs")
    assert (empty.code, empty.out) == (0, "no runs in runs; cnnkit train makes them\n")
    assert cli("runs", "--json").out == "[]\n"


def test_looking_at_runs_needs_no_torch(runs: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from cnnkit.cli.runs import runs; runs(Path('runs'), json=True)\n"
        "assert not {'torch', 'numpy', 'matplotlib', 'plotext'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert len(json.loads(done.stdout)) == 2


# states


def test_a_run_is_running_until_it_is_killed() -> None:
    process = start("train", "lenet", "--epochs", 9999, "--batch-size", 256)
    until = time.monotonic() + 60
    while not list(Path().glob("runs/*/metrics.jsonl")):
        assert time.monotonic() < until
        time.sleep(0.05)
    try:
        [running] = list_runs(Path("runs"))
        assert (running.state, running.epochs_asked, running.problem) == ("running", 9999, None)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    [killed] = list_runs(Path("runs"))
    assert (killed.state, killed.problem) == ("stopped", None)
    assert killed.epochs >= running.epochs


def test_looking_leaves_the_lock_to_the_run(runs: Path) -> None:
    change(runs / "lenet-digits-1", epochs=5)
    assert summarise(runs / "lenet-digits-1").state == "stopped"
    with RunFolder(runs / "lenet-digits-1").locked():
        assert summarise(runs / "lenet-digits-1").state == "running"
        assert summarise(runs / "lenet-digits-1").state == "running"
    assert summarise(runs / "lenet-digits-1").state == "stopped"
    with FileLock(runs / "lenet-digits-2/.lock"):  # someone resumes what is done: nothing is left to do
        assert summarise(runs / "lenet-digits-2").state == "done"


@pytest.mark.parametrize(("since", "state"), [(1, "stopped"), (2, "done"), (3, "done")])
def test_a_run_out_of_patience_is_done(runs: Path, since: int, state: str) -> None:
    run = runs / "lenet-digits-1"
    change(run, epochs=100, patience=2)
    rows = [row | {"best": row["epoch"] == 1} for row in metrics(run)]
    rows = [rows[0] | {"epoch": epoch, "best": epoch == 1} for epoch in range(1, since + 2)]
    (run / "metrics.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    assert (summarise(run).state, summarise(run).best_epoch) == (state, 1)


def test_a_last_row_that_is_half_written_does_not_count(runs: Path) -> None:
    path = runs / "lenet-digits-1/metrics.jsonl"
    path.write_bytes(path.read_bytes()[:-9])
    torn = summarise(path.parent)
    assert (torn.state, torn.epochs, torn.problem) == ("stopped", 2, None)


def test_files_may_come_and_go_while_one_looks(runs: Path) -> None:
    over = threading.Event()

    def write() -> None:
        while not over.is_set():
            atomic_write(runs / "lenet-digits-1/last.1.ckpt", b"newer")

    writer = threading.Thread(target=write)
    writer.start()
    try:
        assert {summarise(runs / "lenet-digits-1").state for _ in range(400)} == {"done"}
    finally:
        over.set()
        writer.join()


# damage


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


def insert_row(row: object) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        path = run / "metrics.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], row if isinstance(row, str) else json.dumps(row), *lines[1:]]) + "\n")

    return damage


def only(*names: str) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        for path in run.iterdir():
            if path.name not in names:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    return damage


ROW = {"train_loss": 1.0, "train_accuracy": 0.5, "val_loss": 1.0, "val_accuracy": 0.5, "lr": 0.1, "best": False} | {
    "epoch": 2,
    "seconds": 1.0,
    "images_per_second": 9.0,
}
DAMAGE = {
    "no config": (lambda run: (run / "config.toml").unlink(), "config.toml"),
    "config torn": (write("config.toml", 'net = "lenet"\ndata = "dig'), "config.toml"),
    "config binary": (write("config.toml", bytes(range(256))), "config.toml"),
    "config empty": (write("config.toml", ""), "net is None"),
    "config of other types": (write("config.toml", 'net = 1\ndata = "digits"\nepochs = 3'), "net is 1"),
    "config without epochs": (write("config.toml", 'net = "lenet"\ndata = "digits"'), "epochs is None"),
    "config a folder": (lambda run: ((run / "config.toml").unlink(), (run / "config.toml").mkdir()), "config.toml"),
    "row torn": (insert_row('{"epoch": 2, "tra'), "metrics.jsonl: line 2"),
    "row empty": (insert_row(""), "metrics.jsonl: line 2"),
    "row a list": (insert_row([1, 2]), "metrics.jsonl: line 2"),
    "row a number": (insert_row(7), "metrics.jsonl: line 2"),
    "row without seconds": (insert_row({k: v for k, v in ROW.items() if k != "seconds"}), "metrics.jsonl: line 2"),
    "row without validation": (insert_row({k: v for k, v in ROW.items() if k != "val_loss"}), "metrics.jsonl: line 2"),
    "row of words": (insert_row(ROW | {"val_accuracy": "high"}), "metrics.jsonl: line 2"),
    "row of huge numbers": (insert_row(ROW | {"epoch": 10**400}), "metrics.jsonl: line 2"),
    "row of a list": (insert_row(ROW | {"train_loss": [1.0]}), "metrics.jsonl: line 2"),
    "row of a word": (insert_row(ROW | {"epoch": "x"}), "metrics.jsonl: line 2"),
    "row without end": (write("metrics.jsonl", "[" * 20_000 + "\n"), "nested too deeply"),
    "test of huge numbers": (write("test.json", f'{{"accuracy": {10**400}}}'), "accuracy is"),
    "settings without end": (write("config.toml", f"lr = {'[' * 20_000}"), "nested too deeply"),
    "settings of huge numbers": (write("config.toml", f"epochs = {'9' * 5_000}"), "too many digits"),
    "rows binary": (write("metrics.jsonl", b"\xff\x00\n" * 3), "metrics.jsonl: line 1"),
    "rows a folder": (lambda run: ((run / "metrics.jsonl").unlink(), (run / "metrics.jsonl").mkdir()), "metrics.jsonl"),
    "test torn": (write("test.json", '{"accuracy": 0.'), "test.json"),
    "test without accuracy": (write("test.json", "{}"), "accuracy is None"),
    "test a list": (write("test.json", "[]"), "test.json"),
    "begun and no more": (only("config.toml"), "no checkpoint"),
    "checkpoint alone": (only("last.ckpt"), "config.toml"),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_run_is_listed_as_such(cli: Cli, runs: Path, name: str) -> None:
    damage, word = DAMAGE[name]
    damage(runs / "lenet-digits-1")
    shown = cli("runs", "--sort", "run")
    assert shown.code == 0, shown.err
    first, second = (line for line in shown.out.splitlines() if line.startswith(" lenet-digits"))
    assert first.endswith(" damaged ")
    assert second.endswith(" done ")
    reasons = [line for line in shown.out.splitlines() if line.startswith("lenet-digits-1: ")]
    assert len(reasons) == 1
    assert word in reasons[0]
    listed = {row["name"]: row for row in json.loads(cli("runs", "--json").out)}
    assert listed["lenet-digits-1"]["state"] == "damaged"
    assert word in listed["lenet-digits-1"]["problem"]


@pytest.mark.parametrize(
    "figures", [{}, {"train_loss": float("nan")}, {"val_loss": None}, {"train_loss": -float("inf")}]
)
def test_insert_row_alone_does_no_damage(runs: Path, figures: dict[str, float | None]) -> None:
    insert_row(ROW | figures)(runs / "lenet-digits-1")
    assert summarise(runs / "lenet-digits-1").problem is None


# curves in the terminal


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


# curves as pictures


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


# TensorBoard


def scalars(folder: Path, tag: str) -> list[tuple[int, float]]:
    events = EventAccumulator(str(folder))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(tag)]


def epoch(number: int, loss: float, val_loss: float | None = None) -> EpochRecord:
    return EpochRecord(number, loss, 0.5, val_loss, val_loss and 0.25, 0.125, 2.0, 64.0, True)


def step(number: int, at: int, loss: float) -> StepRecord:
    return StepRecord(number, at, 10, loss, 0.5, 32.0, 9.0)


def begun(folder: Path) -> TensorBoard:
    result = TensorBoard(folder)
    result.on_train_begin(TrainRecord(epochs=4, steps=10, images=320, epoch=1, step=0))
    return result


def test_tensorboard_reads_what_the_callback_writes(tmp_path: Path) -> None:
    callback = begun(tmp_path / "events")
    callback.on_step_end(step(1, 4, 3.0))
    callback.on_epoch_end(epoch(1, 2.0, 2.5))
    callback.on_epoch_end(epoch(2, 1.0, 1.5))
    events = EventAccumulator(str(tmp_path / "events"))  # an epoch is on the disk as soon as it is over
    events.Reload()
    assert sorted(events.Tags()["scalars"]) == [
        *("accuracy/training", "accuracy/validation", "images_per_second", "loss/training", "loss/validation", "lr"),
        *("running/accuracy", "running/images_per_second", "running/loss"),
    ]
    expected = {
        "loss/training": [(10, 2.0), (20, 1.0)],
        "loss/validation": [(10, 2.5), (20, 1.5)],
        "accuracy/training": [(10, 0.5), (20, 0.5)],
        "accuracy/validation": [(10, 0.25), (20, 0.25)],
        "lr": [(10, 0.125), (20, 0.125)],
        "images_per_second": [(10, 64.0), (20, 64.0)],
        "running/loss": [(4, 3.0)],
        "running/accuracy": [(4, 0.5)],
        "running/images_per_second": [(4, 32.0)],
    }
    assert {tag: scalars(tmp_path / "events", tag) for tag in expected} == expected
    callback.on_train_end("")


def test_without_validation_there_is_no_curve_of_it(tmp_path: Path) -> None:
    callback = TensorBoard(tmp_path)
    callback.on_epoch_end(epoch(1, 2.0))
    callback.on_train_end("")
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert not [tag for tag in events.Tags()["scalars"] if "validation" in tag]


def test_a_resumed_run_takes_back_what_it_repeats(tmp_path: Path) -> None:
    callback = begun(tmp_path)
    for number in (1, 2, 3):
        callback.on_step_end(step(number, 5, number))
        callback.on_epoch_end(epoch(number, number))
    callback.on_train_end("")
    resumed = begun(tmp_path)  # from a checkpoint of step 22
    resumed.on_step_end(step(3, 4, 30.0))
    resumed.on_step_end(step(3, 8, 31.0))
    resumed.on_epoch_end(epoch(3, 32.0))
    resumed.on_epoch_end(epoch(4, 40.0))
    resumed.on_train_end("")
    assert scalars(tmp_path, "loss/training") == [(10, 1.0), (20, 2.0), (30, 32.0), (40, 40.0)]
    assert scalars(tmp_path, "running/loss") == [(5, 1.0), (15, 2.0), (24, 30.0), (28, 31.0)]


def test_a_callback_without_records_writes_nothing(tmp_path: Path) -> None:
    begun(tmp_path / "events").on_train_end("")
    assert not list(tmp_path.iterdir())


def test_the_trainer_can_be_watched_in_tensorboard(tmp_path: Path) -> None:
    data = load_dataset("digits", None)
    batches = Batches(data.train.subset(data.train.labels.argsort(stable=True)[::6]), 64, Preprocess((28, 28)), seed=0)

    def train(epochs: int, resume: bool) -> None:
        callback = TensorBoard(tmp_path / "events")
        config = TrainConfig(epochs=epochs, batch_size=64, schedule="constant")
        trainer = Trainer(
            *(create("lenet"), batches, None, config),
            checkpoint=tmp_path / "last.ckpt",
            callbacks=[callback],
            save_best=lambda net, record: None,
        )
        if resume:
            trainer.resume()
        trainer.run()

    train(2, resume=False)
    train(3, resume=True)
    assert [at for at, _ in scalars(tmp_path / "events", "loss/training")] == [4, 8, 12]
