"""Evaluation of a network on a set of images: exact sums over all images, one confusion matrix."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.core.modes import prediction_mode
from cnnkit.train.distributed import ALONE, World

__all__ = ["Metrics", "evaluate"]


@dataclass(frozen=True)
class Metrics:
    """Mean cross entropy over all images, and the confusion matrix (int64): true classes x predicted classes."""

    loss: float
    confusion: Tensor

    @property
    def num_images(self) -> int:
        """Number of images."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Fraction of the images that are classified correctly."""
        return self.confusion.diagonal().sum().item() / self.num_images

    def per_class(self) -> list[dict[str, Any]]:
        """Return precision, recall, F1 and the number of images (support) of each class.

        A class without images has None for all but its support, 0; one that is never predicted has precision 0.
        """
        correct = self.confusion.diagonal().double()
        predicted, support = self.confusion.sum(0), self.confusion.sum(1)
        rows = {
            "precision": correct / predicted.clamp(min=1),
            "recall": correct / support.clamp(min=1),
            "f1": 2 * correct / (predicted + support).clamp(min=1),
            "support": support,
        }
        columns = zip(*(values.tolist() for values in rows.values()), strict=True)
        found = [dict(zip(rows, column, strict=True)) for column in columns]
        return [row if row["support"] else dict.fromkeys(rows) | {"support": 0} for row in found]


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
    confusion = None
    with prediction_mode(net):
        for x, y in batches:
            logits = (predict or net)(x)
            classes = logits.shape[1]
            if confusion is None:
                confusion = torch.zeros(classes * classes, dtype=torch.int64, device=y.device)
            losses.append(F.cross_entropy(logits, y, reduction="sum"))
            confusion += torch.bincount(y * classes + logits.argmax(1), minlength=classes * classes)
    own = None if confusion is None else (confusion.cpu(), torch.stack(losses).cpu().double().sum().item())
    parts = [part for part in world.all_gather(own) if part is not None]
    if not parts:
        raise UsageError("there is no image to evaluate on")
    counts = torch.stack([part[0] for part in parts]).sum(0)
    side = round(len(counts) ** 0.5)
    return Metrics(sum(part[1] for part in parts) / int(counts.sum()), counts.view(side, side))
