"""What an epoch has come to so far: its losses, how many images were right, its seconds."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

__all__ = ["EpochSums"]


class EpochSums:
    """The sums of an epoch of `steps` steps; they stay on the device, so that no step waits for it."""

    def __init__(self, steps: int, device: torch.device):
        self.losses = torch.zeros(steps, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.seconds = 0.0

    def add(self, step: int, losses: Tensor, correct: Tensor) -> None:
        """Take the mean losses of the steps from number `step` on, and how many of their images were right."""
        self.losses[step : step + len(losses)] = losses
        self.correct += correct.sum().long()

    def mean_loss(self, sizes: Sequence[int], skipped: list[int]) -> float:
        """Return the mean loss over the images of the steps so far, of these sizes, those of skipped steps apart."""
        weights = torch.tensor(sizes, device=self.losses.device, dtype=self.losses.dtype)
        weights[skipped] = 0
        return ((self.losses[: len(sizes)].nan_to_num() * weights).sum() / weights.sum().clamp(min=1)).item()

    def first_wrong(self, step: int, skipped: list[int]) -> tuple[int, float] | None:
        """Return the first step before `step` whose loss is NaN or Inf, and that loss; None if there is none."""
        wrong = ~self.losses[:step].isfinite()
        wrong[skipped] = False
        if not wrong.any():
            return None
        first = int(wrong.nonzero()[0])
        return first, self.losses[first].item()

    def state(self) -> dict[str, Any]:
        """Return what a checkpoint needs."""
        return {"seconds": self.seconds, "losses": self.losses, "correct": self.correct}

    def load(self, state: Mapping[str, Any]) -> None:
        """Take up what `state` returned of an epoch with as many steps."""
        self.seconds = state["seconds"]
        self.losses.copy_(state["losses"])
        self.correct.copy_(state["correct"])
