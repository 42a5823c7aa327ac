"""A convolution whose output and two gradients are computed each by the algorithm that is told.

cuDNN chooses among algorithms by trying them; on a CPU torch has oneDNN's alone, which is slow where maps are small.
Here are two more, for channels-last maps:

onednn   torch's own.
unfold   the windows as the rows of a matrix, times the kernels: one matrix product (Chellapilla et al. 2006).
dense    the layer as one matrix from all of a map's pixels to all of its output's: for maps of a few pixels.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Literal, NamedTuple, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.shape import Sides
from cnnkit.ops.same import SameConv2d, same_sides

__all__ = ["INPUT", "KERNELS", "OUTPUT", "Algorithm", "Algorithms", "TunedConv2d", "Window", "possible", "tune"]

Algorithm = Literal["onednn", "unfold", "dense"]
LARGEST_UNFOLDED = 256  # pixels of the output; larger maps have enough work for oneDNN, and their windows take memory
LARGEST_DENSE = 36  # pairs of an output's and an input's pixel


class Algorithms(NamedTuple):
    """What computes the output, the gradient of the input, and that of the kernels."""

    output: Algorithm = "onednn"
    input: Algorithm = "onednn"
    kernels: Algorithm = "onednn"


PLAIN = Algorithms()


@dataclass(frozen=True)
class Window:
    """How a kernel of kh x kw slides over a map: strides, and zeros at its top, bottom, left and right."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    sides: Sides

    def output(self, x: Tensor) -> tuple[int, int]:
        """Return the output's rows and columns."""
        top, bottom, left, right = self.sides
        height, width = x.shape[2] + top + bottom, x.shape[3] + left + right
        return (height - self.kernel[0]) // self.stride[0] + 1, (width - self.kernel[1]) // self.stride[1] + 1

    @property
    def is_pixel(self) -> bool:
        """Whether it is a single pixel, and the map is not padded."""
        return self.kernel == (1, 1) and not any(self.sides)


class TunedConv2d(nn.Conv2d):
    """`nn.Conv2d`, the same but in speed: `algorithms` are those of training, and can be set at any time.

    Without gradients, compiled or exported it is torch's own layer. `tune` makes it of one.
    """

    algorithms = PLAIN
    same = False  # pads as TensorFlow does

    def window(self, x: Tensor) -> Window:
        """Return how the kernel slides over maps like x, N x C x H x W."""
        if self.same:
            sides = same_sides(self, x)
        else:
            rows, columns = cast(tuple[int, int], self.padding)
            sides = (rows, rows, columns, columns)
        return Window(cast(tuple[int, int], self.kernel_size), cast(tuple[int, int], self.stride), sides)

    def forward(self, input: Tensor) -> Tensor:
        """Correlate N x C x H x W with the kernels: N x O x H' x W'."""
        window = self.window(input)
        if self.algorithms == PLAIN or not torch.is_grad_enabled() or torch.compiler.is_compiling():
            return _correlate(input, self.weight, self.bias, window)
        x, weight, bias = input, self.weight, self.bias
        kind = x.device.type
        if torch.is_autocast_enabled(kind):
            dtype = torch.get_autocast_dtype(kind)
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        return cast(Tensor, _Convolution.apply(x, weight, bias, window, self.algorithms))  # type: ignore[no-untyped-call]


def tune(net: nn.Module) -> dict[str, TunedConv2d]:
    """Turn the convolutions inside `net` that have a choice into tuned ones, with the same weights; return all such.

    Names, weights and results are as before. Grouped, dilated and otherwise padded layers, and those of other
    classes, stay as they are.
    """
    for name, layer in list(net.named_modules()):
        if type(layer) in (nn.Conv2d, SameConv2d) and name and _has_choice(layer):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, _tuned(layer))
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, TunedConv2d)}


def possible(window: Window, x: Tensor) -> tuple[Algorithm, ...]:
    """Return the algorithms worth a try for maps like x, N x C x H x W."""
    pixels = x.shape[2] * x.shape[3]
    outputs = window.output(x)[0] * window.output(x)[1]
    found: list[Algorithm] = ["onednn"]
    if x.shape[1] > 1 and outputs <= LARGEST_UNFOLDED:
        found.append("unfold")
    if not window.is_pixel and pixels * outputs <= LARGEST_DENSE:
        found.append("dense")
    return tuple(found)


