"""Convolutions by Winograd's minimal filtering, with a fraction of the multiplications (Lavin and Gray 2016).

F(4 x 4, 3 x 3) takes a quarter, F(2 x 2, 5 x 5) a bit more than a third. A tile of 4 x 4 or 2 x 2 pixels of the output
comes from 6 x 6 of the input. The input's tile and the kernel are transformed, by additions and small factors, into 36
numbers each, whose products are those of the output's tile: with many channels, 36 matrix products. Compiled code
transforms, torch multiplies. It costs about a digit: errors are some 1e-5 of the largest number. Maps are float32,
N x C x H x W with channels-last strides.
"""

import ctypes
from collections.abc import Iterator
from functools import cache

import torch
from torch import Tensor

from cnnkit.core.shape import Sides
from cnnkit.ops.compiled import address, library

__all__ = ["correlate", "input_gradient", "kernels_gradient", "suits"]

INPUTS, PRODUCTS = 6, 36  # pixels of a tile of the input in a row, and in all
SIZES = (3, 5)  # of kernels
CHUNK = 256  # tiles at a time, so that they stay in a cache while they are multiplied
REGISTER = 8  # channels, at least
POINTS = {0: 1 / 4, 1: -1 / 6, -1: -1 / 6, 2: 1 / 24, -2: 1 / 24}  # and their factors; the last one is infinity


class _Tiles(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("height", "width", "channels", "rows", "columns", "top", "left"),
            *("first", "count", "side", "threads"),
        )
    ]


def suits(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> bool:
    """Return whether maps like x and these kernels, O x C x kh x kw, can be computed so."""
    return (
        weight.shape[2] == weight.shape[3]
        and weight.shape[2] in SIZES
        and stride == (1, 1)
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[0] % REGISTER == weight.shape[1] % REGISTER == 0
        and library() is not None
    )


def correlate(x: Tensor, weight: Tensor, bias: Tensor | None, sides: Sides) -> Tensor:
    """Return the output N x O x H' x W' for kernels O x C x k x k and zeros at the top, bottom, left and right."""
    (top, bottom, left, right), over = sides, weight.shape[2] - 1
    size = (x.shape[2] + top + bottom - over, x.shape[3] + left + right - over)
    return _correlate(x, weight, bias, (top, left), size)


def input_gradient(dy: Tensor, weight: Tensor, sides: Sides, size: tuple[int, int]) -> Tensor:
    """Return the gradient of an input of this height and width: the output's, with the kernels turned round."""
    turned, over = weight.flip(2, 3).transpose(0, 1), weight.shape[2] - 1
    return _correlate(dy, turned, None, (over - sides[0], over - sides[2]), size)


def kernels_gradient(dy: Tensor, x: Tensor, sides: Sides, kernel: int) -> Tensor:
    """Return the gradient of the kernels O x C x `kernel` x `kernel`."""
    inputs, steps = _pixels(x), _pixels(dy)
    channels, outputs = inputs.shape[3], steps.shape[3]
    sums = inputs.new_zeros(PRODUCTS, channels, outputs)
    for tiles in _chunks(len(x), (dy.shape[2], dy.shape[3]), kernel):
        mine = _spread("input", inputs, tiles, (sides[0], sides[2]))
        torch.baddbmm(sums, mine.transpose(1, 2), _spread("gradient", steps, tiles), out=sums)
    flat = _transform(kernel).t() @ sums.view(PRODUCTS, -1)
    return flat.view(kernel, kernel, channels, outputs).permute(3, 2, 0, 1)


def _correlate(
    x: Tensor, weight: Tensor, bias: Tensor | None, before: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    maps, (outputs, channels, kernel, _) = _pixels(x), weight.shape
    flat = _transform(kernel) @ weight.permute(2, 3, 1, 0).reshape(kernel**2, -1)
    kernels = flat.view(PRODUCTS, channels, outputs)
    y = maps.new_empty(len(x), *size, outputs)
    for tiles in _chunks(len(x), size, kernel):
        _call("output", y, tiles, (0, 0), torch.bmm(_spread("input", maps, tiles, before), kernels), bias, y)
    return y.permute(0, 3, 1, 2)


def _chunks(images: int, size: tuple[int, int], kernel: int) -> Iterator[_Tiles]:
    """Yield the tiles of outputs of this height and width, some at a time."""
    side = INPUTS - kernel + 1
    rows, columns = (-(-pixels // side) for pixels in size)
    total = images * rows * columns
    for first in range(0, total, CHUNK):
        count = min(CHUNK, total - first)
        yield _Tiles(rows=rows, columns=columns, first=first, count=count, side=side, threads=torch.get_num_threads())


def _spread(kind: str, maps: Tensor, tiles: _Tiles, before: tuple[int, int] = (0, 0)) -> Tensor:
    """Return the tiles of maps N x H x W x C, transformed: 36 x tiles x C; the first begins so far before the map."""
    found = maps.new_empty(PRODUCTS, tiles.count, maps.shape[3])
    _call(kind, maps, tiles, before, maps, found)
    return found


def _call(kind: str, maps: Tensor, tiles: _Tiles, before: tuple[int, int], *arguments: Tensor | None) -> None:
    _, tiles.height, tiles.width, tiles.channels = maps.shape
    tiles.top, tiles.left = before
    getattr(library(), f"winograd_{kind}")(ctypes.byref(tiles), *map(address, arguments))


def _pixels(maps: Tensor) -> Tensor:
    """Return N x C x H x W as it lies in memory: N x H x W x C."""
    return maps.permute(0, 2, 3, 1).contiguous()


@cache
def _transform(kernel: int) -> Tensor:
    """Return what transforms kernels of this size: 36 x kernel * kernel, for both directions."""
    rows = [[factor * point**power for power in range(kernel)] for point, factor in POINTS.items()]
    one = torch.tensor([*rows, [0.0] * (kernel - 1) + [1.0]], dtype=torch.float64)
    return torch.kron(one, one).float()
