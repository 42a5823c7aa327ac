"""What the training loop tells while it runs."""

from dataclasses import dataclass
from typing import Protocol

__all__ = ["EpochRecord", "Observer", "Observers", "StepRecord"]


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


class Observer(Protocol):
    """Who listens to the loop."""

    def on_step(self, record: StepRecord) -> None:
        """Take where the run stands; called a few times a second."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Take what an epoch brought."""


class Observers:
    """Several observers as one."""

    def __init__(self, *observers: Observer):
        self.observers = observers

    def on_step(self, record: StepRecord) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.on_step(record)

    def on_epoch(self, record: EpochRecord) -> None:
        """Tell each."""
        for observer in self.observers:
            observer.on_epoch(record)
