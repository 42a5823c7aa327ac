"""Compiled max pooling for training on a CPU, fused with a ReLU before it.

torch stores a 64-bit index for each window and goes back through them one by one; here an index is as wide as a value,
and both passes are computed register by register. The maximum of rectified values is the rectified maximum, so neither
the rectified map nor a pass over it is needed.
"""

import ctypes
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.modes import is_recorded
from cnnkit.core.modules import unwrapped
from cnnkit.core.shape import pair, resolve_padding
from cnnkit.ops.compiled import address, library
from cnnkit.ops.same import CeilMaxPool2d, SameMaxPool2d

__all__ = ["CompiledMaxPool2d", "DeferredReLU", "compile_pooling"]

BITS = {torch.bfloat16: torch.int16, torch.float32: torch.int32}
REGISTER = 8  # channels must be a multiple of it
KINDS: tuple[type[nn.MaxPool2d], ...] = (nn.MaxPool2d, SameMaxPool2d, CeilMaxPool2d)


class _Maps(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("images", "channels", "height", "width", "out_height", "out_width"),
            *("window_height", "window_width", "stride_height", "stride_width", "top", "left", "threads"),
        )
    ]


class CompiledMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` with the same results, faster for gradients of channels-last maps on a CPU.

    Supports float32 and bfloat16, and multiples of 8 channels. Otherwise, and while torch compiles, exports or traces
    it, it computes as the class that it replaces. Created by `compile_pooling`.
    """

    kind: type[nn.MaxPool2d] = nn.MaxPool2d  # the class that it replaces
    compiled = False
    deferred = False  # whether a ReLU left its work to this layer

    def is_supported(self, x: Tensor) -> bool:
        """Return whether the compiled code pools maps like x."""
        return (
            self.compiled
            and torch.is_grad_enabled()
            and not is_recorded()
            and x.device.type == "cpu"
            and x.dtype in BITS
            and x.dim() == 4
            and x.shape[1] % REGISTER == 0
            and x.is_contiguous(memory_format=torch.channels_last)
        )

    def forward(self, input: Tensor) -> Tensor:
        """Pool N x C x H x W to N x C x H' x W'."""
        deferred, self.deferred = self.deferred, False
        if self.is_supported(input):
            return cast(Tensor, _MaxPool.apply(input, self._maps(input), deferred))  # type: ignore[no-untyped-call]
        return cast(Tensor, self.kind.forward(self, F.relu(input) if deferred else input))

    def _maps(self, x: Tensor) -> _Maps:
        n, channels, height, width = x.shape
        window, stride = pair(self.kernel_size, "kernel_size"), pair(self.stride, "stride")
        pads = resolve_padding(cast(Any, self.padding), (height, width), window, stride)
        out = (
            _outputs(height, window[0], stride[0], pads[:2], self.ceil_mode),
            _outputs(width, window[1], stride[1], pads[2:], self.ceil_mode),
        )
        return _Maps(n, channels, height, width, *out, *window, *stride, pads[0], pads[2], torch.get_num_threads())


class DeferredReLU(nn.ReLU):
    """`nn.ReLU` that leaves its work to the pooling after it, where that supports it."""

    pool: CompiledMaxPool2d

    def forward(self, input: Tensor) -> Tensor:
        """Rectify, or return the input for `pool` to rectify."""
        self.pool.deferred = self.pool.is_supported(input)
        return input if self.pool.deferred else super().forward(input)


def compile_pooling(net: nn.Module, compiled: bool = True) -> dict[str, CompiledMaxPool2d]:
    """Switch the max pooling inside `net`, and the ReLUs just before it, to compiled code, or back to torch's.

    Return the switched pooling layers by name. Names and results do not change. Dilated layers, those that return
    indices, and those of other classes are left alone; without a C++ compiler all are.
    """
    net = unwrapped(net)
    if compiled and library():
        for parent in net.modules():
            _compile(parent)
    layers = {name: layer for name, layer in net.named_modules() if isinstance(layer, CompiledMaxPool2d)}
    for layer in layers.values():
        layer.compiled = compiled
    return layers


def _compile(parent: nn.Module) -> None:
    before: tuple[str, nn.Module] = "", parent
    for name, layer in parent.named_children():
        if type(layer) in KINDS and _plain(layer):
            pool = CompiledMaxPool2d.__new__(CompiledMaxPool2d)
            pool.__dict__, pool.kind = layer.__dict__, cast(type[nn.MaxPool2d], type(layer))
            setattr(parent, name, pool)
            if type(before[1]) is nn.ReLU and isinstance(parent, nn.Sequential):
                relu = DeferredReLU.__new__(DeferredReLU)
                relu.__dict__ = {**before[1].__dict__, "pool": pool}  # not as a module inside this one
                setattr(parent, before[0], relu)
        before = name, layer


def _plain(layer: Any) -> bool:
    return pair(layer.dilation, "dilation") == (1, 1) and not layer.return_indices


def _outputs(size: int, window: int, stride: int, pads: tuple[int, int], ceil: bool) -> int:
    """Return the number of windows along an axis; rounded up, none starts in the padding after the map."""
    outputs, rest = divmod(size + sum(pads) - window, stride)
    return outputs + 1 + (ceil and rest > 0 and (outputs + 1) * stride < size + pads[0])


class _MaxPool(torch.autograd.Function):
    """Max pooling, of the positive part if `positive`, and its gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, maps: _Maps, positive: bool) -> Tensor:
        size = (maps.images, maps.channels, maps.out_height, maps.out_width)
        y = torch.empty(size, dtype=x.dtype, memory_format=torch.channels_last)
        found = torch.empty_like(y, dtype=BITS[x.dtype])
        _call("forward", x, maps, positive, x, y, found)
        ctx.maps = maps
        ctx.save_for_backward(found)
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        dy = gradients[0].contiguous(memory_format=torch.channels_last)
        maps: _Maps = ctx.maps
        size = (maps.images, maps.channels, maps.height, maps.width)
        dx = torch.empty(size, dtype=dy.dtype, memory_format=torch.channels_last)
        _call("backward", dy, maps, dy, *ctx.saved_tensors, dx)
        return dx, None, None


def _call(name: str, like: Tensor, maps: _Maps, *arguments: bool | Tensor) -> None:
    function = getattr(library(), f"pool_{name}_{8 * like.element_size()}")
    function(ctypes.byref(maps), *(address(value) if isinstance(value, Tensor) else value for value in arguments))
