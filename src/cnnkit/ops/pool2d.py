"""Two-dimensional maximum and average pooling (chapter 5.4)."""

from typing import Literal

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.shape import Padding, Pair, padding_sides, pair
from cnnkit.ops.window import exact, pad, require_rank, wide, windows

__all__ = ["pool2d"]


def pool2d(
    X: Tensor, window: Pair, mode: Literal["max", "avg"] = "max", stride: Pair = 1, padding: Padding = 0
) -> Tensor:
    """Return the maximum or the average of each window of X (..., H, W), every channel on its own.

    The window moves by 1 unless told, as the function of chapter 5.4.1; layers move by the window's size.
    Padding never counts: it is minus infinity to a maximum and left out of an average (TensorFlow's rule; torch's
    `count_include_pad=False`). A maximum keeps the dtype, an average of integers is a float. Raises UsageError
    for an unknown mode, a window larger than the padded input, or padding as wide as the window.

    >>> pool2d(torch.arange(9.).reshape(3, 3), (2, 2), "avg")
    tensor([[2., 3.],
            [5., 6.]])
    """
    require_rank(X, "X", 2, None)
    if mode not in ("max", "avg"):
        raise unknown("pooling mode", mode, ("max", "avg"))
    height, width = X.shape[-2:]
    sides, (kh, kw) = padding_sides(padding, (height, width), window, stride), pair(window, "window")
    if max(sides[:2]) >= kh or max(sides[2:]) >= kw:
        raise UsageError(f"padding {padding!r} must be smaller than the window {window!r}, which may see nothing else")

    def seen(X: Tensor, value: float) -> Tensor:  # ..., h, w, kh, kw
        return windows(pad(X, sides, window, stride, value=value), window, stride)

    if mode == "max" and X.is_complex():
        raise UsageError(f"complex numbers have no maximum: X is {X.dtype}")
    if mode == "max" and X.dtype in (torch.uint16, torch.uint32):  # torch has no maximum of these
        return pool2d(X.long(), window, mode, stride, padding).to(X.dtype)
    if mode == "max":
        # the index of the maximum, unlike amax, gives ties to one element in the gradient, as F.max_pool2d does
        return seen(X, _lowest(X.dtype)).flatten(-2).max(-1).values
    counted = seen(X.new_ones((height, width), dtype=torch.int64), 0).sum((-2, -1))
    total = seen(exact(X), 0).sum((-2, -1), dtype=wide(exact(X).dtype))
    average = total / counted
    return average.to(X.dtype) if X.is_floating_point() else average


def _lowest(dtype: torch.dtype) -> float:
    if dtype.is_floating_point:
        return float("-inf")
    return 0 if dtype == torch.bool else torch.iinfo(dtype).min
