"""Cumulative receptive fields: which input pixels one element of a feature map depends on (chapter 5.1.6)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import Sides, padding_sides, pair
from cnnkit.ops import AdaptiveAvgPool2D, Conv2D, MultiChannelConv2D, Pool2D

__all__ = ["Receptive", "behind", "join"]

Operator = nn.Module | Callable[..., Any] | str  # as in a graph of torch.fx: a layer, a function or a method's name

ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, AdaptiveAvgPool2D)
REDUCTIONS = (F.adaptive_avg_pool2d, F.adaptive_max_pool2d, torch.mean, torch.amax, "mean", "amax")
POOL = ("input", "kernel_size", "stride", "padding")
FUNCTIONS: dict[Operator, tuple[str, ...]] = {  # what torch calls their arguments, in order
    F.conv2d: ("input", "weight", "bias", "stride", "padding", "dilation"),
    F.max_pool2d: (*POOL, "dilation"),
    torch.max_pool2d: (*POOL, "dilation"),
    F.avg_pool2d: POOL,
    F.pad: ("input", "pad"),
}


@dataclass(frozen=True)
class Receptive:
    """The field of a feature map's elements, in input pixels, (vertical, horizontal).

    Element (i, j) sees rows start[0] + i * step[0] and the size[0] - 1 below it, columns likewise; the field may
    reach beyond the image into the padding. A step of 0 means that every element sees all of the image.
    """

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    start: tuple[int, int] = (0, 0)


class _Window(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    sides: Sides = (0, 0, 0, 0)  # top, bottom, left, right


def behind(
    operator: Operator,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    field: Receptive,
    before: tuple[int, int],
    after: tuple[int, int],
) -> Receptive | None:
    """Return the field behind an operator that makes maps of size `after` from maps of size `before`.

    None means all of the image. Raises UsageError if the operator moves pixels in a way that is not understood.
    """
    if field.step == (0, 0):
        return field
    if before != after and (isinstance(operator, ADAPTIVE) or operator in REDUCTIONS):
        window = _cells(before, after)
        return window and _through(field, window)
    if window := _window(_arguments(operator, args, kwargs), before):
        return _through(field, window)
    if before == after and not isinstance(operator, nn.ConvTranspose2d):
        return field
    name = type(operator).__name__ if isinstance(operator, nn.Module) else getattr(operator, "__name__", operator)
    raise UsageError(f"the receptive field behind {name} is not known: it resizes without a window")


def join(fields: Sequence[Receptive]) -> Receptive:
    """Return the field of an element that is put together from branches over the same grid."""
    return reduce(_join, fields)


def _join(one: Receptive, other: Receptive) -> Receptive:
    for field in (one, other):
        if field.step == (0, 0):
            return field

    def span(axis: int) -> tuple[int, int, int]:
        start = min(one.start[axis], other.start[axis])
        end = max(field.start[axis] + field.size[axis] for field in (one, other))
        return end - start, max(one.step[axis], other.step[axis]), start

    return Receptive(*zip(span(0), span(1), strict=True))


def _through(field: Receptive, window: _Window) -> Receptive:
    first = window.sides[0], window.sides[2]

    def grow(axis: int) -> tuple[int, int, int]:
        step = field.step[axis]
        return (
            field.size[axis] + (window.kernel[axis] - 1) * window.dilation[axis] * step,
            step * window.stride[axis],
            field.start[axis] - first[axis] * step,
        )

    return Receptive(*zip(grow(0), grow(1), strict=True))


def _cells(before: tuple[int, int], after: tuple[int, int]) -> _Window | None:
    """Return the window of an adaptive pooling, if its cells are even and do not see all of the map."""
    if after == (1, 1) or before[0] % after[0] or before[1] % after[1]:
        return None
    cell = before[0] // after[0], before[1] // after[1]
    return _Window(cell, cell)


def _arguments(operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of an operator that slides a window or pads, as torch calls them; of others nothing."""
    if isinstance(operator, nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d):
        return vars(operator)
    if isinstance(operator, Conv2D | MultiChannelConv2D):
        return {"weight": operator.weight, **operator.window}
    if isinstance(operator, Pool2D):
        return {"kernel_size": operator.how["window"], **operator.how}
    if isinstance(operator, nn.ZeroPad2d | nn.ConstantPad2d):
        return {"pad": operator.padding}
    if not isinstance(operator, nn.Module) and operator in FUNCTIONS:
        return dict(zip(FUNCTIONS[operator], args, strict=False)) | dict(kwargs)
    return {}


def _window(arguments: Mapping[str, Any], size: tuple[int, int]) -> _Window | None:
    if pad := arguments.get("pad"):
        left, right, top, bottom = (*pad, 0, 0)[:4]
        return _Window((1, 1), sides=(top, bottom, left, right))
    kernel = arguments["weight"].shape[-2:] if "weight" in arguments else arguments.get("kernel_size")
    if kernel is None:
        return None
    kernel = pair(kernel, "kernel_size")
    default = 1 if "weight" in arguments else kernel
    stride = pair(arguments.get("stride") or default, "stride")
    dilation = pair(arguments.get("dilation", 1), "dilation")
    return _Window(kernel, stride, dilation, padding_sides(arguments.get("padding", 0), size, kernel, stride, dilation))
