"""The search for settings: spaces are checked before the first trial, workers share a study, nothing is lost."""

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.sweep import study as shared
from cnnkit.experiment.sweep.space import Choices, Range, parse_space
from cnnkit.experiment.sweep.storage import StudyError, open_storage
from cnnkit.experiment.sweep.study import Study, TakenOver, attempts
from conftest import Cli, one_line, start

optuna.logging.set_verbosity(optuna.logging.ERROR)

FIXED = 'net = "lenet"\nepochs = 2\nbatch_size = 256\n'
LR = "lr = {low = 1e-3, high = 0.1, log = true}\n"
STORAGES = ["sqlite:///deep/study.db", "deep/study.journal"]


def write(space: str, fixed: str = FIXED, path: str = "space.toml") -> str:
    Path(path).write_text(f"{fixed}\n[space]\n{space}")
    return path


def search(cli: Cli, *arguments: object) -> list[dict]:
    result = cli("sweep", "-c", "space.toml", "--json", *arguments)
    assert result.code == 0, result.err
    return json.loads(result.out)["trials"]


def metrics(run: str) -> list[dict]:
    rows = [json.loads(line) for line in (Path(run) / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


# the space


def test_a_space_is_read() -> None:
    space = parse_space(
        {
            "lr": {"low": 1e-4, "high": 0.1, "log": True},
            "batch_size": {"low": 32, "high": 256, "step": 32},
            "momentum": {"low": 0.1, "high": 0.7, "step": 0.2},
            "net": ["lenet", "lenet_bn"],
            "augment": [[], ["flip", "crop"]],
            "stage_lr.head": [1.0, 2.0],
            "model_kwargs": {"dropout": {"low": 0, "high": 0.5}},
        },
        ("stage_lr", "model_kwargs"),
    )
    assert space == {
        "lr": Range(low=1e-4, high=0.1, log=True),
        "batch_size": Range(low=32, high=256, step=32),
        "momentum": Range(low=0.1, high=0.7, step=0.2),
        "net": Choices(("lenet", "lenet_bn")),
        "augment": Choices(([], ["flip", "crop"])),
        "stage_lr.head": Choices((1.0, 2.0)),
        "model_kwargs.dropout": Range(low=0, high=0.5),
    }
    study = optuna.create_study()
    seen: dict[str, set] = {name: set() for name in space}
    for _ in range(60):
        trial = study.ask()
        for name, dimension in space.items():
            value = dimension.suggest(trial, name)
            seen[name].add(tuple(value) if isinstance(value, list) else value)
    assert seen["batch_size"] == set(range(32, 257, 32))
    assert {type(value) for value in seen["batch_size"]} == {int}
    assert {round(value, 9) for value in seen["momentum"]} == {0.1, 0.3, 0.5, 0.7}
    assert seen["augment"] == {(), ("flip", "crop")}
    assert all(1e-4 <= value <= 0.1 for value in seen["lr"])
    assert sum(value < 3e-3 for value in seen["lr"]) > 15, "as many below the geometric mean as above"
    assert {type(value) for value in seen["model_kwargs.dropout"]} == {float}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("", ["[space] must be a table of what to vary"]),
        ("learning_rate = [0.1]", ["unknown setting 'learning_rate'", "lr"]),
        ("optimiser = ['sgd']", ["did you mean 'optimizer'?"]),
        ("optimizer = ['sgd', 'adamm']", ["unknown optimizer 'adamm'", "did you mean 'adam'?"]),
        ("net = ['lenet', 'lenett']", ["unknown network 'lenett'", "did you mean 'lenet'?"]),
        ("augment = [['flip'], ['flap']]", ["'flap'", "did you mean 'flip'?"]),
        ("recipe = ['default', 'bset']", ["did you mean 'best'?"]),
        ("device = ['cpu', 'tpux']", ["device 'tpux' cannot be used here"]),
        ("lr = {low = 0, high = 0.1}", ["lr cannot be 0"]),
        ("momentum = {low = 0.5, high = 1.0}", ["momentum cannot be 1.0: should be less than 1"]),
        ("batch_size = {low = 8.0, high = 64.0}", ["batch_size cannot be"]),
        ("keep = {low = 1.0, high = 3.0}", ["keep cannot be"]),
        ("optimizer = {low = 1, high = 2}", ["optimizer"]),
        ("lr = {low = 1e-3, hihg = 0.1}", ["[space] lr:", "unknown setting 'hihg'; did you mean 'high'?"]),
        ("lr = {low = 1e-3}", ["[space] lr: high"]),
        ("lr = {low = '1', high = 2}", ["[space] lr: low"]),
        ("lr = {low = 0.1, high = 0.01}", ["low must be below high, not 0.1 and 0.01"]),
        ("clip = {low = 0.0, high = 1.0, log = true}", ["[space] clip: log takes a low above 0"]),
        ("batch_size = {low = 32, high = 250, step = 32}", ["high must be whole steps above low, such as 224"]),
        ("batch_size = {low = 32, high = 64, step = 0.5}", ["step must be a whole number"]),
        ("lr = 0.1", ["[space] lr takes a list of choices, or a range", "not 0.1"]),
        ("lr = []", ["[space] lr takes a list of choices"]),
        ("lr = [0.1, 0.1]", ["[space] lr has a choice twice"]),
        ("'stage_lrs.head' = [1.0]", ["unknown table in [space] 'stage_lrs'; did you mean 'stage_lr'?"]),
        ("stage_lr.head = ['much']", ["stage_lr.head cannot be 'much'"]),
        ("epochs = [1, 2]", ["epochs: fixed, and in [space] of space.toml"]),
        ("lr = [", ["space.toml: not a TOML file"]),
    ],
)
def test_a_wrong_space_is_told_before_the_first_trial(cli: Cli, space: str, words: list[str]) -> None:
    net = [] if space.startswith("net") else ["lenet"]
    one_line(cli("sweep", *net, "-c", write(space, "epochs = 2"), "--trials", 2), 2, *words)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--lr", "0.1"], 2, ["lr: fixed, and in [space]"]),
        (["--batch-size", "0"], 2, ["batch_size cannot be '0'"]),
        (["--timeout", "0"], 2, ["--timeout must be above 0, not 0"]),
        (["--name", "a/b"], 2, ["--name 'a/b' cannot be the name of a folder"]),
        (["--name", ".."], 2, ["--name '..'"]),
        (["--pruner", "medain"], 2, ["medain"]),
        (["--data", "nowhere"], 2, ["unknown data set 'nowhere'"]),
        (["--data", "no/where"], 3, ["no/where"]),
        (["--pretrained", "--raw-pixels"], 2, ["raw_pixels does not go with pretrained weights"]),
        (["--validation", "0"], 2, ["no image to choose by"]),
        (["--storage", "mysql://host/db"], 2, ["--storage takes sqlite:///FILE", "not 'mysql://host/db'"]),
        (["--storage", "sqlite://"], 2, ["--storage takes"]),
        (["--storage", "study.txt"], 2, ["or a file that ends in .journal or .log, not 'study.txt'"]),
    ],
)
def test_what_all_trials_would_share_ends_it_at_once(
    cli: Cli, arguments: list[str], code: int, words: list[str]
) -> None:
    one_line(cli("sweep", "-c", write(LR), "--trials", 2, *arguments), code, *words)
    assert not Path("runs").exists()


