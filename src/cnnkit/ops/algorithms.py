"""The three products of a convolution, each by several algorithms: the output, and the gradients of input and weight.

onednn   torch's own.
unfold   the windows as rows of a matrix, times the kernels: one matrix product (Chellapilla et al. 2006).
dense    the layer as one matrix from all input pixels to all output pixels: for maps of a few pixels.
winograd a fraction of the multiplications, for float32 and 3 x 3 or 5 x 5 kernels with stride 1; otherwise torch's.

Maps are N x C x H x W with channels-last strides. In half precision a weight gradient may be float32.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkit.core.shape import Pads
from cnnkit.ops import winograd
from cnnkit.ops.same import padded_conv2d

__all__ = ["INPUT", "OUTPUT", "WEIGHT", "Algorithm", "Window"]

Algorithm = Literal["onednn", "unfold", "dense", "winograd"]


@dataclass(frozen=True)
class Window:
    """How a kernel of kh x kw slides over a map: strides, and zero padding at the top, bottom, left and right."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    pads: Pads

    def output(self, x: Tensor) -> tuple[int, int]:
        """Return the height and width of the output."""
        top, bottom, left, right = self.pads
        height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
        return (height - self.kernel[0]) // self.stride[0] + 1, (width - self.kernel[1]) // self.stride[1] + 1

    @property
    def is_pixel(self) -> bool:
        """Whether the kernel is a single pixel, and the map is not padded."""
        return self.kernel == (1, 1) and not any(self.pads)


def _output(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    return padded_conv2d(x, weight, bias, window.stride, window.pads)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: list[bool]) -> tuple[Tensor, Tensor]:
    """Return torch's gradients of input and weight."""
    top, bottom, left, right = window.pads
    symmetric = (top, left) == (bottom, right)
    if not symmetric:
        x = F.pad(x, (left, right, top, bottom))
    pad = (top, left) if symmetric else (0, 0)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, window.stride, pad, (1, 1), False, (0, 0), 1, [*wanted, False]
    )
    if wanted[0] and not symmetric:
        dx = dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]
    return dx, dw


