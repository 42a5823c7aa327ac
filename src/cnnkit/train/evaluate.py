"""What a network is worth on a set of images: exact sums over every image, one confusion matrix."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.errors import UsageError

__all__ = ["Metrics", "evaluate"]


@dataclass(frozen=True)
class Metrics:
    """Mean loss (cross entropy) over all images, and the confusion matrix: rows true, columns predicted, int64."""

    loss: float
    confusion: Tensor

    @property
    def num_images(self) -> int:
        """How many images were seen."""
        return int(self.confusion.sum())

    @property
    def accuracy(self) -> float:
        """Share of the images whose class came first."""
        return self.confusion.diagonal().sum().item() / self.num_images

    def per_class(self) -> list[dict[str, Any]]:
        """Return precision, recall, F1 and the number of images (support) of each class; 0 where undefined."""
        hits = self.confusion.diagonal().double()
        predicted, support = self.confusion.sum(0), self.confusion.sum(1)
        rows = {
            "precision": hits / predicted.clamp(min=1),
            "recall": hits / support.clamp(min=1),
            "f1": 2 * hits / (predicted + support).clamp(min=1),
            "support": support,
        }
        columns = zip(*(values.tolist() for values in rows.values()), strict=True)
        return [dict(zip(rows, column, strict=True)) for column in columns]


@torch.inference_mode()
def evaluate(net: nn.Module, batches: Iterable[tuple[Tensor, Tensor]]) -> Metrics:
    """Run `net` (returning logits) in prediction mode over all batches (x, y).

    The mean is over images, not batches. The net's mode is restored. Raises UsageError if there is no batch.
    """
    was_training = net.training
    net.eval()
    loss: Tensor | None = None
    for x, y in batches:
        logits = net(x)
        classes = logits.shape[1]
        if loss is None:
            loss = torch.zeros((), dtype=torch.float64, device=y.device)
            confusion = torch.zeros(classes * classes, dtype=torch.int64, device=y.device)
        loss += F.cross_entropy(logits, y, reduction="sum")
        confusion += torch.bincount(y * classes + logits.argmax(1), minlength=classes * classes)
    net.train(was_training)
    if loss is None:
        raise UsageError("there is no image to evaluate on")
    confusion = confusion.view(classes, classes).cpu()
    return Metrics(loss.item() / int(confusion.sum()), confusion)