def test_it_needs_a_network_and_trials(cli: Cli) -> None:
    one_line(
        cli("sweep", "-c", write(LR), "--trials", 0), 2, "--trials must be at least 1 and at most 1,000,000, not 0"
    )
    one_line(cli("sweep", "-c", write(LR, "epochs = 1"), "--trials", 1), 2, "which network?", "cnnkit sweep NET")
    assert search(cli, "lenet", "--trials", 1)[0]["state"] == "complete"


def test_without_optuna_it_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    one_line(cli("sweep", "-c", write(LR), "--trials", 1), 1, 'package optuna: pip install "cnnkit[search]"')


# a study


def test_trials_are_ordinary_runs_and_the_study_goes_on(cli: Cli) -> None:
    write(LR + 'net = ["lenet", "lenet_bn"]\nstage_lr.head = [1.0, 2.0]\naugment = [["crop:1"], []]', FIXED[13:])
    trials = search(cli, "--trials", 3)
    assert [trial["number"] for trial in trials] == [0, 1, 2]
    for trial in trials:
        run, params = Path(trial["run"]), trial["params"]
        assert trial["state"] == "complete"
        assert run.parent == Path("runs/space").resolve()
        assert trial["value"] == max(row["val_accuracy"] for row in metrics(trial["run"]))
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
    assert metrics(f"runs/{Path(best['run']).name[:-2]}-1") == metrics(best["run"])


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
    assert [len(metrics(trial["run"])) for trial in trials] == [1, 1]
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


