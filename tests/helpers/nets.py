"""Networks with branches, functions and shared layers, and their tracing."""

from collections.abc import Callable

import pytest
from torch import Tensor, nn

from cnnkit import ops
from cnnkit.nets import ZOO

DEEP = {"densenet121.tv", "densenet161.tv", "densenet169.tv", "densenet201.tv", "resnet101.tv", "resnet152.tv"}
every = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in DEEP else []) for name in sorted(ZOO)]
)
FROM_SCRATCH = ops.MultiChannelConv2D


class Functional(nn.Module):
    """A function as a module, with the parts that it needs."""

    def __init__(self, function: Callable[..., object], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> object:
        return self.function(x, *self.inner)


class Shuffle(nn.Module):
    """Channels change their places."""

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        return x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)