def _has_choice(layer: nn.Module) -> bool:
    assert isinstance(layer, nn.Conv2d)
    plain = layer.groups == 1 and layer.dilation == (1, 1) and layer.padding_mode == "zeros"
    return plain and (isinstance(layer, SameConv2d) or not isinstance(layer.padding, str))


def _tuned(layer: nn.Module) -> TunedConv2d:
    tuned = TunedConv2d.__new__(TunedConv2d)
    tuned.__dict__ = layer.__dict__
    tuned.same = isinstance(layer, SameConv2d)
    return tuned


class _Convolution(torch.autograd.Function):
    """The three products of a convolution, each by its own algorithm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, algorithms: Algorithms
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.rest = window, algorithms, bias is not None
        return OUTPUT[algorithms.output](x, weight, bias, window)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        window, algorithms, has_bias = ctx.rest
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        wanted = ctx.needs_input_grad
        dx = INPUT[algorithms.input](dy, x, weight, window) if wanted[0] else None
        dw = KERNELS[algorithms.kernels](dy, x, weight, window) if wanted[1] else None
        db = dy.sum((0, 2, 3)) if has_bias and wanted[2] else None
        return dx, dw, db, None, None


def _correlate(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    top, bottom, left, right = window.sides
    if (top, left) == (bottom, right):
        return F.conv2d(x, weight, bias, window.stride, (top, left))
    return F.conv2d(F.pad(x, (left, right, top, bottom)), weight, bias, window.stride)


def _gradients(dy: Tensor, x: Tensor, weight: Tensor, window: Window, wanted: list[bool]) -> tuple[Tensor, Tensor]:
    """Return torch's gradients of input and kernels."""
    top, bottom, left, right = window.sides
    even = (top, left) == (bottom, right)
    if not even:
        x = F.pad(x, (left, right, top, bottom))
    pad = (top, left) if even else (0, 0)
    dx, dw, _ = torch.ops.aten.convolution_backward(
        dy, x, weight, None, window.stride, pad, (1, 1), False, (0, 0), 1, [*wanted, False]
    )
    if wanted[0] and not even:
        dx = dx[:, :, top : dx.shape[2] - bottom, left : dx.shape[3] - right]
    return dx, dw


