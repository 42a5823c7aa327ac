"""The network that an explanation runs: a private copy, and the layer whose map Grad-CAM weighs."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.anatomy import trace
from cnnkit.anatomy.receptive import Receptive
from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.explain.features import find, outputs, with_stages

__all__ = ["Subject", "field_of", "map_layer", "private_copy", "stages"]

ENOUGH = 9  # locations of a map that tells where


@dataclass(frozen=True)
class Subject:
    """A network from `private_copy`, and the layer for methods that explain by one."""

    net: nn.Module
    layer: str = ""

    def __call__(self, x: Tensor) -> Tensor:
        """Return the logits; the network may change its input in place."""
        logits: Tensor = self.net(x.clone())
        return logits


def private_copy(net: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, with frozen weights and without in-place layers; a lone layer in a Sequential.

    Raises UsageError for a network that cannot be copied.
    """
    try:
        with torch.inference_mode(False):  # copies of inference tensors are then normal ones
            copied = with_stages(copy.deepcopy(unwrapped(net)))
    except (RuntimeError, TypeError) as error:
        raise UsageError(f"the network cannot be copied: {str(error).partition(chr(10))[0]}") from error
    for module in copied.modules():
        if getattr(module, "inplace", False) is True:
            module.inplace = False  # type: ignore[assignment]  # an attribute of some layers
    return copied.eval().requires_grad_(False)


def map_layer(net: nn.Module, x: Tensor, layer: str | None = None) -> str:
    """Return `layer` if it outputs a map C x H x W; without it, the layer to explain images like x by.

    That is the last stage with a map of more than one location or, if it has fewer than 9, which hardly tell where, the
    stage before if that has more. Of a network without such stages, as of nested modules, it is the last such part; if
    there is none, the last stage or part with a map at all. Stages are the children of the network, or of the only
    child. Raises UsageError for an unknown layer and if there is no map.
    """
    if layer is not None:
        if outputs(net, x, [layer])[layer].ndim != 4:
            raise UsageError(f"{layer} outputs no feature map C x H x W")
        return layer
    locations: dict[str, int] = {}  # by part, in the order in which they end

    def note(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        locations.pop(name, None)
        if isinstance(output, Tensor) and output.ndim == 4:
            locations[name] = output.shape[-2:].numel()

    with ExitStack() as hooks:
        for name, module in net.named_modules():
            if name:
                hooks.enter_context(module.register_forward_hook(partial(note, name)))
        outputs(net, x, [])
    if not locations:
        raise UsageError("the network outputs no feature map C x H x W")
    tops, order = stages(net), list(locations)
    ranked = sorted(order, key=lambda name: (locations[name] > 1, name in tops, order.index(name)))
    *_, before, last = ["", *ranked]
    is_better = before in tops and locations[last] < ENOUGH <= locations[before]
    return before if is_better else last


def field_of(net: nn.Module, layer: str, input_size: tuple[int, int, int]) -> Receptive | None:
    """Return the receptive field of a layer's map; None if it is unknown or the network's code cannot be traced."""
    find(net, layer)
    try:
        parts = [part for _, part in trace(net, input_size).rows() if part.name == layer]
    except UsageError:
        return None
    return parts[-1].receptive if parts else None


def stages(net: nn.Module) -> set[str]:
    """Return the paths of a network's children or, if it has only one, of this child's, and so on."""
    prefix, children = "", dict(net.named_children())
    while len(children) == 1:
        [(name, only)] = children.items()
        inner = dict(only.named_children())
        if not inner:
            break
        prefix, children = f"{prefix}{name}.", inner
    return {prefix + name for name in children}
