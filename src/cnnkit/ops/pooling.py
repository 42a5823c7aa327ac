"""Pooling as modules without parameters (chapter 5.4, 5.8)."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from cnnkit.core.shape import Padding, Pair, pair
from cnnkit.ops.pool2d import adaptive_avg_pool2d, pool2d

__all__ = ["AdaptiveAvgPool2D", "Pool2D"]


class Pool2D(nn.Module):
    """The maximum or average of each window of (..., H, W) by `cnnkit.ops.pool2d`; the stride defaults to the window.

    Raises UsageError for what `pool2d` refuses.
    """

    def __init__(
        self,
        window: Pair,
        mode: Literal["max", "avg"] = "max",
        stride: Pair | None = None,
        padding: Padding = 0,
        *,
        ceil_mode: bool = False,
        count_include_pad: bool = False,
    ):
        super().__init__()
        self.how: dict[str, Any] = {
            "window": window,
            "mode": mode,
            "stride": window if stride is None else stride,
            "padding": padding,
            "ceil_mode": ceil_mode,
            "count_include_pad": count_include_pad,
        }
        self(torch.empty(pair(window, "window"), device="meta"))  # raises now rather than at the first input

    def forward(self, X: Tensor) -> Tensor:
        """Pool each channel separately."""
        return pool2d(X, **self.how)

    def extra_repr(self) -> str:
        """Show the window and how it slides."""
        return ", ".join(f"{name}={value!r}" for name, value in self.how.items())


class AdaptiveAvgPool2D(nn.Module):
    """The average of each of `size` (h, w) cells of (..., H, W) by `cnnkit.ops.adaptive_avg_pool2d`."""

    def __init__(self, size: Pair):
        super().__init__()
        self.size = pair(size, "size")

    def forward(self, X: Tensor) -> Tensor:
        """Average each channel's cells."""
        return adaptive_avg_pool2d(X, self.size)

    def extra_repr(self) -> str:
        """Show the number of cells."""
        return f"{self.size}"
