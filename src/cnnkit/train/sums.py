"""Running totals of an epoch: losses, correct images, seconds."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["EpochSums"]


class EpochSums:
    """Totals of an epoch whose steps have `sizes` images; tensors stay on the device, so that no step waits for it."""

    def __init__(self, sizes: Sequence[int], device: torch.device):
        self.sizes = sizes
        self.losses = torch.zeros(len(sizes), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.seconds = 0.0
        self.start(0)

    def start(self, step: int) -> None:
        """Start the clock before step number `step`."""
        self.first, self.started = step, time.monotonic()

    def stop(self, step: int) -> float:
        """Add the seconds since the clock was started and return them; start it again before step number `step`."""
        spent = self.elapsed
        self.seconds += spent
        self.start(step)
        return spent

    @property
    def elapsed(self) -> float:
        """Seconds since the clock was started."""
        return time.monotonic() - self.started

    def add(self, step: int, losses: Tensor, correct: Tensor) -> None:
        """Add the steps from number `step` on: their mean losses, and how many of their images were correct."""
        self.losses[step : step + len(losses)] = losses
        self.correct += correct.sum().long()

    def mean_loss(self, step: int, skipped: list[int]) -> float:
        """Return the mean loss over the images of the steps before `step`, except for the skipped ones."""
        weights = torch.tensor(self.sizes[:step], device=self.losses.device, dtype=self.losses.dtype)
        weights[skipped] = 0
        return ((self.losses[:step].nan_to_num() * weights).sum() / weights.sum().clamp(min=1)).item()

    def accuracy(self, step: int) -> float:
        """Return the fraction of correct images in the steps before `step`."""
        return self.correct.item() / sum(self.sizes[:step])

    def first_nonfinite(self, step: int, skipped: list[int]) -> tuple[int, float] | None:
        """Return the first step before `step` whose loss is NaN/Inf, and that loss; skipped steps don't count."""
        wrong = ~self.losses[:step].isfinite()
        wrong[skipped] = False
        found = wrong.nonzero().flatten().tolist()
        return (found[0], self.losses[found[0]].item()) if found else None

    def state(self) -> dict[str, Any]:
        """Return the epoch's part of a checkpoint."""
        return {"seconds": self.seconds, "losses": self.losses, "correct": self.correct}

    def load(self, state: Mapping[str, Any]) -> None:
        """Load what `state` returned for an epoch with as many steps."""
        self.seconds = state["seconds"]
        self.losses.copy_(state["losses"])
        self.correct.copy_(state["correct"])
