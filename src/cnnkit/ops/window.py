"""The sliding window, on which correlation, convolution and pooling are built (chapter 5.1.1, 5.2)."""

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.core.modes import is_recorded
from cnnkit.core.shape import Padding, Pads, Pair, output_size, pair, resolve_padding
from cnnkit.ops.same import same_pads

__all__ = ["exact", "pad", "require_rank", "resolve_map_padding", "surround", "wide", "windows"]


def windows(X: Tensor, kernel: Pair, stride: Pair = 1, dilation: Pair = 1) -> Tensor:
    """Return every window of X in sliding order, as a view.

    X is (..., H, W), the result (..., h, w, kh, kw) with h x w = `output_size((H, W), kernel, ...)`.
    Raises UsageError if the window is larger than X.
    """
    require_rank(X, "X", 2, None)
    if not is_recorded():
        output_size((X.shape[-2], X.shape[-1]), kernel, stride, 0, dilation)
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel, "kernel"), pair(stride, "stride"), pair(dilation, "dilation")
    view = X.unfold(-2, dh * (kh - 1) + 1, sh)  # ..., h, W, span
    view = view.unfold(-2, dw * (kw - 1) + 1, sw)  # ..., h, w, span, span
    return view[..., ::dh, ::dw]


def pad(X: Tensor, padding: Padding, kernel: Pair, stride: Pair = 1, dilation: Pair = 1, value: float = 0) -> Tensor:
    """Return X (..., H, W) with `value` around it; `padding` as in `cnnkit.core.shape.resolve_padding`.

    Raises UsageError if the window does not fit the padded input.
    """
    pads = resolve_map_padding(X, padding, kernel, stride, dilation)
    if not is_recorded():
        output_size((X.shape[-2], X.shape[-1]), kernel, stride, pads, dilation)
    return surround(X, pads, value)


def surround(X: Tensor, pads: Pads, value: float = 0) -> Tensor:
    """Return X (..., H, W) with rows and columns of `value` at its top, bottom, left and right."""
    top, bottom, left, right = pads
    return F.pad(X, (left, right, top, bottom), value=value) if is_recorded() or any(pads) else X


def resolve_map_padding(X: Tensor, padding: Padding, kernel: Pair, stride: Pair = 1, dilation: Pair = 1) -> Pads:
    """Return the rows and columns that `padding` adds to X (..., H, W), as `cnnkit.core.shape.resolve_padding` does."""
    if padding == "same":
        return same_pads(X, kernel, stride, dilation)
    return resolve_padding(padding, 1, kernel, stride, dilation)  # for any size


def require_rank(tensor: Tensor, name: str, low: int, high: int | None) -> None:
    """Raise UsageError unless `tensor` has between `low` and `high` dimensions."""
    if tensor.ndim < low or (high is not None and tensor.ndim > high):
        ranks = f"{low}" if high == low else f"at least {low}" if high is None else f"{low} to {high}"
        raise UsageError(f"{name} must have {ranks} dimensions, not {tensor.ndim}: {tuple(tensor.shape)}")


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the type to sum in: float32 for the half types, whose sums and squares overflow."""
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def exact(X: Tensor) -> Tensor:
    """Return integers as int64, so that products and sums neither round nor overflow in a narrow type."""
    return X if X.is_floating_point() or X.is_complex() else X.long()
