"""Cumulative receptive fields: the input pixels that one element of a feature map depends on (chapter 5.1.6)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules import activation, dropout

from cnnkit.core.shape import Pads, pair, resolve_padding
from cnnkit.ops import AdaptiveAvgPool2D, BatchNormalization, Conv2D, MultiChannelConv2D, Pool2D

__all__ = ["Receptive", "field_after"]

Operator = nn.Module | Callable[..., Any] | str  # in a torch.fx graph: a layer, a function or the name of a method

POOL = ("input", "kernel_size", "stride", "padding")
FUNCTIONS = {  # torch's names of their arguments, in order
    "conv2d": ("input", "weight", "bias", "stride", "padding", "dilation"),
    "max_pool2d": (*POOL, "dilation"),
    "avg_pool2d": POOL,
    "lp_pool2d": ("input", "norm_type", "kernel_size", "stride"),
    "pad": ("input", "pad"),
}
WINDOWS = (nn.Conv2d, nn.MaxPool2d, nn.AvgPool2d, nn.LPPool2d)
PADS = (nn.ConstantPad2d, nn.ZeroPad2d, nn.ReflectionPad2d, nn.ReplicationPad2d, nn.CircularPad2d)
ADAPTIVE = (nn.AdaptiveAvgPool2d, nn.AdaptiveMaxPool2d, AdaptiveAvgPool2D)
REDUCTIONS = {"adaptive_avg_pool2d", "adaptive_max_pool2d", "mean", "sum", "amax", "amin", "max", "min", "var", "std"}
SOFTMAX = (nn.Softmax, nn.LogSoftmax, nn.Softmin)
SOFTMAXES = {"softmax", "log_softmax", "softmin"}
STATISTICS = (nn.BatchNorm2d, nn.SyncBatchNorm, nn.InstanceNorm2d)  # of the map itself, without running statistics
WHOLE = (nn.GroupNorm, nn.LayerNorm, nn.Linear)
WHOLES = {"group_norm", "instance_norm", "layer_norm", "linear"}
POINTWISE = (  # in evaluation mode
    *(getattr(nn, name) for name in {*activation.__all__, *dropout.__all__} - {"MultiheadAttention"}),
    *(nn.ChannelShuffle, nn.Flatten, nn.Identity, nn.LocalResponseNorm, nn.Unflatten, BatchNormalization),
)
POINTWISES = """
add sub mul div truediv floordiv mod neg pow iadd isub imul itruediv ipow multiply subtract divide true_divide rsub
abs exp expm1 log log1p sqrt rsqrt square reciprocal sign sin cos erf lerp addcmul addcdiv clamp clip
maximum minimum where eq ne lt le gt ge logical_not logical_and logical_or masked_fill round floor ceil nan_to_num
relu relu6 leaky_relu rrelu prelu elu selu celu gelu glu silu mish sigmoid logsigmoid tanh softplus softsign
hardtanh hardsigmoid hardswish hardshrink softshrink tanhshrink threshold
dropout dropout1d dropout2d dropout3d alpha_dropout feature_alpha_dropout local_response_norm channel_shuffle
cat concat concatenate clone contiguous detach to type type_as float half double zeros_like ones_like
reshape reshape_as flatten unflatten
"""


@dataclass(frozen=True)
class Receptive:
    """The receptive field of a feature map's elements, in input pixels, (vertical, horizontal).

    Element (i, j) depends on row start[0] + i * step[0] and the size[0] - 1 rows below it, and on columns likewise; the
    field may extend beyond the image into padding of any kind. A step of 0 means the whole image, as for global
    pooling, dense layers and norms over the map; for other vectors, and values broadcast over a map, it is an upper
    bound.
    """

    size: tuple[int, int] = (1, 1)
    step: tuple[int, int] = (1, 1)
    start: tuple[int, int] = (0, 0)


class _Window(NamedTuple):
    kernel: tuple[int, int]
    stride: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    pads: Pads = (0, 0, 0, 0)  # top, bottom, left, right


def field_after(
    operator: Operator,
    args: Sequence[Any],
    kwargs: Mapping[str, Any],
    fields: Sequence[Receptive | None],
    maps: Sequence[Tensor],
    made: Tensor,
    everything: Receptive,
) -> Receptive | None:
    """Return the receptive field of `made`, the output of an operator on `maps`; `fields` are those of its inputs.

    None means unknown: after operators that move or resize pixels without a window, after adaptive pooling with uneven
    cells, and after these until an operator depends on `everything`.
    """
    if made.ndim < 3 or everything in fields:
        return everything
    if made.ndim == 3 or not maps:
        return None
    before, after = _grid(maps[0]), _grid(made)
    if any(_grid(other) != before for other in maps):
        return everything if all(fields) else None
    name = operator if isinstance(operator, str) else getattr(operator, "__name__", "")
    window = _window(_arguments(operator, name, args, kwargs), before)
    if (isinstance(operator, ADAPTIVE) or name in REDUCTIONS) and made.ndim == maps[0].ndim:
        if before != after and (1, 1) in (before, after):
            return everything
        window = _cells(before, after)
    field = reduce(_join, fields)
    if field is None:
        return None
    if window:
        return _through(field, window)
    if isinstance(operator, WHOLE) or name in WHOLES:
        return everything
    if isinstance(operator, STATISTICS):
        return everything if operator.running_mean is None else field
    return field if before == after and _keeps(operator, name, args, kwargs, maps, made) else None


def _join(one: Receptive | None, other: Receptive | None) -> Receptive | None:
    """Return the field of an element that combines two branches over the same grid; None if unknown."""
    if one is None or other is None or one.step != other.step:
        return None
    both = one, other

    def span(axis: int) -> tuple[int, int, int]:
        start = min(field.start[axis] for field in both)
        return max(field.start[axis] + field.size[axis] for field in both) - start, both[0].step[axis], start

    return Receptive(*zip(span(0), span(1), strict=True))


def _grid(tensor: Tensor) -> tuple[int, int]:
    return tensor.shape[-2], tensor.shape[-1]


def _keeps(
    operator: Operator, name: str, args: Sequence[Any], kwargs: Mapping[str, Any], maps: Sequence[Tensor], made: Tensor
) -> bool:
    """Return whether an operator that keeps the size also keeps the position of each pixel."""
    if isinstance(operator, SOFTMAX) or name in SOFTMAXES:
        dim = operator.dim if isinstance(operator, SOFTMAX) else kwargs.get("dim", [*args, None][1])
        return dim is None or dim % made.ndim < made.ndim - 2
    if name == "batch_norm":
        return not kwargs.get("training", [*args, *[False] * 6][5])
    if isinstance(operator, POINTWISE) or name.removesuffix("_") in POINTWISES.split():
        return True
    if name.endswith("_"):
        return False
    return any(  # a view of channels, as from chunk, permute or x[:, 1:]
        made.untyped_storage() == seen.untyped_storage() and made.stride()[-2:] == seen.stride()[-2:] for seen in maps
    )


def _through(field: Receptive, window: _Window) -> Receptive:
    first = window.pads[0], window.pads[2]

    def grow(axis: int) -> tuple[int, int, int]:
        step = field.step[axis]
        return (
            field.size[axis] + (window.kernel[axis] - 1) * window.dilation[axis] * step,
            step * window.stride[axis],
            field.start[axis] - first[axis] * step,
        )

    return Receptive(*zip(grow(0), grow(1), strict=True))


def _cells(before: tuple[int, int], after: tuple[int, int]) -> _Window | None:
    """Return the window of an adaptive pooling; None if its cells are uneven."""
    if before[0] % after[0] or before[1] % after[1]:
        return None
    cell = before[0] // after[0], before[1] // after[1]
    return _Window(cell, cell)


def _arguments(operator: Operator, name: str, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the arguments of an operator that slides a window or pads, by torch's names; {} for others."""
    if isinstance(operator, WINDOWS):
        return vars(operator)
    if isinstance(operator, Conv2D | MultiChannelConv2D):
        return {"weight": operator.weight, **operator.window}
    if isinstance(operator, Pool2D):
        return {"kernel_size": operator.how["window"], **operator.how}
    if isinstance(operator, PADS):
        return {"pad": operator.padding}
    if name in FUNCTIONS:
        return dict(zip(FUNCTIONS[name], args, strict=False)) | dict(kwargs)
    return {}


def _window(arguments: Mapping[str, Any], size: tuple[int, int]) -> _Window | None:
    if pad := arguments.get("pad"):
        left, right, top, bottom = (*pad, 0, 0)[:4]
        return _Window((1, 1), pads=(top, bottom, left, right))
    kernel = arguments["weight"].shape[-2:] if "weight" in arguments else arguments.get("kernel_size")
    if kernel is None:
        return None
    kernel = pair(kernel, "kernel_size")
    default = 1 if "weight" in arguments else kernel
    stride = pair(arguments.get("stride") or default, "stride")
    dilation = pair(arguments.get("dilation", 1), "dilation")
    return _Window(
        kernel, stride, dilation, resolve_padding(arguments.get("padding", 0), size, kernel, stride, dilation)
    )
