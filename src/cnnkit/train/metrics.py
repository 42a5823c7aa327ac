"""Evaluation of a network on a set of images during training: exact sums over all images."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.core.modes import prediction_mode
from cnnkit.train.distributed import ALONE, World

__all__ = ["Metrics", "evaluate"]


@dataclass(frozen=True)
class Metrics:
    """Mean cross entropy over all images in nats, and how many of them are classified correctly."""

    loss: float
    correct: int
    num_images: int

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are classified correctly."""
        return self.correct / self.num_images


def evaluate(
    net: nn.Module,
    batches: Iterable[tuple[Tensor, Tensor]],
    world: World = ALONE,
    predict: Callable[[Tensor], Tensor] | None = None,
) -> Metrics:
    """Run `net` (returning logits) in prediction mode over all batches (x, y); `predict` is a faster equivalent of it.

    The mean is over images, not batches. The modes of the net's modules are restored. With several ranks, each has a
    part of the images and returns the metrics of all. Raises UsageError if there is no batch.
    """
    losses: list[Tensor] = []
    correct: list[Tensor] = []
    num_images = 0
    with prediction_mode(net):
        for x, y in batches:
            logits = (predict or net)(x)
            losses.append(F.cross_entropy(logits, y, reduction="sum"))
            correct.append((logits.argmax(1) == y).sum())
            num_images += len(y)
    own = (
        (torch.stack(losses).cpu().double().sum().item(), int(torch.stack(correct).sum()), num_images)
        if losses
        else (0.0, 0, 0)
    )
    loss, right, total = (sum(parts) for parts in zip(*world.all_gather(own), strict=True))
    if not total:
        raise UsageError("there is no image to evaluate on")
    return Metrics(loss / total, int(right), int(total))
