"""Studies: trials as runs, continued, pruned, failed, stopped and kept in a storage."""

import json
import os
import sys
from pathlib import Path

import optuna
import pytest

from cnnkit.core.errors import CnnkitError
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.sweep.space import Range
from cnnkit.experiment.sweep.storage import open_storage
from helpers.cli import Cli, one_line
from helpers.sweep import FIXED, LR, joined, search, write
from helpers.training import repeatable_metrics

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_trials_are_ordinary_runs_and_the_study_goes_on(cli: Cli) -> None:
    write(LR + 'net = ["lenet", "lenet_bn"]\nstage_lr.head = [1.0, 2.0]\naugment = [["crop:1"], []]', FIXED[13:])
    trials = search(cli, "--trials", 3)
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    for trial in trials:
        run, params = Path(trial["run"]), trial["params"]
        assert trial["state"] == "complete"
        assert run.parent == Path("runs/space").resolve()
        assert trial["value"] == max(row["val_accuracy"] for row in repeatable_metrics(trial["run"]))
        settings = RunConfig(**__import__("tomllib").loads((run / "config.toml").read_text()))
        assert (settings.net, settings.lr, settings.epochs) == (params["net"], params["lr"], 2)
        assert settings.stage_lr == {"head": params["stage_lr.head"]}
        assert list(settings.augment) == json.loads(params["augment"])
        assert run.name.startswith(f"{params['net']}-digits-")
        assert {"last.ckpt", "best", "split.json", "log.txt", "environment.json"} <= {p.name for p in run.iterdir()}
    assert len({trial["params"]["lr"] for trial in trials}) == 3

    assert search(cli, "--trials", 3) == trials, "it is done"
    assert search(cli, "--trials", 2) == trials[:2]
    assert search(cli, "--trials", 4)[:3] == trials
    assert len([*Path("runs/space").glob("*/config.toml")]) == 4

    result = cli("sweep", "-c", "space.toml", "--trials", 4)
    best = max(search(cli, "--trials", 4), key=lambda trial: trial["value"])
    command = result.out.splitlines()[-1].partition("train the best again: cnnkit ")[2]
    assert command == f"train -c {os.path.relpath(best['run'])}/config.toml"
    assert cli(*command.split()).code == 0
    assert repeatable_metrics(f"runs/{Path(best['run']).name[:-2]}-1") == repeatable_metrics(best["run"])


def test_each_finished_trial_is_a_line_and_the_best_are_a_table(cli: Cli) -> None:
    result = cli("sweep", "-c", write("lr = [0.01, 0.001]\nnesterov = [true]"), "--trials", 2)
    assert result.code == 0
    lines = result.out.splitlines()
    assert [line.partition("nesterov")[0].split()[:3:2] for line in lines[:2]] == [["trial", "-"], ["trial", "-"]]
    assert all("nesterov goes with --optimizer sgd" in line for line in lines[:2])
    assert lines[2:] == ["space: 2 failed"]

    result = cli("sweep", "-c", write("lr = [0.01, 0.001]", path="other.toml"), "--trials", 2)
    lines = result.out.splitlines()
    assert lines[0].startswith("trial 0  0.")
    assert lines[0].endswith("  done")
    assert lines[2] == "other: 2 done"
    assert "epoch 1/2" not in result.out, "that is in log.txt"
    assert "epoch 1/2" in Path("runs/other/lenet-digits-1/log.txt").read_text()
    rows = [line.split() for line in lines if "runs/other/" in line][:-1]
    assert sorted(rows, key=lambda row: -float(row[1])) == rows


def test_the_seed_decides(cli: Cli) -> None:
    write(LR, "net = 'lenet'\nepochs = 1\nbatch_size = 512")
    first, same, other = (
        search(cli, "--trials", 2, "--name", n, "--seed", s) for n, s in (("a", 1), ("b", 1), ("c", 2))
    )
    assert [(t["params"], t["value"]) for t in first] == [(t["params"], t["value"]) for t in same]
    assert {t["params"]["lr"] for t in first}.isdisjoint(t["params"]["lr"] for t in other)


def test_another_search_is_another_study(cli: Cli) -> None:
    write(LR)
    search(cli, "--trials", 1)
    search(cli, "--trials", 1, "--workers", 1, "--device", "cpu")  # may be others on another machine
    one_line(cli("sweep", "-c", "space.toml", "--trials", 1, "--seed", 1), 2, "begun with another seed")
    write("lr = [0.1]\noptimizer = ['sgd']")
    one_line(cli("sweep", "-c", "space.toml", "--trials", 1), 2, "begun with another lr, optimizer", "another --name")
    optuna.create_study(storage=open_storage("other.log")[1], study_name="space").ask()
    one_line(
        cli("sweep", "-c", "space.toml", "--trials", 1, "--storage", "other.log"), 2, "study 'space' of another program"
    )


