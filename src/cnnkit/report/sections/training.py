"""The course of the training run."""

import math
from dataclasses import dataclass
from typing import Any

from cnnkit.core.errors import CnnkitError
from cnnkit.core.text import counted
from cnnkit.experiment.history import panels
from cnnkit.experiment.run import Run
from cnnkit.figures import Panel

__all__ = ["Training", "training"]


@dataclass(frozen=True)
class Training:
    """The finished epochs, as in metrics.jsonl, and the one whose weights are judged."""

    epochs: list[dict[str, Any]]
    best_epoch: int | None

    @property
    def sentence(self) -> str:
        """How long it took, and which weights are judged."""
        seconds = sum(row["seconds"] for row in self.epochs)
        best = "" if self.best_epoch is None else f" The weights are those of epoch {self.best_epoch}."
        return f"{counted(len(self.epochs), 'epoch')} in {seconds:,.1f} s of training.{best}"

    def panels(self, most: int) -> list[Panel]:
        """Return the curves of loss and accuracy, through at most so many epochs."""
        return panels({"": self.epochs[:: math.ceil(len(self.epochs) / most)]}, ("loss", "accuracy"))


def training(run: Run) -> Training:
    """Return the course of a run; raises CnnkitError if no epoch is recorded."""
    history = run.history
    if not history:
        raise CnnkitError("metrics.jsonl has no finished epoch")
    return Training(list(history), history.best["epoch"] if history.best else None)
