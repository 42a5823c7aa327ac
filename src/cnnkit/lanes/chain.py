"""A network read as a chain of layers with known sizes: what can be computed in lanes, and in which order."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from cnnkit.core.compiler import NO_COMPILER, find_compiler
from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.core.shape import output_size

__all__ = ["Layer", "Size", "obstacle", "read_chain"]

MAX_VALUES = 2**17  # numbers that layers leave for an image; with 16 images, more than any core's own cache holds

Size = tuple[int, int, int]  # channels, height, width
ACTIVATIONS: dict[type[nn.Module], str] = {nn.Sigmoid: "Sigmoid", nn.Tanh: "Tanh", nn.ReLU: "Relu"}


@dataclass(frozen=True)
class Layer:
    """A layer with the sizes of its input and its output."""

    name: str
    kind: str  # conv, pool, norm, activation, dropout
    module: nn.Module
    input: Size
    output: Size
    detail: tuple[int | str, ...] = ()


def obstacle(net: nn.Module, image: Size) -> str | None:
    """Return why `net` cannot be computed in lanes here, on images C x H x W, or None if it can."""
    try:
        read_chain(net, image)
    except UsageError as error:
        return str(error)
    return None if find_compiler() else NO_COMPILER


def read_chain(net: nn.Module, image: Size) -> list[Layer]:
    """Return the layers of `net` for images C x H x W; raises UsageError for the first that lanes cannot take.

    Pooling by the maximum goes before the activation that it follows: activations rise, so the result is the same,
    from a quarter of the work.
    """
    layers: list[Layer] = []
    size = image
    for name, module in _leaves(unwrapped(net), ""):
        if isinstance(module, nn.Identity):
            continue
        if isinstance(module, nn.Flatten):
            _require((module.start_dim, module.end_dim) == (1, -1), name, module)
            size = (math.prod(size), 1, 1)
            continue
        _require(all(module is not layer.module for layer in layers), name, module, "it is there twice")
        layer = _layer(name, module, size)
        size = layer.output
        if layers and isinstance(module, nn.MaxPool2d) and layers[-1].kind == "activation":
            before = layers.pop()
            layers += [replace(layer, input=before.input), replace(before, input=size, output=size)]
        else:
            layers.append(layer)
    if not layers or layers[-1].output[1:] != (1, 1):
        raise UsageError("lanes: the network's output is no row of logits")
    if (numbers := sum(math.prod(layer.output) for layer in layers)) > MAX_VALUES:
        raise UsageError(
            f"lanes are for small networks: the layers of this one make {numbers:,} numbers, not {MAX_VALUES:,}"
        )
    return layers


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _leaves(child, f"{name}.{child_name}" if name else child_name)


def _layer(name: str, module: nn.Module, size: Size) -> Layer:
    channels, image = size[0], size[1:]
    detail: tuple[int | str, ...] = ()
    output, kind = size, "activation"
    match module:
        case nn.Conv2d():
            kind = "conv"
            _require(module.groups == 1 and _two(module.dilation) == (1, 1), name, module)
            _require(module.padding_mode == "zeros" and not isinstance(module.padding, str), name, module)
            _fits(name, module.in_channels, channels)
            kernel, stride, padding = map(_two, (module.kernel_size, module.stride, module.padding))
            detail = (*kernel, *stride, *padding)
            output = (module.out_channels, *output_size(image, kernel, stride=stride, padding=padding))
        case nn.Linear():
            kind, detail, output = "conv", (1, 1, 1, 1, 0, 0), (module.out_features, 1, 1)
            _require(image == (1, 1), name, module, "a Flatten has to come first")
            _fits(name, module.in_features, channels)
        case nn.MaxPool2d() | nn.AvgPool2d():
            kind = "pool"
            _require(_two(module.padding) == (0, 0) and not module.ceil_mode, name, module)
            _require(getattr(module, "dilation", 1) in (1, (1, 1)), name, module)
            _require(not getattr(module, "return_indices", False), name, module)
            kernel, stride = _two(module.kernel_size), _two(module.stride)
            detail = ("MaxPool" if isinstance(module, nn.MaxPool2d) else "AvgPool", *kernel, *stride)
            output = (channels, *output_size(image, kernel, stride=stride))
        case nn.AdaptiveAvgPool2d():
            kind = "pool"
            _require(module.output_size in (1, (1, 1)), name, module)
            detail, output = ("AvgPool", *image, *image), (channels, 1, 1)
        case nn.BatchNorm2d() | nn.BatchNorm1d():
            kind = "norm"
            _require(module.affine and module.track_running_stats and module.momentum is not None, name, module)
            _fits(name, module.num_features, channels)
        case nn.Dropout():
            kind = "dropout"
            _require(0 <= module.p < 1, name, module)
        case _:
            _require(type(module) in ACTIVATIONS, name, module)
            detail = (ACTIVATIONS[type(module)],)
    return Layer(name, kind, module, size, output, detail)


def _two(value: Any) -> tuple[int, int]:
    """Return what a module says of height and width, in one number or in two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _fits(name: str, wanted: int, found: int) -> None:
    if wanted != found:
        raise UsageError(f"lanes: layer {name} takes {wanted} channels or features, and gets {found}")


def _require(possible: bool, name: str, module: nn.Module, reason: str = "") -> None:
    if possible and any(weight.device.type != "cpu" for weight in module.parameters(recurse=False)):
        possible, reason = False, "it is not on the CPU"
    if not possible:
        said = repr(module).split("\n")[0]
        raise UsageError(f"lanes cannot take layer {name}: {said}{f' ({reason})' if reason else ''}; torch can")