def test_hopeless_trials_are_ended_early(cli: Cli) -> None:
    """Eight trials of which the first five, which set the median, are good ones."""
    fixed = 'net = "lenet_bn"\nepochs = 2\nschedule = "constant"\n'
    write("lr = {low = 0.005, high = 0.02}", fixed)
    write("lr = {low = 1e-9, high = 2e-9}", fixed, path="bad.toml")
    assert {trial["state"] for trial in search(cli, "--trials", 5, "--storage", "s.log")} == {"complete"}
    study = optuna.load_study(storage=open_storage("s.log")[1], study_name="space")
    study.set_user_attr("about", study.user_attrs["about"] | {"lr": Range(low=1e-9, high=2e-9).model_dump()})
    result = cli("sweep", "-c", "bad.toml", "--name", "space", "--storage", "s.log", "--trials", 7, "--json")
    trials = json.loads(result.out)["trials"][5:]
    assert {(trial["state"], trial["epochs"], trial["reason"]) for trial in trials} == {
        ("pruned", 1, "pruned after epoch 1")
    }
    assert [len(repeatable_metrics(trial["run"])) for trial in trials] == [1, 1]
    assert result.err.count("pruned after epoch 1") == 2
    kept = cli("sweep", "-c", "bad.toml", "--name", "space", "--storage", "s.log", "--trials", 8, "--json",
               "--pruner", "none")  # fmt: skip
    assert json.loads(kept.out)["trials"][7]["state"] == "complete"


def test_a_trial_in_its_last_epoch_is_not_ended_early(cli: Cli) -> None:
    write(
        "lr = {low = 1e-3, high = 0.03, log = true}",
        'net = "lenet_bn"\nepochs = 1\nschedule = "constant"\nbatch_size = 32\n',
    )
    trials = search(cli, "--trials", 9)
    assert {trial["state"] for trial in trials} == {"complete"}
    assert min(trial["value"] for trial in trials[5:]) < max(trial["value"] for trial in trials[:5])


def test_a_trial_that_fails_is_recorded_and_the_others_go_on(cli: Cli) -> None:
    write("lr = [1e30, 0.01]\nnesterov = [true, false]\noptimizer = ['sgd', 'adamw']", FIXED + "momentum = 0.9")
    trials = search(cli, "--trials", 8, "--pruner", "none")
    assert len(trials) == 8
    for trial in trials:
        params = trial["params"]
        if params["nesterov"] and params["optimizer"] == "adamw":
            assert (trial["state"], trial["run"]) == ("fail", None)
            assert trial["reason"].startswith("nesterov goes with")
        elif params["lr"] == 1e30:
            assert trial["state"] == "fail"
            assert " is nan " in trial["reason"]
        else:
            assert trial["state"] == "complete"
    assert len({trial["state"] for trial in trials}) == 2
    assert len({trial["reason"] for trial in trials}) >= 3


def test_a_sweep_whose_trials_all_fail_alike_ends(cli: Cli) -> None:
    write("lr = {low = 0.001, high = 0.01}", FIXED + "nesterov = true")
    result = cli("sweep", "-c", "space.toml", "--trials", 50)
    one_line(result, 1, "the first 5 trials failed, all alike: nesterov goes with")
    assert len(result.out.splitlines()) == 5


def test_what_is_wrong_with_the_machine_ends_it_and_the_trial_is_tried_again(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(LR)
    Path("runs/space").mkdir(parents=True)
    with monkeypatch.context() as patch:
        patch.setattr("cnnkit.core.files.os.fsync", lambda descriptor: (_ for _ in ()).throw(OSError(28, "No space")))
        one_line(cli("sweep", "-c", "space.toml", "--trials", 2, "--storage", "sqlite:///s.db"), 1, "No space")
    trials = search(cli, "--trials", 2, "--storage", "sqlite:///s.db")
    assert [(trial["number"], trial["state"]) for trial in trials] == [(1, "complete"), (2, "complete")]


def test_no_trial_begins_after_the_timeout(cli: Cli) -> None:
    result = cli("sweep", "-c", write(LR), "--trials", 2, "--timeout", 1e-9)
    assert (result.code, result.out) == (0, "space: no trial yet\n")


@pytest.mark.parametrize("content", [b"somebody's own log", b"{}\n", b'{"op_code":0\n{}\n', b'{"op_code":0}\n'])
@pytest.mark.parametrize("storage", ["sqlite:///study.log", "study.log"])
def test_a_damaged_storage_is_told(cli: Cli, storage: str, content: bytes) -> None:
    Path("study.log").write_bytes(content)
    one_line(cli("sweep", "-c", write(LR), "--trials", 1, "--storage", storage), 1, "study.log", "cannot be used")
    assert Path("study.log").read_bytes() == content


def test_a_line_that_a_full_disk_tore_is_dropped() -> None:
    trial = joined("study.log", 2).claim()
    whole = Path("study.log").read_bytes()
    Path("study.log").write_bytes(whole + b'{"op_code":8,"worker')
    study = joined("study.log", 2)
    content = Path("study.log").read_bytes()
    assert content.startswith(whole)
    assert all(json.loads(line) for line in content.splitlines())
    assert study.claim().number == 1
    assert [result.number for result in study.results()] == [trial.number, 1]


def test_postgresql_needs_its_driver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(CnnkitError) as caught:
        open_storage("postgresql://ann:secret@127.0.0.1/sweeps")
    assert str(caught.value) == 'postgresql://ann:***@127.0.0.1/sweeps needs a driver: pip install "psycopg[binary]"'