# where it is kept


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


# several workers


def joined(storage: str, total: int) -> Study:
    return Study(storage, "study", total, 0, "none", {"lr": 1})


@pytest.mark.parametrize("storage", STORAGES)
def test_workers_that_take_trials_at_the_same_moment_share_them_exactly(storage: str) -> None:
    total, together = 30, threading.Barrier(4)
    studies = [joined(storage, total) for _ in range(4)]
    taken: list[int] = []

    def work(study: Study) -> None:
        together.wait()
        while trial := study.claim():
            taken.append(trial.number)
            study.suggest(trial, {"lr": Range(low=0.0, high=1.0)})
            study.complete(trial, 0.5)

    threads = [threading.Thread(target=work, args=(study,)) for study in studies]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == len(set(taken)) == total
    results = studies[0].results()
    assert {trial.state for trial in results} == {TrialState.COMPLETE}
    assert sorted(taken) == [trial.number for trial in results]
    assert len({trial.params["lr"] for trial in results}) == total


def test_a_study_that_was_interrupted_goes_on_as_it_would_have() -> None:
    """Among them trials that the sampler chooses by what it has seen."""
    space = {"x": Range(low=0.0, high=1.0), "y": Choices(("a", "b", "c"))}

    def searched(name: str, interrupted: set[int]) -> list[dict]:
        claims = 0
        while trial := (study := joined(f"{name}.journal", 20)).claim():
            params = study.suggest(trial, space)
            claims += 1
            if claims in interrupted:
                study.fail(trial, "stopped", again=True)
            else:
                study.complete(trial, params["x"] * (params["y"] == "b"))
        assert claims == 20 + len(interrupted)
        return [trial.params for trial in study.results()]

    whole = searched("whole", set())
    assert searched("interrupted", {2, 3, 14, 19}) == whole
    assert sum(params["y"] == "b" for params in whole[10:]) > 5, "it has learned"


def numbered(*attributes: dict) -> list[FrozenTrial]:
    trials = [optuna.create_trial(state=TrialState.RUNNING, user_attrs=each) for each in attributes]
    for number, trial in enumerate(trials):
        trial.number = number
    return trials


