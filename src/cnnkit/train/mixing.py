"""Mixup and cutmix: batches whose images are mixed in pairs, and their targets."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cnnkit.train.config import TrainConfig

__all__ = ["Targets", "mix"]


@dataclass(frozen=True)
class Targets:
    """The labels of a batch; for mixed images also the second labels, and the weight of the first (`share`)."""

    first: Tensor
    second: Tensor | None = None
    share: float = 1.0

    def split(self, parts: int) -> "list[Targets]":
        """Split the targets into those of `parts` parts of the batch."""
        if self.second is None:
            return [Targets(first) for first in self.first.tensor_split(parts)]
        pairs = zip(self.first.tensor_split(parts), self.second.tensor_split(parts), strict=True)
        return [Targets(first, second, self.share) for first, second in pairs]


def mix(config: TrainConfig, x: Tensor, y: Tensor) -> tuple[Tensor, Targets]:
    """Return images N x C x H x W and labels N, mixed in pairs if the settings say so.

    mixup (Zhang et al. 2018) blends each image with one from the other end of the batch, cutmix (Yun et al. 2019)
    pastes a box of it; with both set, each batch draws one. All draws are from torch's CPU generator.
    """
    alphas = [(alpha, box) for alpha, box in ((config.mixup, False), (config.cutmix, True)) if alpha]
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


def _span(middle: float, side: float, size: int) -> tuple[int, int]:
    """Return the first and last pixel (exclusive) of a box along one axis, clipped to the image."""
    length, centre = round(side * size), int(middle * size)
    first = max(centre - length // 2, 0)
    return first, min(centre - length // 2 + length, size)
