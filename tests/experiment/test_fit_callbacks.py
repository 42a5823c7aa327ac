"""Callbacks of trainings from Python: records, stops, errors and logging."""

import subprocess
import sys
from typing import Any

import pytest

import cnnkit
from cnnkit.core.errors import CnnkitError
from cnnkit.experiment import RunInterrupted
from cnnkit.train import Callback, EpochRecord, StepRecord, StopTraining, TrainRecord
from helpers.fit import QUICK, figures


class Watcher(Callback):
    """Notes what it hears, and stops the run if it is told to."""

    def __init__(self, stop_after: int = 99):
        self.heard: list[Any] = []
        self.stop_after = stop_after

    def on_train_begin(self, record: TrainRecord) -> None:
        self.heard.append(record)

    def on_epoch_end(self, record: EpochRecord) -> None:
        self.heard.append(record)
        if record.epoch == self.stop_after:
            raise StopTraining("enough")

    def on_train_end(self, reason: str) -> None:
        self.heard.append(reason)


def test_callbacks_receive_records_and_may_stop_the_run() -> None:
    watcher = Watcher(stop_after=2)
    run = cnnkit.fit("lenet", callbacks=[watcher], **(QUICK | {"epochs": 5}))
    begin, first, second, end = watcher.heard
    assert (begin.epochs, begin.epoch, begin.step) == (5, 1, 0)
    assert (first.epoch, second.epoch, end) == (1, 2, "enough")
    assert len(run.history) == 2
    assert "enough; best weights: " in (run.path / "log.txt").read_text()
    watcher = Watcher()
    more = cnnkit.fit(resume=run.path, callbacks=[watcher])
    assert len(more.history) == 5
    assert (watcher.heard[0].epoch, watcher.heard[-1]) == (3, "finished 5 epochs")


def test_run_stopped_by_a_step_callback_resumes_bit_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnkit.train.loop.REPORT_SECONDS", 0)

    class Once:  # any object will do
        def on_step_end(self, record: StepRecord) -> None:
            assert record.images_per_second > 0
            if (record.epoch, record.step) == (2, 3):
                raise StopTraining

    options = QUICK | {"augment": ["crop"], "epochs": 3}
    run = cnnkit.fit("lenet", callbacks=[Once()], **options)
    assert len(run.history) == 1
    assert "stopped by Once" in (run.path / "log.txt").read_text()
    rest, whole = cnnkit.fit(resume=run.path), cnnkit.fit("lenet", **options)
    assert figures(rest) == figures(whole)


def test_callback_error_is_raised() -> None:
    class Broken:
        def on_epoch_end(self, record: EpochRecord) -> None:
            raise KeyError("what")

    watcher = Watcher()
    with pytest.raises(KeyError, match="what"):
        cnnkit.fit("lenet", callbacks=[Broken(), watcher], **QUICK)
    assert watcher.heard[-1] == "'what'"


def test_all_callbacks_are_called_at_the_end_and_the_first_error_is_raised(caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Callback):
        def __init__(self, method: str):
            setattr(self, method, self.fail)

        def fail(self, record: object) -> None:
            raise KeyError("mine")

    for method in ("on_train_begin", "on_train_end"):
        watcher = Watcher()
        with pytest.raises(KeyError, match="mine"):
            cnnkit.fit("lenet", callbacks=[Broken(method), watcher], **QUICK)
        assert isinstance(watcher.heard[-1], str)
    with pytest.raises(ZeroDivisionError):
        cnnkit.fit("lenet", callbacks=[Broken("on_train_end"), Failing()], **QUICK)
    assert "Broken.on_train_end: KeyError: 'mine'" in caplog.text


class Failing:
    def on_epoch_end(self, record: EpochRecord) -> None:
        raise ZeroDivisionError


def test_logging_of_the_program_is_unchanged(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "import logging, sys, cnnkit\n"
        "logging.basicConfig(level=logging.INFO, stream=sys.stderr, format='mine %(message)s')\n"
        "logging.getLogger('cnnkit').setLevel(int(sys.argv[1]))\n"
        "cnnkit.fit('lenet', epochs=1, device='cpu', engine='torch', plan='off', progress=False)\n"
        "log = logging.getLogger('cnnkit')\n"
        "assert (log.level, log.handlers, log.propagate) == (int(sys.argv[1]), [], True)"
    )
    for level, lines in (("0", 7), ("40", 0)):
        done = subprocess.run([sys.executable, "-c", code, level], capture_output=True, text=True, check=True)
        assert done.stdout == ""
        assert done.stderr.count("mine ") == lines == done.stderr.count("\n"), done.stderr


STOPPED = """
import os, signal, cnnkit
class Stop:
    def on_epoch_end(self, record):
        os.kill(os.getpid(), signal.SIGINT)
try:
    cnnkit.fit("lenet", epochs=3, callbacks=[Stop()], device="cpu", engine="torch", plan="off")
except cnnkit.experiment.RunInterrupted as stop:
    print(stop)
    run = cnnkit.fit(resume=stop.folder.path)
    print(len(run.history), "epochs")
"""


def test_stop_button_saves_and_the_run_resumes() -> None:
    done = subprocess.run([sys.executable, "-c", STOPPED], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "resume with: cnnkit.fit(resume='runs/lenet-digits-1')" in done.stdout
    assert done.stdout.endswith("3 epochs\n")
    assert "Traceback" not in done.stderr
    assert issubclass(RunInterrupted, CnnkitError)
