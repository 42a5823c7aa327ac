"""What the training loop tells while it runs, and whom."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cnnkit.core.errors import UsageError

__all__ = [
    "Callback",
    "Callbacks",
    "EpochRecord",
    "StepRecord",
    "StopTraining",
    "TrainRecord",
    "require_callbacks",
]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRecord:
    """What a training is about to do."""

    epochs: int
    steps: int  # of an epoch
    images: int  # of an epoch
    epoch: int  # the first to be trained, from 1; a resumed run begins later
    step: int  # the first to be taken in it, from 0


@dataclass(frozen=True)
class StepRecord:
    """Where the run stands within an epoch; loss and accuracy are those of the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float  # of the whole run


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch brought; the validation figures are None if no image was set aside."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float
    best: bool


class StopTraining(Exception):
    """Raised by a callback to end the run after this step or epoch: saved, with the message as the reason."""


class Callback:
    """Who listens to the loop: a class with those of these methods that it needs.

    A method may raise StopTraining. Any other error ends the run as it would anywhere; the last checkpoint stays. Of
    several processes only the main one calls them.
    """

    def on_train_begin(self, record: TrainRecord) -> None:
        """Take what the training is about to do."""

    def on_step_end(self, record: StepRecord) -> None:
        """Take where the run stands.

        It is called a few times a second and not after each step: reading the loss makes a GPU wait, and lanes take
        many steps at once.
        """

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Take what an epoch brought; the best weights are written already, the checkpoint is about to be."""

    def on_train_end(self, reason: str) -> None:
        """Take why the training ended, also by an error or by Ctrl-C."""


class Callbacks:
    """Several callbacks as one; `stop` is the first reason that one of them gave to end the run."""

    def __init__(self, callbacks: Sequence[Any] = ()):
        self.callbacks = callbacks
        self.stop = ""

    def on_train_begin(self, record: TrainRecord) -> None:
        """Tell each."""
        self._tell("on_train_begin", record)

    def on_step_end(self, record: StepRecord) -> None:
        """Tell each."""
        self._tell("on_step_end", record)

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Tell each."""
        self._tell("on_epoch_end", record)

    def on_train_end(self, reason: str, failed: bool = False) -> None:
        """Tell each, whatever another one raises; then raise that, unless the training itself has failed."""
        errors = []
        for callback in self.callbacks:
            try:
                if take := getattr(callback, "on_train_end", None):
                    take(reason)
            except StopTraining:
                pass  # it has ended
            except Exception as error:
                errors.append(error)
                log.warning("%s.on_train_end: %s: %s", type(callback).__name__, type(error).__name__, error)
        if errors and not failed:
            raise errors[0]

    def _tell(self, method: str, record: object) -> None:
        for callback in self.callbacks:
            try:
                if take := getattr(callback, method, None):
                    take(record)
            except StopTraining as wish:
                self.stop = self.stop or str(wish) or f"{type(callback).__name__} ended it"


def require_callbacks(callbacks: Any) -> None:
    """Raise UsageError unless this is a list of objects that have a method of Callback's each."""
    if not isinstance(callbacks, Sequence):
        raise UsageError(f"callbacks must be a list, not {type(callbacks).__name__}")
    methods = [name for name in vars(Callback) if name.startswith("on_")]
    for callback in callbacks:
        if isinstance(callback, type):
            raise UsageError(f"callbacks takes objects: write {callback.__name__}(), not {callback.__name__}")
        if not any(hasattr(callback, name) for name in methods):
            raise UsageError(f"callback {type(callback).__name__} has none of the methods {', '.join(methods)}")
