"""The fastest algorithms of a network's convolutions, benchmarked layer by layer on this machine."""

from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from cnnkit.core.timing import fastest, measure
from cnnkit.ops.algorithms import INPUT, OUTPUT, WEIGHT, Algorithm, Window
from cnnkit.ops.layout import MemoryFormat, lay_out
from cnnkit.ops.tuned import Algorithms, TunedConv2d, possible, tune

__all__ = ["fastest_algorithms", "use_fastest_outputs"]

SPAN = 0.002  # seconds of a timing: a network has many products
GAIN = 1.07  # speed-up over oneDNN from which on an algorithm is taken


def fastest_algorithms(
    net: nn.Module, x: Tensor, memory_format: MemoryFormat, dtype: torch.dtype
) -> dict[str, Algorithms]:
    """Return the algorithms of the layers for which oneDNN is not the fastest in training on images like x.

    Maps have this memory format and type. The convolutions in `net` become tuned ones.
    """
    known: dict[object, Algorithms] = {}
    found: dict[str, Algorithms] = {}
    inputs = _inputs(net, lay_out(x, memory_format))
    with torch.no_grad():
        for name, (layer, shape, inner) in inputs.items():
            maps = lay_out(torch.rand(shape, device=x.device), memory_format).to(dtype)
            with torch.enable_grad():  # as in training
                maps, window = layer.slide(maps)
            key = (window, maps.shape, layer.weight.shape, layer.weight.requires_grad, inner)
            if key not in known:
                known[key] = _fastest_algorithms(layer, maps, window, inner)
            if known[key] != Algorithms():
                found[name] = known[key]
    return found


def use_fastest_outputs(net: nn.Module, x: Tensor) -> None:
    """Set the fastest algorithm for predicting images like x, of the net's dtype, in the convolutions inside `net`."""
    known: dict[object, Algorithm] = {}
    for layer, shape, _ in _inputs(net, x).values():
        maps = torch.rand(shape, device=x.device).to(x.dtype, memory_format=torch.channels_last)
        maps, window = layer.slide(maps)
        key = (window, shape, layer.weight.shape)
        if key not in known:
            known[key] = _fastest_output(layer, maps, window)
        layer.prediction = known[key]


def _fastest_output(layer: TunedConv2d, x: Tensor, window: Window) -> Algorithm:
    names = possible(window, x, layer.weight)
    return _fastest(names, lambda name: OUTPUT[name](x, layer.weight, layer.bias, window), x.device)


def _inputs(net: nn.Module, x: Tensor) -> dict[str, tuple[TunedConv2d, torch.Size, bool]]:
    """Run x; return the tuned layers, the shapes of their inputs, and whether these need gradients."""
    seen: dict[str, tuple[TunedConv2d, torch.Size, bool]] = {}

    def note(name: str, layer: nn.Module, inputs: tuple[Tensor]) -> None:
        seen[name] = cast(TunedConv2d, layer), inputs[0].shape, inputs[0].requires_grad

    with ExitStack() as hooks:
        for name, layer in tune(net).items():
            hooks.enter_context(layer.register_forward_pre_hook(partial(note, name)))
        net(x)
    return seen


def _fastest_algorithms(layer: TunedConv2d, x: Tensor, window: Window, inner: bool) -> Algorithms:
    """Return the fastest algorithms for maps like x; oneDNN for gradients that are not needed."""
    weight = layer.weight.to(x.dtype)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    names = possible(window, x, weight)
    dy = torch.rand_like(OUTPUT["onednn"](x, weight, bias, window))

    def weight_gradient(name: Algorithm) -> Tensor:
        return WEIGHT[name](dy, x, weight, window).to(layer.weight.dtype)  # as the optimiser needs it

    best = Algorithms(_fastest(names, lambda name: OUTPUT[name](x, weight, bias, window), x.device))
    if inner:
        best = best._replace(input=_fastest(names, lambda name: INPUT[name](dy, x, weight, window), x.device))
    if layer.weight.requires_grad:
        best = best._replace(weight=_fastest(names, weight_gradient, x.device))
    return best


def _fastest(names: tuple[Algorithm, ...], product: Callable[[Algorithm], Tensor], device: torch.device) -> Algorithm:
    """Return the algorithm that computes a product the fastest: oneDNN, unless another one is faster by GAIN."""
    if len(names) == 1:
        return "onednn"
    return fastest(measure({name: partial(product, name) for name in names}, device, SPAN), GAIN)