def _input_gradient(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    return _gradients(dy, x, weight, window, [True, False])[0]


def _onednn_weight(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    return _gradients(dy, x, weight, window, [False, True])[1]


def _rows(maps: Tensor) -> Tensor:
    """Return N x C x H x W as a matrix with a row per pixel: a view of channels-last maps."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """Return the maps N x C x H x W of `_rows`, with channels-last strides."""
    return rows.view(batch, *size, -1).permute(0, 3, 1, 2)


def _windows(x: Tensor, window: Window) -> Tensor:
    """Return a matrix with a row of kh * kw * C values per window."""
    (kh, kw), (sh, sw), (top, bottom, left, right) = window.kernel, window.stride, window.pads
    if window.is_pixel:
        return _rows(x[:, :, ::sh, ::sw])
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom)).contiguous()
    n, _, columns, channels = x.shape
    image, row, pixel, _ = x.stride()
    rows = (x.shape[1] - kh) // sh + 1
    shape = (n, rows, (columns - kw) // sw + 1, kh, kw, channels)
    return x.as_strided(shape, (image, sh * row, sw * pixel, row, pixel, 1)).reshape(-1, kh * kw * channels)


def _unfolded(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    rows = F.linear(_windows(x, window), _kernel_rows(weight), bias)
    return _maps(rows, len(x), window.output(x))


def _kernel_rows(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _unfolded_input(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Compute the gradient of each window, and sum where windows overlap, in at least float32."""
    (kh, kw), (sh, sw), (top, bottom, left, right) = window.kernel, window.stride, window.pads
    parts = _rows(dy) @ _kernel_rows(weight)
    if window.is_pixel and window.stride == (1, 1):
        return _maps(parts, len(x), (x.shape[2], x.shape[3]))
    n, channels, height, width = x.shape
    rows, columns = dy.shape[2:]
    parts = parts.view(n, rows, columns, kh, kw, channels)
    overlap = kh > sh or kw > sw
    dtype = torch.promote_types(dy.dtype, torch.float32) if overlap else dy.dtype
    sums = torch.zeros(n, height + top + bottom, width + left + right, channels, dtype=dtype, device=dy.device)
    for i in range(kh):
        for j in range(kw):
            below, right_of = i + sh * (rows - 1) + 1, j + sw * (columns - 1) + 1
            sums[:, i:below:sh, j:right_of:sw] += parts[:, :, :, i, j]
    return sums[:, top : top + height, left : left + width].permute(0, 3, 1, 2).to(dy.dtype)


def _unfolded_weight(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    flat = _rows(dy).t() @ _windows(x, window)
    return flat.view(len(weight), *window.kernel, -1).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _taps(window: Window, size: tuple[int, int], output: tuple[int, int]) -> Tensor:
    """Return the kernel tap that connects each output pixel to each input pixel: int64, output pixels x input pixels.

    Without a connection, it is the number after the last tap.
    """
    (kh, kw), (sh, sw), (top, _, left, _) = window.kernel, window.stride, window.pads
    rows = torch.arange(size[0])[None] - sh * torch.arange(output[0])[:, None] + top
    columns = torch.arange(size[1])[None] - sw * torch.arange(output[1])[:, None] + left
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    inside = (rows >= 0) & (rows < kh) & (columns >= 0) & (columns < kw)
    return torch.where(inside, rows * kw + columns, kh * kw).view(output[0] * output[1], -1)


def _taps_for(x: Tensor, window: Window) -> tuple[Tensor, int]:
    """Return the taps for maps like x, and their number: with one of zeros if there are pixels without a connection."""
    taps = _taps(window, (x.shape[2], x.shape[3]), window.output(x))
    own = window.kernel[0] * window.kernel[1]
    return taps.to(x.device), max(own, int(taps.max()) + 1)


def _matrix(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Return the layer as a matrix: (output pixels * O) x (input pixels * C)."""
    taps, needed = _taps_for(x, window)
    outputs, channels = weight.shape[:2]
    kernels = weight.permute(0, 2, 3, 1).reshape(outputs, -1, channels)
    if needed > kernels.shape[1]:
        kernels = F.pad(kernels, (0, 0, 0, 1))
    matrix = kernels.new_empty(len(taps), outputs, taps.shape[1], channels)
    for part, row in zip(matrix, taps, strict=True):
        torch.index_select(kernels, 1, row, out=part)
    return matrix.view(len(taps) * outputs, -1)


def _dense(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    output = window.output(x)
    bias = None if bias is None else bias.repeat(output[0] * output[1])
    return _maps(F.linear(_rows(x).view(len(x), -1), _matrix(x, weight, window), bias), len(x), output)


def _dense_input(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    rows = _rows(dy).view(len(x), -1) @ _matrix(x, weight, window)
    return _maps(rows, len(x), (x.shape[2], x.shape[3]))


def _dense_weight(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Sum, in at least float32, what all pairs of pixels contribute to each tap; the result keeps that type."""
    taps, needed = _taps_for(x, window)
    outputs, channels = weight.shape[:2]
    pairs = _rows(dy).view(len(x), -1).t() @ _rows(x).view(len(x), -1)
    dtype = torch.promote_types(dy.dtype, torch.float32)
    sums = torch.zeros(outputs, needed, channels, dtype=dtype, device=dy.device)
    for part, row in zip(pairs.view(len(taps), outputs, -1, channels), taps, strict=True):
        sums.index_add_(1, row, part.to(dtype))
    own = sums[:, : window.kernel[0] * window.kernel[1]]
    return own.reshape(outputs, *window.kernel, channels).permute(0, 3, 1, 2)


def _winograd(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    if not winograd.is_supported(x, weight, window.stride):
        return _output(x, weight, bias, window)
    return winograd.correlate(x, weight, bias, window.pads)


def _winograd_input(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    if not winograd.is_supported(x, weight, window.stride):
        return _input_gradient(dy, x, weight, window)
    return winograd.input_gradient(dy, weight, window.pads, (x.shape[2], x.shape[3]))


def _winograd_weight(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    if not winograd.is_supported(x, weight, window.stride):
        return _onednn_weight(dy, x, weight, window)
    return winograd.weight_gradient(dy, x, window.pads, window.kernel[0])


OUTPUT: dict[Algorithm, Callable[[Tensor, Tensor, Tensor | None, Window], Tensor]] = {
    "onednn": _output,
    "unfold": _unfolded,
    "dense": _dense,
    "winograd": _winograd,
}
Gradient = Callable[[Tensor, Tensor, Tensor, Window], Tensor]
INPUT: dict[Algorithm, Gradient] = {
    "onednn": _input_gradient,
    "unfold": _unfolded_input,
    "dense": _dense_input,
    "winograd": _winograd_input,
}
WEIGHT: dict[Algorithm, Gradient] = {
    "onednn": _onednn_weight,
    "unfold": _unfolded_weight,
    "dense": _dense_weight,
    "winograd": _winograd_weight,
}
