"""A network read as a chain of layers with known sizes, or the reason why lanes cannot compute it."""

import math
from collections.abc import Iterator
from dataclasses import replace

from torch import nn

from cnnkit.core.compiler import NO_COMPILER, find_compiler
from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.lanes.layers import LAYERS, Layer, Size, Unsupported, require, require_settings

__all__ = ["read_chain", "unsupported_reason"]

MAX_VALUES = 2**17  # that all layers output for an image; with 16 images, more than fits into any core's own cache


def unsupported_reason(net: nn.Module, image: Size) -> str | None:
    """Return why `net` cannot be computed in lanes on this machine, for images C x H x W, or None if it can."""
    try:
        _read(net, image)
    except (Unsupported, UsageError) as error:
        return str(error)
    return None if find_compiler() else NO_COMPILER


def read_chain(net: nn.Module, image: Size) -> list[Layer]:
    """Return the layers of `net` for images C x H x W, in the order in which lanes compute them.

    Max pooling moves before the activation that it follows: activations are increasing functions, so the result is the
    same, from a quarter of the work. Raises UsageError for the first layer that lanes cannot compute.
    """
    try:
        return _read(net, image)
    except Unsupported as error:
        raise UsageError(f"lanes: {error}; use --engine torch") from error


def _read(net: nn.Module, image: Size) -> list[Layer]:
    layers: list[Layer] = []
    size = image
    for name, module in _leaves(unwrapped(net), ""):
        try:
            if type(module) is nn.Flatten:
                require_settings(module, start_dim=1, end_dim=-1)
                size = (math.prod(size), 1, 1)
            elif type(module) is not nn.Identity:
                require(type(module) in LAYERS, "this type of layer is not supported")
                require(all(module is not layer.module for layer in layers), "the module occurs twice")
                require(all(weight.device.type == "cpu" for weight in module.parameters()), "it is not on the CPU")
                layer = LAYERS[type(module)].read(module, size)
                size = layer.output
                if layers and layer.takes_maximum and layers[-1].increasing:
                    before = layers.pop()
                    layers += [replace(layer, input=before.input), replace(before, input=size, output=size)]
                else:
                    layers.append(layer)
        except (Unsupported, UsageError) as error:
            described = repr(module).partition("\n")[0]
            raise Unsupported(f"layer {name}: {described}: {error}") from error
    require(any(True for layer in layers for _ in layer.module.parameters()), "the network has no parameters")
    require(layers[-1].output[1:] == (1, 1), "the network's output must be logits, N x classes")
    values = sum(math.prod(layer.output) for layer in layers)
    require(values <= MAX_VALUES, f"the layers output {values:,} values per image, more than {MAX_VALUES:,}")
    return layers


def _leaves(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    if type(module) is not nn.Sequential:
        yield name, module
        return
    for child_name, child in module.named_children():
        yield from _leaves(child, f"{name}.{child_name}" if name else child_name)
