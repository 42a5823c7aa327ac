"""Batch normalisation statistics, measured with the current weights.

Moving averages lag behind the weights, or are still close to their initial values. Only prediction reads them, so they
can be measured before each validation instead: over a few training batches each layer normalises with the batch's own
statistics, as in training, and stores those of all batches together.
"""

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from cnnkit.core.modes import eval_mode
from cnnkit.data.batches import Batches
from cnnkit.ops import BatchNormalization
from cnnkit.train.distributed import ALONE, World, is_synchronised

__all__ = ["Moments", "Norm", "batches_to_measure", "learning_norms", "measure", "write_statistics"]

IMAGES = 1024  # to measure on, if the epoch is long enough
SHARE, LEAST = 20, 2  # at most one batch in SHARE of the epoch, but at least LEAST

Norm = _BatchNorm | BatchNormalization


@dataclass(frozen=True)
class Moments:
    """Per channel: the number of values, their mean, and the sum of their squared distances from it."""

    count: float
    mean: Tensor
    squares: Tensor

    @classmethod
    def of(cls, x: Tensor) -> "Moments":
        """Return the moments of x, N x C or N x C x ..., in at least float32."""
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        axes = [axis for axis in range(x.ndim) if axis != 1]
        mean = x.mean(axes, keepdim=True)
        return cls(x.numel() / x.shape[1], mean.flatten(), (x - mean).square().sum(axes))

    def __add__(self, other: "Moments") -> "Moments":
        """Return the moments of the values of both (Chan et al. 1979)."""
        count = self.count + other.count
        delta, share = other.mean - self.mean, other.count / count
        squares = self.squares + other.squares + delta.square() * (self.count * share)
        return Moments(count, self.mean + delta * share, squares)

    def over(self, world: World) -> "Moments":
        """Return the moments of the values of all ranks."""
        if world.size == 1:
            return self
        count = world.all_reduce(self.mean.new_tensor(self.count)).item()
        mean = world.all_reduce(self.mean * self.count) / count
        squares = world.all_reduce(self.squares + self.count * (self.mean - mean).square())
        return Moments(count, mean, squares)


def batches_to_measure(batches: Batches) -> int:
    """Return how many batches of an epoch to measure on: enough images, at a small part of the cost of its steps."""
    enough, affordable = math.ceil(IMAGES / batches.batch_size), max(len(batches) // SHARE, LEAST)
    return min(enough, affordable, len(batches))


def learning_norms(trained: nn.Module, net: nn.Module) -> list[Norm]:
    """Return the batch normalisations of `net`, a copy of `trained` or itself, whose statistics training updates."""
    names = [name for name, module in trained.named_modules() if module.training and _moves(module)]
    return [net.get_submodule(name) for name in names]  # type: ignore[misc]  # of the same classes


def measure(net: nn.Module, norms: Sequence[Norm], x: Tensor, world: World = ALONE) -> dict[nn.Module, Moments]:
    """Predict x and return the moments of the input of each of `norms`, which normalises with them and stores them.

    With several ranks, `x` and the result are this rank's part. A layer that is not called is not in the result.
    """
    found: dict[nn.Module, Moments] = {}

    def hook(norm: Any, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        moments = Moments.of(*args, **named) if args else Moments.of(*named.values())
        found[norm] = found[norm] + moments if norm in found else moments
        _write(norm, moments.over(world) if is_synchronised(norm) else moments, unbiased=False)

    with eval_mode(net), ExitStack() as hooks:
        for norm in norms:
            hooks.enter_context(norm.register_forward_pre_hook(hook, prepend=True, with_kwargs=True))
        net(x)
    return found


def write_statistics(norm: Norm, moments: Moments) -> None:
    """Store the statistics to predict with; torch's layers take the unbiased variance, the chapter's the biased one."""
    _write(norm, moments, unbiased=isinstance(norm, _BatchNorm))


def _write(norm: Norm, moments: Moments, unbiased: bool) -> None:
    mean, variance = _buffers(norm)
    mean.copy_(moments.mean)
    variance.copy_(moments.squares / max(moments.count - unbiased, 1))


def _buffers(norm: Norm) -> tuple[Tensor, Tensor]:
    if isinstance(norm, BatchNormalization):
        return norm.moving_mean, norm.moving_variance
    return norm.running_mean, norm.running_var  # type: ignore[return-value]  # not None where training updates them


def _moves(module: nn.Module) -> bool:
    if isinstance(module, BatchNormalization):
        return module.decay < 1
    return isinstance(module, _BatchNorm) and module.running_mean is not None and module.momentum != 0
