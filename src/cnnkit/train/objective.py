"""The loss: cross entropy with label smoothing, class weights and mixed images."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkit.train.config import TrainConfig
from cnnkit.train.mixing import Targets

__all__ = ["Objective", "balanced_weights"]


class Objective:
    """The loss of a batch under the settings; `class_weights`, one per class, are all 1 by default."""

    def __init__(self, config: TrainConfig, class_weights: Tensor | None = None):
        self.config, self.class_weights = config, class_weights

    def total(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the sum of the images' losses, each weighted by the class of its label; logits are N x classes."""
        loss = self._sum(logits, targets.first)
        if targets.second is None:
            return loss
        return targets.share * loss + (1 - targets.share) * self._sum(logits, targets.second)

    def _sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights, smoothing = self.class_weights, self.config.label_smoothing
        if weights is None or not smoothing:
            return F.cross_entropy(logits.float(), labels, weights, reduction="sum", label_smoothing=smoothing)
        # torch weights each part of a smoothed label by that part's class, so a rare class would gain from all labels
        losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
        return weights[labels] @ losses


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return a weight for each class, N / (classes present * images of the class), whose mean over the images is 1.

    A class without images gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (counts.count_nonzero() * counts.clamp(min=1))
    return weights.where(counts > 0, 0).float()
