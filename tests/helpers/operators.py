"""Inputs of compiled operators: for max pooling, and for convolutions by Winograd's algorithm."""

import torch
from torch import Tensor, nn

from cnnkit.ops import SameMaxPool2d
from cnnkit.ops.algorithms import Window

POOLS = {
    "2x2": lambda: nn.MaxPool2d(2),
    "3x3 by 2": lambda: nn.MaxPool2d(3, 2),
    "3x3 by 2, padded": lambda: nn.MaxPool2d(3, 2, 1),
    "3x3 by 1, padded": lambda: nn.MaxPool2d(3, 1, 1),
    "2x2, rounded up": lambda: nn.MaxPool2d(2, ceil_mode=True),
    "3x2 by 2x3, padded, rounded up": lambda: nn.MaxPool2d((3, 2), (2, 3), (1, 0), ceil_mode=True),
    "2x2 by 3": lambda: nn.MaxPool2d(2, 3),
    "1x1 by 2, rounded up": lambda: nn.MaxPool2d(1, 2, ceil_mode=True),
    "2x2 by 3, padded, rounded up": lambda: nn.MaxPool2d(2, 3, 1, ceil_mode=True),
    "same by 2": lambda: SameMaxPool2d(3, 2),
}
SHAPES = [  # images, channels, rows, columns, outputs, zeros at the top, bottom, left and right
    (2, 8, 8, 8, 8, (1, 1, 1, 1)),
    (3, 16, 9, 11, 8, (1, 1, 1, 1)),  # tiles beyond the map
    (1, 8, 7, 6, 24, (0, 0, 0, 0)),
    (2, 16, 3, 3, 16, (1, 1, 1, 1)),  # a single tile, of 3 x 3
    (3, 8, 6, 9, 16, (1, 1, 1, 1)),  # several
    (2, 8, 2, 1, 8, (2, 2, 2, 2)),  # a map smaller than a tile
    (2, 8, 7, 6, 8, (0, 2, 2, 0)),
    (2, 8, 4, 5, 8, (3, 4, 5, 3)),  # more zeros than a kernel sees
    (9, 8, 24, 25, 8, (1, 1, 1, 1)),  # more than one chunk of tiles
]


def results(net: nn.Module, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the output and the gradient of x, of a sum whose addends all differ."""
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    y = net(x)
    (y * torch.linspace(-1, 1, y.numel()).view_as(y).to(y.dtype)).sum().backward()
    return y.detach(), x.grad


def maps(channels: int = 16, size: tuple[int, int] = (9, 12), dtype: torch.dtype = torch.float32) -> Tensor:
    """Return random maps with many equal entries, below zero too."""
    x = torch.randint(-9, 9, (3, channels, *size)).to(dtype) / 4
    return x.to(memory_format=torch.channels_last)


def made(shape: tuple, kernel: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Window]:
    n, channels, rows, columns, outputs, sides = shape
    window = Window((kernel, kernel), (1, 1), sides)
    x = torch.randn(n, channels, rows, columns).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, kernel, kernel).contiguous(memory_format=torch.channels_last)
    dy = torch.randn(n, outputs, *window.output(x)).contiguous(memory_format=torch.channels_last)
    return x, weight, torch.randn(outputs), dy, window
