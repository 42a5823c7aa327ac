"""Two-dimensional maximum and average pooling (chapter 5.4), and averaging to a given size (chapter 5.8)."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.modes import is_recorded
from cnnkit.core.shape import Padding, Pair, pair
from cnnkit.ops.window import exact, require_rank, resolve_map_padding, surround, wide, windows

__all__ = ["adaptive_avg_pool2d", "pool2d"]


def pool2d(
    X: Tensor,
    window: Pair,
    mode: Literal["max", "avg"] = "max",
    stride: Pair = 1,
    padding: Padding = 0,
    *,
    ceil_mode: bool = False,
    count_include_pad: bool = False,
) -> Tensor:
    """Return the maximum or the average of each window of X (..., H, W), for each channel separately.

    The default stride is 1, as in the function of chapter 5.4.1; that of layers is the window's size. Padding is
    ignored: it is minus infinity for a maximum and excluded from an average (TensorFlow's rule), unless
    `count_include_pad` includes it as zeros. `ceil_mode` adds the last windows that extend over the end, if they start
    before it; what lies beyond the padding is always ignored. A maximum keeps the dtype, an average of integers is a
    float. Raises UsageError for an unknown mode, a window larger than the padded input, or padding as wide as the
    window.

    >>> pool2d(torch.arange(9.).reshape(3, 3), (2, 2), "avg")
    tensor([[2., 3.],
            [5., 6.]])
    """
    require_rank(X, "X", 2, None)
    if mode not in ("max", "avg"):
        raise unknown("pooling mode", mode, ("max", "avg"))
    (height, width), (kh, kw), (sh, sw) = X.shape[-2:], pair(window, "window"), pair(stride, "stride")
    top, bottom, left, right = given = resolve_map_padding(X, padding, window, stride)
    if ceil_mode:
        bottom, right = _reach(height, kh, sh, top, bottom), _reach(width, kw, sw, left, right)
    pads = top, bottom, left, right
    if not is_recorded() and (max(pads[:2]) >= kh or max(pads[2:]) >= kw):
        raise UsageError(f"padding {padding!r} must be smaller than the window {window!r}, or it may see only padding")

    def seen(X: Tensor, value: float) -> Tensor:  # ..., h, w, kh, kw
        return windows(surround(X, pads, value), window, stride)

    if mode == "max" and X.is_complex():
        raise UsageError(f"complex numbers have no maximum: X is {X.dtype}")
    if mode == "max" and X.dtype in (torch.uint16, torch.uint32):  # torch has no maximum of these
        return pool2d(X.long(), window, mode, stride, padding, ceil_mode=ceil_mode).to(X.dtype)
    if mode == "max":
        # the index of the maximum, unlike amax, gives ties to one element in the gradient, as F.max_pool2d does
        return seen(X, _lowest(X.dtype)).flatten(-2).max(-1).values
    if count_include_pad:
        X, pads = surround(X, given), (0, bottom - given[1], 0, right - given[3])

    def total(X: Tensor) -> Tensor:
        return seen(X, 0).sum((-2, -1), dtype=wide(X.dtype))

    return _average(X, total)


def adaptive_avg_pool2d(X: Tensor, size: Pair) -> Tensor:
    """Return the average of each cell of X (..., H, W) cut into `size` (h, w) cells; 1 is global (chapter 5.8).

    Cell i of k has the rows from floor(i H / k) up to ceil((i + 1) H / k): where k does not divide H, neighbours
    share a row. An average of integers is a float. Raises UsageError for other ranks and a size below 1.

    >>> adaptive_avg_pool2d(torch.arange(9.).reshape(3, 3), (1, 2))
    tensor([[3.5000, 4.5000]])
    """
    require_rank(X, "X", 2, None)
    h, w = pair(size, "size")

    def total(X: Tensor) -> Tensor:
        return _cells(_cells(X.to(wide(X.dtype)), -2, h), -1, w)

    return _average(X, total)


def _cells(X: Tensor, axis: int, count: int) -> Tensor:
    """Sum each of the `count` cells along one axis."""
    n = X.shape[axis]
    edges = [(i * n // count, -(-(i + 1) * n // count)) for i in range(count)]
    return torch.stack([X.narrow(axis, start, end - start).sum(axis) for start, end in edges], axis)


def _average(X: Tensor, total: Callable[[Tensor], Tensor]) -> Tensor:
    """Divide the totals of X by the number of elements in each, which is the total of ones."""
    average = total(exact(X)) / total(X.new_ones(X.shape[-2:], dtype=torch.int64))
    return average.to(X.dtype) if X.is_floating_point() else average


def _reach(n: int, k: int, s: int, before: int, after: int) -> int:
    """Return the padding after n elements that the last window needs, if it is to start among or before them."""
    last = s * min(-(-(n + before + after - k) // s), -(-(n + before) // s) - 1)
    return max(after, last + k - n - before)


def _lowest(dtype: torch.dtype) -> float:
    if dtype.is_floating_point:
        return float("-inf")
    return 0 if dtype == torch.bool else torch.iinfo(dtype).min
