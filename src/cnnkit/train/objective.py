"""What training makes small: the cross entropy, with smoothed labels, weighted classes and mixed images."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkit.train.config import TrainConfig

__all__ = ["Objective", "Targets", "balanced_weights"]


@dataclass(frozen=True)
class Targets:
    """The labels of a batch; of mixed images, the second ones and the first ones' share."""

    first: Tensor
    second: Tensor | None = None
    share: float = 1.0

    def split(self, parts: int) -> "list[Targets]":
        """Return the targets of `parts` parts of the batch."""
        if self.second is None:
            return [Targets(first) for first in self.first.tensor_split(parts)]
        pairs = zip(self.first.tensor_split(parts), self.second.tensor_split(parts), strict=True)
        return [Targets(first, second, self.share) for first, second in pairs]


class Objective:
    """The loss of a batch under the settings; `class_weights`, one per class, or None for all the same."""

    def __init__(self, config: TrainConfig, class_weights: Tensor | None = None):
        self.config, self.class_weights = config, class_weights

    def mix(self, x: Tensor, y: Tensor) -> tuple[Tensor, Targets]:
        """Return a batch N x C x H x W, and its labels N, with images mixed in pairs if the settings say so.

        mixup (Zhang et al. 2018) blends each image with one from the other end of the batch, cutmix (Yun et al. 2019)
        pastes a box of it. Both draw from torch's CPU generator.
        """
        alphas = [(alpha, box) for alpha, box in ((self.config.mixup, False), (self.config.cutmix, True)) if alpha]
        if not alphas or len(y) < 2:
            return x, Targets(y)
        alpha, box = alphas[int(torch.rand(()) * len(alphas))]
        share = torch.distributions.Beta(alpha, alpha).sample().item()
        other = x.flip(0)
        if not box:
            return x.lerp(other, 1 - share), Targets(y, y.flip(0), share)
        height, width = x.shape[-2:]
        side = (1 - share) ** 0.5
        middle = torch.rand(2)
        top, bottom = _span(middle[0].item(), side, height)
        left, right = _span(middle[1].item(), side, width)
        mixed = x.clone()
        mixed[..., top:bottom, left:right] = other[..., top:bottom, left:right]
        covered = (bottom - top) * (right - left) / (height * width)
        return mixed, Targets(y, y.flip(0), 1 - covered)

    def total(self, logits: Tensor, targets: Targets) -> Tensor:
        """Return the sum of the images' losses, each weighted by its label's class; logits N x classes."""
        loss = self._sum(logits, targets.first)
        if targets.second is None:
            return loss
        return targets.share * loss + (1 - targets.share) * self._sum(logits, targets.second)

    def _sum(self, logits: Tensor, labels: Tensor) -> Tensor:
        weights, smoothing = self.class_weights, self.config.label_smoothing
        if weights is None or not smoothing:
            return F.cross_entropy(logits.float(), labels, weights, reduction="sum", label_smoothing=smoothing)
        # torch weighs each share of a smoothed label by that share's class, so that a rare one gains from all labels
        losses = F.cross_entropy(logits.float(), labels, reduction="none", label_smoothing=smoothing)
        return weights[labels] @ losses


def balanced_weights(labels: Tensor, num_classes: int) -> Tensor:
    """Return a weight for each class, the rarer the larger, whose mean over the images is 1: N / (classes present * n).

    A class without an image gets 0.
    """
    counts = torch.bincount(labels, minlength=num_classes)
    weights = len(labels) / (counts.count_nonzero() * counts.clamp(min=1))
    return weights.where(counts > 0, 0).float()


def _span(middle: float, side: float, size: int) -> tuple[int, int]:
    """Return the first and the last pixel, exclusive, of a box's side; what is outside the image is cut off."""
    length, centre = round(side * size), int(middle * size)
    first = max(centre - length // 2, 0)
    return first, min(centre - length // 2 + length, size)
