"""The table of runs: summaries, states, sorting, and corrupt run folders."""

import json
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from filelock import FileLock

from cnnkit.core.files import atomic_write
from cnnkit.experiment import RunFolder
from cnnkit.report import RunSummary, list_runs, sort_runs, summarise
from helpers.cli import Cli, one_line, start
from helpers.report import in_terminal, insert_row
from helpers.training import metrics


def change(run: Path, **settings: object) -> None:
    RunFolder(run).write_settings(RunFolder(run).settings() | settings)


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


def write(name: str, content: str | bytes) -> Callable[[Path], object]:
    return lambda run: (run / name).write_bytes(content if isinstance(content, bytes) else content.encode())


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
