"""Two-dimensional cross-correlation and convolution, one channel to many (chapter 5.1, 5.3)."""

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import Padding, Pair
from cnnkit.ops.window import exact, pad, require_rank, windows

__all__ = ["conv2d", "corr2d", "corr2d_1x1", "corr2d_multi_in", "corr2d_multi_in_out"]


def corr2d(X: Tensor, K: Tensor, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1) -> Tensor:
    """Slide the kernel K (kh, kw) over X (H, W): the sum of products in each window (chapter 5.1.1).

    Returns (h, w); integers in, int64 out. `padding` is an int, a pair, four pads (top, bottom, left,
    right), "valid" or "same" (TensorFlow's). Raises UsageError for other ranks, strides or dilations below
    1, and a kernel larger than the padded input.

    >>> corr2d(torch.arange(9).reshape(3, 3), torch.tensor([[0, 1], [2, 3]]))
    tensor([[19, 25],
            [37, 43]])
    """
    require_rank(X, "X", 2, 2)
    require_rank(K, "K", 2, 2)
    return _slide(X, K, stride, padding, dilation)


def conv2d(X: Tensor, K: Tensor, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1) -> Tensor:
    """Convolve as mathematics does: `corr2d` with the kernel flipped both ways (chapter 5.1.5)."""
    require_rank(K, "K", 2, 2)
    return corr2d(X, K.flip(-2, -1), stride, padding, dilation)


def corr2d_multi_in(X: Tensor, K: Tensor, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1) -> Tensor:
    """Correlate each channel of X (C, H, W) with its own kernel of K (C, kh, kw) and sum (chapter 5.3.1).

    X may carry a batch in front; returns (h, w) or (N, h, w). Raises UsageError also if the channels differ.
    """
    require_rank(X, "X", 3, 4)
    require_rank(K, "K", 3, 3)
    _require_channels(X, K.shape[0], K)
    return _slide(X, K, stride, padding, dilation).sum(-3)


def corr2d_multi_in_out(X: Tensor, K: Tensor, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1) -> Tensor:
    """Stack one `corr2d_multi_in` for each output channel of K (O, C, kh, kw) (chapter 5.3.2).

    X is (C, H, W) or (N, C, H, W); returns (O, h, w) or (N, O, h, w).
    """
    require_rank(X, "X", 3, 4)
    require_rank(K, "K", 4, 4)
    _require_channels(X, K.shape[1], K)
    if not len(K):
        raise UsageError(f"K must have at least one output channel, not {tuple(K.shape)}")
    return torch.stack([corr2d_multi_in(X, kernel, stride, padding, dilation) for kernel in K], dim=-3)


def corr2d_1x1(X: Tensor, K: Tensor) -> Tensor:
    """Correlate X (C, H, W) or (N, C, H, W) with 1x1 kernels K (O, C, 1, 1) as a matrix product (chapter 5.3.3).

    Each pixel's channels are a vector that one dense layer maps to O values; returns (O, H, W), batch in front.
    """
    require_rank(X, "X", 3, 4)
    require_rank(K, "K", 4, 4)
    _require_channels(X, K.shape[1], K)
    if K.shape[-2:] != (1, 1):
        raise UsageError(f"K must be (O, C, 1, 1), not {tuple(K.shape)}; use corr2d_multi_in_out")
    dtype = torch.promote_types(exact(X).dtype, exact(K).dtype)
    pixels, weights = X.to(dtype).flatten(-2), K.to(dtype).flatten(1)  # (N,) C, H * W and O, C
    if dtype.is_floating_point or dtype.is_complex:
        mixed = weights @ pixels  # (N,) O, H * W
    else:  # not every device multiplies matrices of integers
        mixed = (weights[..., None] * pixels[..., None, :, :]).sum(-2)
    return mixed.reshape(*mixed.shape[:-1], *X.shape[-2:])


def _slide(X: Tensor, K: Tensor, stride: Pair, padding: Padding, dilation: Pair) -> Tensor:
    """Correlate X (..., H, W) with K (..., kh, kw), whose leading dimensions broadcast."""
    X, K = exact(X), exact(K)
    kernel = int(K.shape[-2]), int(K.shape[-1])  # integers, even while torch traces
    seen = windows(pad(X, padding, kernel, stride, dilation), kernel, stride, dilation)
    return (seen * K[..., None, None, :, :]).sum((-2, -1))


def _require_channels(X: Tensor, channels: int, K: Tensor) -> None:
    if X.shape[-3] != channels:
        raise UsageError(
            f"X has {X.shape[-3]} channels and K is for {channels}: X {tuple(X.shape)}, K {tuple(K.shape)}"
        )
