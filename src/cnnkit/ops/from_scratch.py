"""Any network of standard layers, rebuilt from the operators from scratch: the specification of the fast one."""

import copy
from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import nn
from torch.nn.modules.lazy import LazyModuleMixin

from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.ops.layers import BatchNormalization, Conv2D, MultiChannelConv2D
from cnnkit.ops.pooling import AdaptiveAvgPool2D, Pool2D
from cnnkit.ops.same import CeilMaxPool2d, SameConv2d, SameMaxPool2d

__all__ = ["from_scratch"]


def from_scratch(net: nn.Module) -> nn.Module:
    """Return a copy of `net` whose convolutions, pooling and batch normalisation are those of this package.

    Structure, names, custom `forward` methods, weights, statistics, train or eval mode, dtype and device are those of
    `net`, and so are outputs and gradients; the copy shares nothing with it. Dense layers, activations, dropout and
    reshaping are copied unchanged. Two things differ: in training the moving variance is updated with the *biased*
    variance, and `BatchNorm1d` accepts (N, C) only. Raises UsageError, with the layer's path, for a layer or an option
    that has no form from scratch.

    >>> from_scratch(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()))
    Sequential(
      (0): MultiChannelConv2D((2, 1, 3, 3), stride=(1, 1), padding=(0, 0), dilation=(1, 1))
      (1): ReLU()
    )
    """
    net = unwrapped(net)
    memo: dict[int, Any] = {}  # replacements by object: shared modules and tied weights stay shared
    for path, layer in net.named_modules():
        try:
            if form := _form(layer):
                memo[id(layer)] = copy.deepcopy(form(layer), memo).train(layer.training)
        except UsageError as error:
            raise UsageError(f"{path}: {error}" if path else str(error)) from error
    return copy.deepcopy(net, memo)


Form = Callable[[Any], nn.Module]  # from a layer to its replacement, which may share the layer's tensors


def _form(layer: nn.Module) -> Form | None:
    """Return how to rebuild a layer, or None if it is copied unchanged."""
    name, classes, parts = type(layer).__name__, type(layer).__mro__, [*layer.children()]
    if isinstance(layer, LazyModuleMixin) and layer.has_uninitialized_params():
        raise UsageError(f"{name} has no shape before its first input; call the net on one")
    if standard := next((cls for cls in classes if cls in FORMS), None):
        if type(layer).forward is not standard.forward or parts or layer._forward_hooks or layer._forward_pre_hooks:
            raise UsageError(f"{name} has a custom forward, submodules or hooks; use a plain {standard.__name__}")
        return FORMS[standard]
    opaque = not parts and not isinstance(layer, UNCHANGED) and [*layer.parameters(), *layer.buffers()]
    if opaque or any(cls.__module__ in REFUSED for cls in classes):
        known = ", ".join(cls.__name__ for cls in (*FORMS, *UNCHANGED[:2]))
        raise UsageError(f"{name}({layer.extra_repr()}) has no form from scratch; use {known} or elementwise layers")
    return None


def _only(layer: nn.Module, name: str, *allowed: object) -> None:
    if (value := getattr(layer, name)) not in allowed:
        raise UsageError(
            f"{type(layer).__name__} with {name}={value!r} has no form from scratch; use {name}={allowed[0]!r}"
        )


def _convolution(layer: Any) -> nn.Module:
    _only(layer, "groups", 1)
    _only(layer, "padding_mode", "zeros")
    window: dict[str, Any] = {name: getattr(layer, name) for name in ("kernel_size", "stride", "padding", "dilation")}
    with torch.device("meta"):  # no memory and no random numbers for weights that are replaced
        conv = MultiChannelConv2D(layer.in_channels, layer.out_channels, bias=False, **window)
    conv.weight, conv.bias = layer.weight, layer.bias
    return conv


def _pool(layer: Any, mode: Literal["max", "avg"], **how: bool) -> nn.Module:
    return Pool2D(layer.kernel_size, mode, layer.stride, layer.padding, ceil_mode=layer.ceil_mode, **how)


def _max_pool(layer: nn.MaxPool2d) -> nn.Module:
    _only(layer, "dilation", 1, (1, 1))
    _only(layer, "return_indices", False)
    return _pool(layer, "max")


def _avg_pool(layer: nn.AvgPool2d) -> nn.Module:
    _only(layer, "divisor_override", None)
    return _pool(layer, "avg", count_include_pad=layer.count_include_pad)


def _batch_norm(layer: Any) -> nn.Module:
    _only(layer, "affine", True)
    _only(layer, "track_running_stats", True)
    for name in ("bias", "momentum"):
        if getattr(layer, name) is None:
            raise UsageError(
                f"{type(layer).__name__} with {name}=None has no form from scratch; build it with a {name}"
            )
    norm = BatchNormalization(1 - layer.momentum, layer.eps)
    norm.gamma, norm.beta = layer.weight, layer.bias
    norm.moving_mean, norm.moving_variance = layer.running_mean, layer.running_var
    return norm


FORMS: dict[type[nn.Module], Form] = {
    nn.Conv2d: _convolution,
    SameConv2d: _convolution,
    nn.MaxPool2d: _max_pool,
    SameMaxPool2d: _max_pool,
    CeilMaxPool2d: _max_pool,
    nn.AvgPool2d: _avg_pool,
    nn.AdaptiveAvgPool2d: lambda layer: AdaptiveAvgPool2D(layer.output_size),
    nn.BatchNorm1d: _batch_norm,
    nn.BatchNorm2d: _batch_norm,
}
UNCHANGED = (nn.Linear, nn.PReLU, Conv2D, MultiChannelConv2D, BatchNormalization)
REFUSED = {f"torch.nn.modules.{kind}" for kind in ("batchnorm", "conv", "normalization", "pooling")}
