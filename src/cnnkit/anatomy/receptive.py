"""Cumulative receptive fields: which input pixels one element of a feature map depends on (chapter 5.1.6)."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce

from torch import nn

from cnnkit.core.shape import Sides, padding_sides, pair
from cnnkit.ops import Conv2D, MultiChannelConv2D

__all__ = ["Receptive", "join", "through"]


@dataclass(frozen=True)
class Receptive:
    """The field of a feature map's elements, in input pixels, (vertical, horizontal).

    Element (i, j) sees rows start[0] + i * step[0] and the size[0] - 1 below it, columns likewise; the field may
    reach beyond the image into the padding. A step of 0 means that every element sees all of the image.
    """

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    start: tuple[int, int] = (0, 0)


def through(field: Receptive, layer: nn.Module, size: tuple[int, int]) -> Receptive:
    """Return the field behind `layer`, fed a feature map of `size`; one without a window leaves it as it is."""
    window = _window(layer, size)
    if window is None:
        return field
    kernel, stride, dilation, sides = window
    first = sides[0], sides[2]

    def grow(axis: int) -> tuple[int, int, int]:
        step = field.step[axis]
        return (
            field.size[axis] + (kernel[axis] - 1) * dilation[axis] * step,
            step * stride[axis],
            field.start[axis] - first[axis] * step,
        )

    sizes, steps, starts = zip(grow(0), grow(1), strict=True)
    return Receptive(sizes, steps, starts)


def join(fields: Sequence[Receptive]) -> Receptive:
    """Return the field of an element that is put together from branches over the same grid."""
    return reduce(_join, fields)


def _join(one: Receptive, other: Receptive) -> Receptive:
    def span(axis: int) -> tuple[int, int, int]:
        start = min(one.start[axis], other.start[axis])
        end = max(field.start[axis] + field.size[axis] for field in (one, other))
        return end - start, max(one.step[axis], other.step[axis]), start

    size, step, start = zip(span(0), span(1), strict=True)
    return Receptive(size, step, start)


def _window(
    layer: nn.Module, size: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int], tuple[int, int], Sides] | None:
    """Return the layer's kernel, stride, dilation and padding, if it slides a window."""
    if isinstance(layer, Conv2D | MultiChannelConv2D):
        kernel = layer.weight.shape[-2], layer.weight.shape[-1]
        stride, dilation = pair(layer.window["stride"], "stride"), pair(layer.window["dilation"], "dilation")
        padding = layer.window["padding"]
    elif isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        kernel, stride = pair(layer.kernel_size, "kernel_size"), pair(layer.stride, "stride")
        dilation = pair(getattr(layer, "dilation", 1), "dilation")
        padding = layer.padding
    else:
        return None
    return kernel, stride, dilation, padding_sides(padding, size, kernel, stride, dilation)
