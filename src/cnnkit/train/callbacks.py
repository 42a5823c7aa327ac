"""The callbacks of the training loop, and the records that they receive."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partialmethod
from typing import Any

from cnnkit.core.errors import UsageError

__all__ = ["Callback", "Callbacks", "EpochRecord", "StepRecord", "StopTraining", "TrainRecord", "require_callbacks"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainRecord:
    """The extent of a run, reported at its start."""

    epochs: int
    steps: int  # per epoch
    images: int  # per epoch
    epoch: int  # the first one, from 1; a resumed run starts later
    step: int  # the first one in that epoch, from 0


@dataclass(frozen=True)
class StepRecord:
    """Progress within an epoch; loss and accuracy are those of the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float  # of the whole run


@dataclass(frozen=True)
class EpochRecord:
    """Results of an epoch; the validation figures are None without validation images."""

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
    """Raised by a callback to stop the run after this step or epoch, with a checkpoint; the message is the reason."""


class Callback:
    """Base class of callbacks, which need not derive from it: any of these methods will do.

    A method may raise StopTraining. Any other error ends the run; the last checkpoint stays. With several ranks only
    the main one calls its callbacks.
    """

    def on_train_begin(self, record: TrainRecord) -> None:
        """Receive the extent of the training."""

    def on_step_end(self, record: StepRecord) -> None:
        """Receive the progress within an epoch.

        Called a few times a second, not after each step: reading the loss makes a GPU wait, and lanes take many steps
        at once.
        """

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Receive the results of an epoch; the best weights are written already, the checkpoint comes next."""

    def on_train_end(self, reason: str) -> None:
        """Receive the reason why the training ended, also after an error or Ctrl-C."""


class Callbacks:
    """Several callbacks as one; `stop` is the first reason that one of them gave to stop the run."""

    def __init__(self, callbacks: Sequence[Any] = ()):
        self.callbacks = callbacks
        self.stop = ""

    def _call(self, method: str, record: object) -> None:
        for callback in self.callbacks:
            try:
                if receive := getattr(callback, method, None):
                    receive(record)
            except StopTraining as stop:
                self.stop = self.stop or str(stop) or f"stopped by {type(callback).__name__}"

    on_train_begin = partialmethod(_call, "on_train_begin")
    on_step_end = partialmethod(_call, "on_step_end")
    on_epoch_end = partialmethod(_call, "on_epoch_end")

    def on_train_end(self, reason: str, failed: bool = False) -> None:
        """Call each callback, even if another one raises; then raise its error, unless the training itself failed."""
        errors = []
        for callback in self.callbacks:
            try:
                if receive := getattr(callback, "on_train_end", None):
                    receive(reason)
            except StopTraining:
                pass  # the training has ended already
            except Exception as error:
                errors.append(error)
                log.warning("%s.on_train_end: %s: %s", type(callback).__name__, type(error).__name__, error)
        if errors and not failed:
            raise errors[0]


def require_callbacks(callbacks: Any) -> None:
    """Raise UsageError unless this is a list of objects, each with at least one method of Callback."""
    if not isinstance(callbacks, Sequence):
        raise UsageError(f"callbacks must be a list, not {type(callbacks).__name__}")
    methods = [name for name in vars(Callback) if name.startswith("on_")]
    for callback in callbacks:
        if isinstance(callback, type):
            raise UsageError(f"callbacks takes objects: write {callback.__name__}(), not {callback.__name__}")
        if not any(hasattr(callback, name) for name in methods):
            raise UsageError(f"callback {type(callback).__name__} has none of the methods {', '.join(methods)}")
