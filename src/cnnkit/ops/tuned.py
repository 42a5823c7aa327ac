"""A convolution whose output and two gradients are each computed by a chosen algorithm.

cuDNN chooses among algorithms by benchmarks; on a CPU torch has oneDNN's only, which is slow for small maps.
"""

from dataclasses import replace
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from cnnkit.core.modes import is_recorded
from cnnkit.core.modules import unwrapped
from cnnkit.ops import winograd
from cnnkit.ops.algorithms import INPUT, OUTPUT, WEIGHT, Algorithm, Window
from cnnkit.ops.same import SameConv2d, same_maps

__all__ = ["Algorithms", "TunedConv2d", "possible", "tune"]

LARGEST_UNFOLDED = 256  # output pixels; larger maps have enough work for oneDNN, and their windows take memory
FEW = 16  # channels that oneDNN's kernels compute at a time, on some processors
LARGEST_DENSE = 36  # pairs of an output pixel and an input pixel
SMALLEST_TILED = 9  # output pixels: a tile


class Algorithms(NamedTuple):
    """The algorithms of the output, the input gradient and the weight gradient."""

    output: Algorithm = "onednn"
    input: Algorithm = "onednn"
    weight: Algorithm = "onednn"


PLAIN = Algorithms()


class TunedConv2d(nn.Conv2d):
    """`nn.Conv2d` with the same results, faster: by `algorithms` in training, by `prediction` without gradients.

    They can be set at any time. While torch compiles, exports or traces it, it computes as torch's layer. Created by
    `tune`.
    """

    algorithms = PLAIN
    prediction: Algorithm = "onednn"
    same = False  # whether it pads as TensorFlow does

    def slide(self, x: Tensor) -> tuple[Tensor, Window]:
        """Return the maps of x, N x C x H x W, to correlate and how the kernel slides over them.

        Pixels that a 1 x 1 kernel with few channels strides over are removed: oneDNN's gradient of such kernels writes
        beyond its memory (oneDNN issue 6035).
        """
        if self.same:
            x, pads = same_maps(x, cast(Any, self.kernel_size), cast(Any, self.stride))
        else:
            rows, columns = cast(tuple[int, int], self.padding)
            pads = (rows, rows, columns, columns)
        window = Window(cast(tuple[int, int], self.kernel_size), cast(tuple[int, int], self.stride), pads)
        sh, sw = window.stride
        if window.is_pixel and window.stride != (1, 1) and self.in_channels < FEW and torch.is_grad_enabled():
            return x[:, :, ::sh, ::sw], replace(window, stride=(1, 1))
        return x, window

    def forward(self, input: Tensor) -> Tensor:
        """Correlate N x C x H x W with the kernels: N x O x H' x W'."""
        input, window = self.slide(input)
        plain = is_recorded() or (torch.is_grad_enabled() and self.algorithms == PLAIN)
        if plain or not torch.is_grad_enabled():
            return OUTPUT["onednn" if plain else self.prediction](input, self.weight, self.bias, window)
        kind = input.device.type
        x = input.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else input
        return cast(Tensor, _Convolution.apply(x, self.weight, self.bias, window, self.algorithms))  # type: ignore[no-untyped-call]


def tune(net: nn.Module) -> dict[str, TunedConv2d]:
    """Turn the convolutions inside `net` that have a choice of algorithms into tuned ones; return all tuned ones.

    Names, weights and results do not change. Grouped and dilated layers, those with other padding modes, and those of
    other classes are left alone.
    """
    net = unwrapped(net)
    for name, layer in list(net.named_modules()):
        if type(layer) in (nn.Conv2d, SameConv2d) and name and _has_choice(layer):
            parent, _, own = name.rpartition(".")
            setattr(net.get_submodule(parent), own, _tuned(layer))
    return {name: layer for name, layer in net.named_modules() if isinstance(layer, TunedConv2d)}


def possible(window: Window, x: Tensor, weight: Tensor) -> tuple[Algorithm, ...]:
    """Return the algorithms worth a benchmark for maps like x, N x C x H x W, and a weight like this."""
    pixels = x.shape[2] * x.shape[3]
    outputs = window.output(x)[0] * window.output(x)[1]
    found: list[Algorithm] = ["onednn"]
    if x.shape[1] > 1 and outputs <= LARGEST_UNFOLDED:
        found.append("unfold")
    if not window.is_pixel and pixels * outputs <= LARGEST_DENSE:
        found.append("dense")
    if outputs >= SMALLEST_TILED and winograd.is_supported(x, weight, window.stride):
        found.append("winograd")
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
    """The three products of a convolution in the precision of its input, each by its own algorithm."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, window: Window, algorithms: Algorithms
    ) -> Tensor:
        weight, bias = weight.to(x.dtype), None if bias is None else bias.to(x.dtype)
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
        dw = WEIGHT[algorithms.weight](dy, x, weight, window) if wanted[1] else None
        db = dy.sum((0, 2, 3)) if has_bias and wanted[2] else None
        return dx, dw, db, None, None