def _input_gradient(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    return _gradients(dy, x, weight, window, [True, False])[0]


def _kernels_gradient(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    return _gradients(dy, x, weight, window, [False, True])[1]


def _rows(maps: Tensor) -> Tensor:
    """Return N x C x H x W as a matrix with a row for each pixel; of channels-last maps it is a view."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, batch: int, size: tuple[int, int]) -> Tensor:
    """Return what `_rows` takes, with channels-last strides."""
    return rows.view(batch, *size, -1).permute(0, 3, 1, 2)


def _windows(x: Tensor, window: Window) -> Tensor:
    """Return a matrix with a row for each window: kh * kw * C."""
    (kh, kw), (down, along), (top, bottom, left, right) = window.kernel, window.stride, window.sides
    if window.is_pixel:
        return _rows(x[:, :, ::down, ::along])
    x = F.pad(x.permute(0, 2, 3, 1), (0, 0, left, right, top, bottom)).contiguous()
    n, _, columns, channels = x.shape
    image, row, pixel, _ = x.stride()
    rows = (x.shape[1] - kh) // down + 1
    places = (n, rows, (columns - kw) // along + 1, kh, kw, channels)
    return x.as_strided(places, (image, down * row, along * pixel, row, pixel, 1)).reshape(-1, kh * kw * channels)


def _unfolded(x: Tensor, weight: Tensor, bias: Tensor | None, window: Window) -> Tensor:
    rows = F.linear(_windows(x, window), _kernel_rows(weight), bias)
    return _maps(rows, len(x), window.output(x))


def _kernel_rows(weight: Tensor) -> Tensor:
    return weight.permute(0, 2, 3, 1).reshape(len(weight), -1)


def _unfolded_input(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Give each window its share, and add up what overlaps, in float32."""
    (kh, kw), (down, along), (top, bottom, left, right) = window.kernel, window.stride, window.sides
    shares = _rows(dy) @ _kernel_rows(weight)
    if window.is_pixel and window.stride == (1, 1):
        return _maps(shares, len(x), (x.shape[2], x.shape[3]))
    n, channels, height, width = x.shape
    rows, columns = dy.shape[2:]
    shares = shares.view(n, rows, columns, kh, kw, channels)
    overlap = kh > down or kw > along
    dtype = torch.promote_types(dy.dtype, torch.float32) if overlap else dy.dtype
    sums = torch.zeros(n, height + top + bottom, width + left + right, channels, dtype=dtype, device=dy.device)
    for i in range(kh):
        for j in range(kw):
            below, right_of = i + down * (rows - 1) + 1, j + along * (columns - 1) + 1
            sums[:, i:below:down, j:right_of:along] += shares[:, :, :, i, j]
    return sums[:, top : top + height, left : left + width].permute(0, 3, 1, 2).to(dy.dtype)


def _unfolded_kernels(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    flat = _rows(dy).t() @ _windows(x, window)
    return flat.view(len(weight), *window.kernel, -1).permute(0, 3, 1, 2)


@lru_cache(maxsize=64)
def _taps(window: Window, size: tuple[int, int], output: tuple[int, int]) -> Tensor:
    """Return which of the kernel's taps lies between each output's pixel and each input's: outputs x pixels, int64.

    Where none does, it is the one behind the last.
    """
    (kh, kw), (down, along), (top, _, left, _) = window.kernel, window.stride, window.sides
    rows = torch.arange(size[0])[None] - down * torch.arange(output[0])[:, None] + top
    columns = torch.arange(size[1])[None] - along * torch.arange(output[1])[:, None] + left
    rows, columns = rows[:, None, :, None], columns[None, :, None, :]
    inside = (rows >= 0) & (rows < kh) & (columns >= 0) & (columns < kw)
    return torch.where(inside, rows * kw + columns, kh * kw).view(output[0] * output[1], -1)


def _between(x: Tensor, window: Window) -> Tensor:
    return _taps(window, (x.shape[2], x.shape[3]), window.output(x)).to(x.device)


def _matrix(x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Return the layer as a matrix: outputs * O x pixels * C."""
    taps = _between(x, window)
    outputs, channels = weight.shape[:2]
    kernels = F.pad(weight.permute(0, 2, 3, 1).reshape(outputs, -1, channels), (0, 0, 0, 1))  # a tap of zeros
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


def _dense_kernels(dy: Tensor, x: Tensor, weight: Tensor, window: Window) -> Tensor:
    """Add up, in float32, what all pairs of pixels give to each tap."""
    taps = _between(x, window)
    outputs, channels = weight.shape[:2]
    pairs = _rows(dy).view(len(x), -1).t() @ _rows(x).view(len(x), -1)
    dtype = torch.promote_types(dy.dtype, torch.float32)
    sums = torch.zeros(outputs, window.kernel[0] * window.kernel[1] + 1, channels, dtype=dtype, device=dy.device)
    for part, row in zip(pairs.view(len(taps), outputs, -1, channels), taps, strict=True):
        sums.index_add_(1, row, part.to(dtype))
    return sums[:, :-1].to(dy.dtype).reshape(outputs, *window.kernel, channels).permute(0, 3, 1, 2)


OUTPUT: dict[Algorithm, Callable[[Tensor, Tensor, Tensor | None, Window], Tensor]] = {
    "onednn": _correlate,
    "unfold": _unfolded,
    "dense": _dense,
}
Gradient = Callable[[Tensor, Tensor, Tensor, Window], Tensor]
INPUT: dict[Algorithm, Gradient] = {
    "onednn": _input_gradient,
    "unfold": _unfolded_input,
    "dense": _dense_input,
}
KERNELS: dict[Algorithm, Gradient] = {
    "onednn": _kernels_gradient,
    "unfold": _unfolded_kernels,
    "dense": _dense_kernels,
}
