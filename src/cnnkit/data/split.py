"""Validation or test images out of the training set: stratified, seeded, the same on every machine."""

import random

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError

__all__ = ["require_fraction", "stratified_split"]


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return sorted indices (training, set aside): `fraction` of each class, rounded, is set aside.

    Python's own generator draws them, whose numbers do not depend on torch's version or the device.
    Raises UsageError unless 0 <= fraction < 1.
    """
    require_fraction(fraction)
    draw = random.Random(seed)
    chosen: list[int] = []
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten().tolist()
        chosen += draw.sample(members, round(len(members) * fraction))
    aside = torch.zeros(len(labels), dtype=torch.bool)
    aside[chosen] = True
    return (~aside).nonzero().flatten(), aside.nonzero().flatten()


def require_fraction(fraction: float) -> None:
    """Raise UsageError unless 0 <= fraction < 1."""
    if not 0 <= fraction < 1:
        raise UsageError(f"the fraction to set aside must be at least 0 and below 1, not {fraction!r}")
