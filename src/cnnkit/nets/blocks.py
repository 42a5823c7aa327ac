"""Pieces that several networks share."""

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from cnnkit.core.errors import unknown
from cnnkit.ops.layers import BatchNormalization, check_constants

__all__ = ["batch_norms"]

Norm = Callable[[int], nn.Module]


def batch_norms(norm: str, decay: float, epsilon: float) -> tuple[Norm, Norm]:
    """Return what builds batch normalisation after a convolution and after a dense layer, from its width.

    `norm` is "torch" (`nn.BatchNorm2d`, `nn.BatchNorm1d`; momentum 1 - decay) or "by_hand" (chapter 5.10.2).
    """
    if norm not in ("torch", "by_hand"):
        raise unknown("norm", norm, ("torch", "by_hand"))
    check_constants(decay, epsilon)
    if norm == "by_hand":

        def by_hand(width: int) -> nn.Module:
            return BatchNormalization(decay, epsilon, num_features=width)

        return by_hand, by_hand
    constants: dict[str, Any] = {"momentum": 1 - decay, "eps": epsilon}
    return partial(nn.BatchNorm2d, **constants), partial(nn.BatchNorm1d, **constants)