@pytest.mark.parametrize(
    ("attributes", "total", "numbers"),
    [
        ([{}, {}, {}], 2, [0, 1]),
        ([{}, {}, {"of": 0}], 3, [2, 1]),
        ([{}, {"of": 0}, {"of": 0}], 1, [1]),
        ([{}, {"of": 0}, {"of": 1}, {"of": 0}, {"of": 3}], 1, [2]),
        ([{}, {"surplus": True}, {}], 2, [0, 2]),
        ([{}, {}, {"of": 1}], 1, [0]),
        ([], 2, []),
    ],
)
def test_the_first_that_tries_a_trial_again_counts(attributes: list[dict], total: int, numbers: list[int]) -> None:
    assert [trial.number for trial in attempts(numbered(*attributes), total)] == numbers


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(shared, "STALE_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("storage", STORAGES)
def test_the_trial_of_a_worker_that_is_gone_is_tried_again(storage: str) -> None:
    one, other = joined(storage, 1), joined(storage, 1)
    trial = one.claim()
    assert trial
    value = one.suggest(trial, {"lr": Range(low=0.0, high=1.0)})
    one.note(trial, run="here")
    with one.held(trial):
        for _ in range(10):
            assert other.claim() is None, "it is alive"
            assert other.others == 1
            time.sleep(0.1)
    deadline = time.monotonic() + 20
    while not (again := other.claim()) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert again
    assert again.user_attrs == {"of": 0, "run": "here", "deaths": 1, "epochs": 0}
    assert other.suggest(again, {"lr": Range(low=0.0, high=1.0)}) == value
    with pytest.raises(TakenOver):
        one.report(trial, 1, 0.5)
    with pytest.raises(TakenOver):
        one.complete(trial, 0.5)
    other.complete(again, 0.7)
    assert [(trial.number, trial.value) for trial in one.results()] == [(1, 0.7)]
    assert one.claim() is None
    assert one.others == 0


def test_a_trial_that_takes_every_worker_with_it_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three workers die in the first epoch, or, after three that went on for an epoch each, in the fifth."""
    monkeypatch.setattr(shared, "STALE_SECONDS", 0.2)
    for epochs, attempts_made in ((0, 3), (4, 6)):
        study, claimed, deadline = joined(f"{epochs}.journal", 1), 0, time.monotonic() + 60
        while True:
            if trial := study.claim():
                claimed += 1
                for epoch in range(1, min(claimed, epochs) + 1):
                    study.report(trial, epoch, 0.5)
            elif not study.others:
                break
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert claimed == attempts_made
        (result,) = study.results()
        assert (result.state, result.user_attrs["deaths"], result.user_attrs["again"]) == (TrialState.FAIL, 3, False)
        assert "no sign of life" in result.user_attrs["reason"]


@contextmanager
def workers(count: int, *arguments: object) -> Iterator[list]:
    processes = [start("sweep", "-c", "space.toml", *arguments) for _ in range(count)]
    try:
        yield processes
    finally:
        for process in processes:
            process.kill()
            process.communicate()


@pytest.mark.parametrize("storage", [STORAGES[0], pytest.param(STORAGES[1], marks=pytest.mark.slow)])
def test_two_workers_at_once_share_one_study(cli: Cli, storage: str) -> None:
    write(LR)
    with workers(2, "--trials", 6, "--storage", storage) as both:
        outputs = [process.communicate(timeout=200) for process in both]
        assert [process.returncode for process in both] == [0, 0], outputs
    numbers = [
        int(line.split()[1]) for out, _ in outputs for line in out.splitlines() if line.startswith("trial ")
        and line.split()[1].isdecimal()
    ]  # fmt: skip
    assert sorted(numbers) == [0, 1, 2, 3, 4, 5]
    trials = search(cli, "--trials", 6, "--storage", storage)
    assert [trial["number"] for trial in trials] == [0, 1, 2, 3, 4, 5]
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    assert len({trial["run"] for trial in trials}) == len([*Path("runs/space").glob("*/config.toml")]) == 6
    assert len({trial["params"]["lr"] for trial in trials}) == 6


@pytest.mark.parametrize(("how", "storage"), [*zip([signal.SIGKILL, signal.SIGINT], STORAGES, strict=True)])
def test_a_worker_that_is_stopped_loses_nothing(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, storage: str, how: signal.Signals
) -> None:
    """Killed or interrupted in its first trial; then the study ends as one that was left alone, to the bit."""
    write(LR, FIXED.replace("epochs = 2", "epochs = 12"))
    first = Path("runs/space/lenet-digits-1/metrics.jsonl")
    with workers(1, "--trials", 2, "--storage", storage) as (worker,):
        deadline = time.monotonic() + 120
        while not (first.exists() and first.read_text().count("\n") >= 3):
            assert worker.poll() is None, worker.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        worker.send_signal(how)
        out, err = worker.communicate(timeout=60)
    assert len(metrics(first.parent)) < 12, "it was over before the signal came: it needs more epochs"
    assert worker.returncode == (130 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert "stopped" in out
        assert err == "cnnkit: stopped; the same command goes on with the study\n"
    monkeypatch.setattr(shared, "STALE_SECONDS", 0.2)
    trials = search(cli, "--trials", 2, "--storage", storage)
    assert sorted(trial["number"] for trial in trials) == [1, 2]
    assert Path(trials[0]["run"]) == first.parent.resolve(), "it went on with the run that was begun"
    assert (first.parent / "log.txt").read_text().count("\nepoch ") <= 13, "at most one epoch was done twice"
    study = optuna.load_study(storage=open_storage(storage)[1], study_name="space")
    assert [*study.trials[1].intermediate_values] == [*range(1, 13)], "pruners see the epochs from before"
    whole = search(cli, "--trials", 2, "--name", "whole")
    assert [(t["params"], t["value"]) for t in trials] == [(t["params"], t["value"]) for t in whole]
    assert [metrics(t["run"]) for t in trials] == [metrics(t["run"]) for t in whole]


def test_an_open_study_that_breaks_is_told() -> None:
    study = joined("study.journal", 1)
    with Path("study.journal").open("a") as file:
        file.write("{torn\n{}\n")
    with pytest.raises(StudyError, match=r"the study in study.journal cannot be used: .*; the same command"):
        study.claim()


def test_a_study_is_joined_by_its_own_alone() -> None:
    joined("study.journal", 1)
    with pytest.raises(UsageError, match="begun with another lr"):
        Study("study.journal", "study", 1, 0, "none", {"lr": 2})
