"""torch's fast layers with TensorFlow's "same" padding at any stride: the output is ceil(n / stride).

The smaller half of odd padding comes first, so that it depends on the image's size: a 7x7 window with stride 2 at 96
pixels has 2 before and 3 after. Traced, exported and compiled programs compute it from the size of each image.
"""

from typing import Any, cast

import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.modes import is_recorded
from cnnkit.core.shape import Pads, Pair, pair, same_padding

__all__ = ["CeilMaxPool2d", "SameConv2d", "SameMaxPool2d", "padded_conv2d", "same_maps", "same_pads"]


class SameConv2d(nn.Conv2d):
    """`nn.Conv2d` that pads with zeros as TensorFlow does."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)
        self.padding = "same"

    def forward(self, input: Tensor) -> Tensor:
        """Pad and correlate: N x C x H x W to N x O x ceil(H / stride) x ceil(W / stride)."""
        input, pads = same_maps(input, self.kernel_size, self.stride)  # type: ignore[arg-type]  # torch's are longer
        return padded_conv2d(input, self.weight, self.bias, self.stride, pads)


class SameMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` that pads with minus infinity as TensorFlow does."""

    def __init__(self, kernel_size: int, stride: int):
        super().__init__(kernel_size, stride, ceil_mode=True)
        self.padding = "same"  # type: ignore[assignment]  # torch declares integers

    def forward(self, input: Tensor) -> Tensor:
        """Pool N x C x H x W to N x C x ceil(H / stride) x ceil(W / stride)."""
        lowest = float("-inf")
        input, (top, bottom, left, right) = same_maps(input, self.kernel_size, self.stride, lowest)
        if is_recorded():
            return F.max_pool2d(input, self.kernel_size, self.stride)
        if self.stride == 1:  # nothing to round up
            input = F.pad(input, (0, right - left, 0, bottom - top), value=lowest)
        return F.max_pool2d(input, self.kernel_size, self.stride, (top, left), ceil_mode=True)


class CeilMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` whose last window may extend over the end; exported, it accepts images of other sizes too.

    torch's layer with `ceil_mode` does not: it branches on the size.
    """

    def __init__(self, kernel_size: int, stride: int):
        super().__init__(kernel_size, stride, ceil_mode=True)

    def forward(self, input: Tensor) -> Tensor:
        """Pool N x C x H x W to N x C x ceil((H - kernel) / stride) + 1 x ceil((W - kernel) / stride) + 1."""
        if not is_recorded():
            return F.max_pool2d(input, self.kernel_size, self.stride, ceil_mode=True)
        kernel, stride = cast(int, self.kernel_size), cast(int, self.stride)
        bottom, right = ((n - kernel + stride - 1) // stride * stride + kernel - n for n in input.shape[-2:])
        return F.max_pool2d(F.pad(input, (0, right, 0, bottom), value=float("-inf")), kernel, stride)


def same_pads(X: Tensor, kernel: Pair, stride: Pair, dilation: Pair = 1) -> Pads:
    """Return the "same" padding of X (..., H, W): rows at the top and bottom, columns at the left and right.

    While torch records a program, they are symbols.
    """
    (kh, kw), (sh, sw), (dh, dw) = pair(kernel, "kernel"), pair(stride, "stride"), pair(dilation, "dilation")
    height, width = X.shape[-2:]
    return *same_padding(height, dh * (kh - 1) + 1, sh), *same_padding(width, dw * (kw - 1) + 1, sw)


def same_maps(input: Tensor, kernel: Pair, stride: Pair, value: float = 0) -> tuple[Tensor, Pads]:
    """Return maps and the "same" padding that they still need: none while torch records a program, where it is added.

    Its size is unknown there, so that a layer cannot make use of symmetric padding.
    """
    top, bottom, left, right = pads = same_pads(input, kernel, stride)
    if not is_recorded():
        return input, pads
    return F.pad(input, (left, right, top, bottom), value=value), (0, 0, 0, 0)


def padded_conv2d(input: Tensor, weight: Tensor, bias: Tensor | None, stride: Any, pads: Pads) -> Tensor:
    """Correlate N x C x H x W with zero padding at the top, bottom, left and right."""
    top, bottom, left, right = pads
    if (top, left) == (bottom, right):
        return F.conv2d(input, weight, bias, stride, (top, left))
    return F.conv2d(F.pad(input, (left, right, top, bottom)), weight, bias, stride)
