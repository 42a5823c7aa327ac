"""The algorithms of a network's convolutions, raced layer by layer on the machine at hand."""

from collections.abc import Callable
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from cnnkit.core.timing import mean_seconds, median_seconds
from cnnkit.ops.algorithms import INPUT, OUTPUT, WEIGHT, Algorithm, Window
from cnnkit.ops.layout import MemoryFormat, lay_out
from cnnkit.ops.tuned import Algorithms, TunedConv2d, possible, tune

__all__ = ["fastest_algorithms", "use_fastest_outputs"]

ROUNDS = 3  # that count
GAIN = 1.07  # times as fast as oneDNN, to be taken


def fastest_algorithms(
    net: nn.Module, x: Tensor, memory_format: MemoryFormat, dtype: torch.dtype
) -> dict[str, Algorithms]:
    """Return the algorithms of the layers that oneDNN is not the fastest for in training, for images like x.

    Maps have these strides and this type. The convolutions in `net` become tuned ones.
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
                known[key] = _race(layer, maps, window, inner)
            if known[key] != Algorithms():
                found[name] = known[key]
    return found


def use_fastest_outputs(net: nn.Module, x: Tensor) -> None:
    """Let the convolutions inside `net` predict by what is fastest for images like x, of the net's numbers."""
    known: dict[object, Algorithm] = {}
    for layer, shape, _ in _inputs(net, x).values():
        maps = torch.rand(shape, device=x.device).to(x.dtype, memory_format=torch.channels_last)
        maps, window = layer.slide(maps)
        key = (window, shape, layer.weight.shape)
        if key not in known:
            names = possible(window, maps, layer.weight)
            known[key] = _winner(
                {name: partial(OUTPUT[name], maps, layer.weight, layer.bias, window) for name in names}
            )
        layer.prediction = known[key]


def _inputs(net: nn.Module, x: Tensor) -> dict[str, tuple[TunedConv2d, torch.Size, bool]]:
    """Return the tuned layers, the shapes of their inputs, and whether these have gradients, as x goes through."""
    seen: dict[str, tuple[TunedConv2d, torch.Size, bool]] = {}
    handles = []
    for name, layer in tune(net).items():

        def note(layer: nn.Module, inputs: tuple[Tensor], name: str = name) -> None:
            seen[name] = cast(TunedConv2d, layer), inputs[0].shape, inputs[0].requires_grad

        handles.append(layer.register_forward_pre_hook(note))
    net(x)
    for handle in handles:
        handle.remove()
    return seen


def _race(layer: TunedConv2d, x: Tensor, window: Window, inner: bool) -> Algorithms:
    """Return the fastest algorithms for maps like x; those of what is not needed are torch's own."""
    weight = layer.weight.to(x.dtype)
    bias = None if layer.bias is None else layer.bias.to(x.dtype)
    names = possible(window, x, weight)
    dy = torch.rand_like(OUTPUT["onednn"](x, weight, bias, window))
    won = Algorithms(output=_winner({name: partial(OUTPUT[name], x, weight, bias, window) for name in names}))
    if inner:
        won = won._replace(input=_winner({name: partial(INPUT[name], dy, x, weight, window) for name in names}))
    if layer.weight.requires_grad:

        def gradient(name: Algorithm) -> Tensor:
            return WEIGHT[name](dy, x, weight, window).to(layer.weight.dtype)  # as the optimiser needs it

        won = won._replace(weight=_winner({name: partial(gradient, name) for name in names}))
    return won


def _winner(ways: dict[Algorithm, Callable[[], Tensor]]) -> Algorithm:
    if len(ways) == 1:
        return "onednn"
    for way in ways.values():
        way()  # it warms up
    medians = median_seconds({name: partial(mean_seconds, way, 0) for name, way in ways.items()}, ROUNDS)
    best = min(medians, key=lambda name: medians[name])
    return best if medians["onednn"] > GAIN * medians[best] else "onednn"
