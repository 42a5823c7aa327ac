"""Convolutions by Winograd's minimal filtering, with a fraction of the multiplications (Lavin and Gray 2016).

F(4 x 4, 3 x 3) needs a quarter, F(3 x 3, 3 x 3) slightly less than a third, F(2 x 2, 5 x 5) slightly more. A tile of
4 x 4 output pixels is computed from 6 x 6 input pixels: additions and small factors transform the input tile and the
kernel into 36 values each, and their products into the output tile. With many channels these are 36 matrix products.
Compiled code transforms, torch multiplies. It costs about one digit: errors are some 1e-5 of the largest value. Maps
are float32, N x C x H x W with channels-last strides.
"""

import ctypes
from collections.abc import Iterator
from functools import cache
from math import prod

import torch
from torch import Tensor

from cnnkit.core.shape import Pads
from cnnkit.ops.compiled import address, library

__all__ = ["correlate", "input_gradient", "is_supported", "weight_gradient"]

TILE_SIZES = {3: (4, 3), 5: (2,)}  # of the output, by kernel size
CHUNK = 255  # tiles at a time, so that they stay in the cache while they are multiplied
REGISTER = 8  # channels must be a multiple of it
POINTS = (0, 1, -1, 2, -2)  # of interpolation, as many as needed; the last one is infinity


class _Tiles(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int64)
        for name in (
            *("height", "width", "channels", "rows", "columns", "top", "left"),
            *("first", "count", "side", "threads"),
        )
    ]


def is_supported(x: Tensor, weight: Tensor, stride: tuple[int, int]) -> bool:
    """Return whether this is implemented for maps like x and kernels O x C x kh x kw."""
    return (
        weight.shape[2] == weight.shape[3]
        and weight.shape[2] in TILE_SIZES
        and stride == (1, 1)
        and x.numel() > 0
        and x.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and weight.shape[0] % REGISTER == weight.shape[1] % REGISTER == 0
        and library() is not None
    )


def correlate(x: Tensor, weight: Tensor, bias: Tensor | None, pads: Pads) -> Tensor:
    """Return the output N x O x H' x W' for kernels O x C x k x k and zero padding (top, bottom, left, right)."""
    (top, bottom, left, right), kernel = pads, weight.shape[2]
    size = (x.shape[2] + top + bottom - kernel + 1, x.shape[3] + left + right - kernel + 1)
    side = _side(kernel, size)
    kernels = _kernels(weight, _transform(kernel, side)).transpose(1, 2)
    return _correlate(x, kernels, bias, side, (top, left), size)


def input_gradient(dy: Tensor, weight: Tensor, pads: Pads, size: tuple[int, int]) -> Tensor:
    """Return the gradient of an input of this height and width: dy correlated with the flipped kernels."""
    kernel = weight.shape[2]
    side, over = _side(kernel, size), kernel - 1
    kernels = _kernels(weight, _transform(kernel, side).flip(1))
    return _correlate(dy, kernels, None, side, (over - pads[0], over - pads[2]), size)


def weight_gradient(dy: Tensor, x: Tensor, pads: Pads, kernel: int) -> Tensor:
    """Return the weight gradient, O x C x `kernel` x `kernel`."""
    inputs, steps = _pixels(x), _pixels(dy)
    size = (dy.shape[2], dy.shape[3])
    side = _side(kernel, size)
    transform = _transform(kernel, side)
    sums = torch.empty(0)
    for tiles in _chunks(len(x), size, side):
        gradients = _transformed("gradient", steps, tiles, len(transform)).transpose(1, 2)
        values = _transformed("input", inputs, tiles, len(transform), pads[::2])
        sums = torch.baddbmm(sums, gradients, values, out=sums) if tiles.first else torch.bmm(gradients, values)
    flat = transform.t() @ sums.view(len(sums), -1)
    return flat.view(kernel, kernel, steps.shape[3], inputs.shape[3]).permute(2, 3, 0, 1)


def _kernels(weight: Tensor, transform: Tensor) -> Tensor:
    """Return the transformed kernels O x C x k x k: products x O x C."""
    outputs, channels, kernel, _ = weight.shape
    flat = transform @ weight.permute(2, 3, 0, 1).reshape(kernel**2, -1)
    return flat.view(-1, outputs, channels)


def _correlate(
    x: Tensor, kernels: Tensor, bias: Tensor | None, side: int, before: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """Return maps of this height and width for kernels products x channels x outputs."""
    maps = _pixels(x)
    y = maps.new_empty(len(x), *size, kernels.shape[2])
    for tiles in _chunks(len(x), size, side):
        products = torch.bmm(_transformed("input", maps, tiles, len(kernels), before), kernels)
        _call("output", y, tiles, (0, 0), products, bias, y)
    return y.permute(0, 3, 1, 2)


def _side(kernel: int, size: tuple[int, int]) -> int:
    """Return the tile size that needs the fewest products for outputs of this height and width."""
    return min(TILE_SIZES[kernel], key=lambda side: prod(_grid(size, side)) * (side + kernel - 1) ** 2)


def _grid(size: tuple[int, int], side: int) -> tuple[int, int]:
    return -(-size[0] // side), -(-size[1] // side)


def _chunks(images: int, size: tuple[int, int], side: int) -> Iterator[_Tiles]:
    """Yield the tiles of outputs of this height and width, CHUNK at a time."""
    rows, columns = _grid(size, side)
    total = images * rows * columns
    for first in range(0, total, CHUNK):
        count = min(CHUNK, total - first)
        yield _Tiles(rows=rows, columns=columns, first=first, count=count, side=side, threads=torch.get_num_threads())


def _transformed(kind: str, maps: Tensor, tiles: _Tiles, products: int, before: tuple[int, int] = (0, 0)) -> Tensor:
    """Return the transformed tiles of maps N x H x W x C: products x tiles x C.

    The first tile starts `before` (rows, columns) the map. A tile of zeros makes an even number of them odd, as the
    products of a tile would otherwise share cache lines.
    """
    found = maps.new_empty(products, tiles.count | 1, maps.shape[3])
    found[:, tiles.count :] = 0
    _call(kind, maps, tiles, before, maps, found)
    return found


def _call(kind: str, maps: Tensor, tiles: _Tiles, before: tuple[int, int], *arguments: Tensor | None) -> None:
    _, tiles.height, tiles.width, tiles.channels = maps.shape
    tiles.top, tiles.left = before
    getattr(library(), f"winograd_{kind}")(ctypes.byref(tiles), *map(address, arguments))


def _pixels(maps: Tensor) -> Tensor:
    """Return N x C x H x W in memory order: N x H x W x C."""
    return maps.permute(0, 2, 3, 1).contiguous()


@cache
def _transform(kernel: int, side: int) -> Tensor:
    """Return the matrix that transforms kernels of this size in both directions: products x kernel * kernel."""
    points = POINTS[: side + kernel - 2]
    factors = [1 / prod(point - other for other in points if other != point) for point in points]
    rows = [[factor * point**power for power in range(kernel)] for point, factor in zip(points, factors, strict=True)]
    one = torch.tensor([*rows, [0.0] * (kernel - 1) + [1.0]], dtype=torch.float64)
    return torch.kron(one, one).float()
