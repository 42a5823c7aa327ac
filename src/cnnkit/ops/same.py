"""torch's fast layers with TensorFlow's "same" padding at any stride: the output is ceil(n / stride).

Where the padding is odd its smaller half goes first, so that it depends on the image's size: a 7x7 window with stride 2
at 96 pixels has 2 in front and 3 behind.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.core.shape import Sides, padding_sides

__all__ = ["SameConv2d", "SameMaxPool2d", "same_sides"]


class SameConv2d(nn.Conv2d):
    """`nn.Conv2d` that pads with zeros as TensorFlow does."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, stride: int, bias: bool = True):
        super().__init__(in_channels, out_channels, kernel_size, stride, bias=bias)
        self.padding = "same"

    def forward(self, input: Tensor) -> Tensor:
        """Pad and correlate: N x C x H x W to N x O x ceil(H / stride) x ceil(W / stride)."""
        top, bottom, left, right = same_sides(self, input)
        if (top, left) == (bottom, right):
            return F.conv2d(input, self.weight, self.bias, self.stride, (top, left))
        return F.conv2d(F.pad(input, (left, right, top, bottom)), self.weight, self.bias, self.stride)


class SameMaxPool2d(nn.MaxPool2d):
    """`nn.MaxPool2d` that pads with minus infinity as TensorFlow does."""

    def __init__(self, kernel_size: int, stride: int):
        super().__init__(kernel_size, stride, ceil_mode=True)
        self.padding = "same"  # type: ignore[assignment]  # torch's own pooling has numbers only

    def forward(self, input: Tensor) -> Tensor:
        """Pool N x C x H x W to N x C x ceil(H / stride) x ceil(W / stride)."""
        top, bottom, left, right = same_sides(self, input)
        if self.stride == 1:  # nothing to round up
            input = F.pad(input, (0, right - left, 0, bottom - top), value=float("-inf"))
        return F.max_pool2d(input, self.kernel_size, self.stride, (top, left), ceil_mode=True)


def same_sides(layer: Any, input: Tensor) -> Sides:
    """Return the zeros at the top, bottom, left and right that a layer with kernel and stride puts around maps."""
    return padding_sides("same", (input.shape[-2], input.shape[-1]), layer.kernel_size, layer.stride)
