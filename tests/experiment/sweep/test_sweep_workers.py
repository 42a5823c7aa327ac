"""Workers of one study: trials are shared, none is lost, and those of killed workers run again."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from cnnkit.core.errors import UsageError
from cnnkit.experiment.sweep import study as shared
from cnnkit.experiment.sweep.space import Choices, Range
from cnnkit.experiment.sweep.storage import StudyError, open_storage
from cnnkit.experiment.sweep.study import Study, TakenOver, attempts
from helpers.cli import Cli, start
from helpers.sweep import FIXED, LR, joined, search, write
from helpers.training import repeatable_metrics

optuna.logging.set_verbosity(optuna.logging.ERROR)


STORAGES = ["sqlite:///deep/study.db", "deep/study.journal"]


@pytest.mark.parametrize("storage", STORAGES)
def test_simultaneous_workers_take_each_trial_once(storage: str) -> None:
    total, together = 30, threading.Barrier(4)
    studies = [joined(storage, total) for _ in range(4)]
    taken: list[int] = []

    def work(study: Study) -> None:
        together.wait()
        while trial := study.claim():
            taken.append(trial.number)
            study.suggest(trial, {"lr": Range(low=0.0, high=1.0)})
            study.end(trial, TrialState.COMPLETE, 0.5)

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


def test_interrupted_study_continues_identically() -> None:
    """Among them trials that the sampler chooses by what it has seen."""
    space = {"x": Range(low=0.0, high=1.0), "y": Choices(("a", "b", "c"))}

    def searched(name: str, interrupted: set[int]) -> list[dict]:
        claims = 0
        while trial := (study := joined(f"{name}.journal", 20)).claim():
            params = study.suggest(trial, space)
            claims += 1
            if claims in interrupted:
                study.end(trial, TrialState.FAIL, reason="stopped", again=True)
            else:
                study.end(trial, TrialState.COMPLETE, params["x"] * (params["y"] == "b"))
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
def test_first_retry_of_a_trial_counts(attributes: list[dict], total: int, numbers: list[int]) -> None:
    assert [trial.number for trial in attempts(numbered(*attributes), total)] == numbers


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(shared, "STALE_SECONDS", 1.0)


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("storage", STORAGES)
def test_trial_of_dead_worker_is_retried(storage: str) -> None:
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
        one.end(trial, TrialState.COMPLETE, 0.5)
    other.end(again, TrialState.COMPLETE, 0.7)
    assert [(trial.number, trial.value) for trial in one.results()] == [(1, 0.7)]
    assert one.claim() is None
    assert one.others == 0


def test_trial_that_kills_every_worker_is_abandoned(monkeypatch: pytest.MonkeyPatch) -> None:
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
        assert "no heartbeat" in result.user_attrs["reason"]


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
def test_concurrent_workers_share_one_study(cli: Cli, storage: str) -> None:
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
def test_stopped_worker_loses_no_trial(
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
    assert len(repeatable_metrics(first.parent)) < 12, "it was over before the signal came: it needs more epochs"
    assert worker.returncode == (130 if how == signal.SIGINT else -how)
    if how == signal.SIGINT:
        assert "stopped" in out
        assert err == "cnnkit: stopped; run the same command to resume the study\n"
    monkeypatch.setattr(shared, "STALE_SECONDS", 0.2)
    trials = search(cli, "--trials", 2, "--storage", storage)
    assert sorted(trial["number"] for trial in trials) == [1, 2]
    assert Path(trials[0]["run"]) == first.parent.resolve(), "it went on with the run that was begun"
    assert (first.parent / "log.txt").read_text().count("\nepoch ") <= 13, "at most one epoch was done twice"
    study = optuna.load_study(storage=open_storage(storage)[1], study_name="space")
    assert [*study.trials[1].intermediate_values] == [*range(1, 13)], "pruners see the epochs from before"
    whole = search(cli, "--trials", 2, "--name", "whole")
    assert [(t["params"], t["value"]) for t in trials] == [(t["params"], t["value"]) for t in whole]
    assert [repeatable_metrics(t["run"]) for t in trials] == [repeatable_metrics(t["run"]) for t in whole]


def test_study_that_breaks_while_open_is_reported() -> None:
    study = joined("study.journal", 1)
    with Path("study.journal").open("a") as file:
        file.write("{torn\n{}\n")
    with pytest.raises(StudyError, match=r"the study in study.journal cannot be used: .*; run the same command"):
        study.claim()


def test_study_is_joined_only_by_equal_searches() -> None:
    joined("study.journal", 1)
    with pytest.raises(UsageError, match=r"started with different settings \(lr\)"):
        Study("study.journal", "study", 1, 0, "none", {"lr": 2})
