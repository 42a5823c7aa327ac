"""One trial of a sweep: an ordinary run that reports each epoch to its study."""

import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna import TrialPruned
from optuna.trial import FrozenTrial, Trial, TrialState

from cnnkit.core.errors import CnnkitError, DataError, Interrupted
from cnnkit.experiment.build import build
from cnnkit.experiment.config import resolve
from cnnkit.experiment.history import read_metrics
from cnnkit.experiment.launch import begin_folder
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.sweep.space import Space, overlay
from cnnkit.experiment.sweep.storage import StudyError
from cnnkit.experiment.sweep.study import Study, TakenOver
from cnnkit.experiment.training import train_job
from cnnkit.train import ALONE, Callback, EpochRecord, StepRecord

__all__ = ["MACHINE_SETTINGS", "Worker"]

# settings that may differ between machines
MACHINE_SETTINGS = {
    "data_dir",
    "device",
    "max_pixels",
    "workers",
    "tensorboard",
    "checkpoint_steps",
    "checkpoint_minutes",
    "keep",
}


@dataclass(frozen=True)
class Worker:
    """Trains trials of a `study` in `folder`, with the `given` settings and those suggested from `space`."""

    study: Study
    given: dict[str, Any]
    space: Space
    folder: Path
    stop: threading.Event

    def attempt(self, trial: Trial) -> FrozenTrial:
        """Train, and record the outcome in the study; Ctrl-C sets `stop`.

        Raises TakenOver if another worker took over the trial. Errors that would hit every trial, such as missing data,
        are raised too, and the trial will be retried.
        """
        with self.study.held(trial):
            try:
                return self.study.end(trial, TrialState.COMPLETE, self._train(trial))
            except TrialPruned as pruned:
                return self.study.end(trial, TrialState.PRUNED, reason=str(pruned))
            except (TakenOver, StudyError):
                raise
            except Interrupted as stopped:
                self.stop.set()
                return self.study.end(trial, TrialState.FAIL, reason=str(stopped), again=True)
            except CnnkitError as error:
                shared = isinstance(error, DataError) or isinstance(error.__cause__, OSError | ImportError)
                ended = self.study.end(trial, TrialState.FAIL, reason=str(error), again=shared)
                if shared:
                    raise
                return ended
            except Exception as error:  # of torch, for settings that contradict each other
                reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
                return self.study.end(trial, TrialState.FAIL, reason=reason, again=False)

    def _train(self, trial: Trial) -> float:
        """Train the trial's run, or resume the one of an earlier attempt, and return its best accuracy."""
        config = resolve(overlay(self.given, self.study.suggest(trial, self.space)))
        run = _free_run(trial.user_attrs.get("run"))
        resumed = run is not None
        if run:
            here = config.model_dump(mode="json", include=MACHINE_SETTINGS, exclude_none=True)
            config = resolve(run.settings() | here)
        job = build(config, earlier=run)
        if run is None:
            run, job = begin_folder(job, self.folder)
        self.study.note(trial, run=str(run.path.resolve()))
        score = _Score(self.study, trial, self.stop, job.config.epochs)
        for row in read_metrics(run.path) if resumed else ():
            if row["val_accuracy"] is not None:
                score.keep(row["epoch"], row["val_accuracy"])
        train_job(job, run, ALONE, resume=resumed, callbacks=[score], progress=False)
        return max(score.values.values())


class _Score(Callback):
    """Reports each epoch to the study, and stops the run if it is pruned."""

    def __init__(self, study: Study, trial: Trial, stop: threading.Event, epochs: int) -> None:
        self.study, self.trial, self.stop, self.epochs = study, trial, stop, epochs
        self.values: dict[int, float] = {}

    def keep(self, epoch: int, value: float) -> bool:
        """Report the epoch, and return whether to prune the run."""
        if epoch in self.values:  # a resumed run repeats its last epoch
            return False
        self.values[epoch] = value
        return self.study.report(self.trial, epoch, value) and epoch < self.epochs

    def on_step_end(self, record: StepRecord) -> None:
        """Stop if Ctrl-C came before the training handled it."""
        if self.stop.is_set():
            raise Interrupted("stopped")

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Report the epoch; raises TrialPruned."""
        if record.val_accuracy is not None and self.keep(record.epoch, record.val_accuracy):
            raise TrialPruned(f"pruned after epoch {record.epoch}")


def _free_run(path: str | None) -> RunFolder | None:
    """Return the run of an earlier attempt, if it can be read and no process is training it."""
    if path is None or not (run := RunFolder(Path(path))).config_file.exists():
        return None
    try:
        with run.locked():
            return run
    except (CnnkitError, OSError):
        return None
