"""Bilinear resizing, antialiased when shrinking: the triangle filter spans the distance of the output pixels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

__all__ = ["resize", "resize_part"]

Span = tuple[int, int]  # of rows or columns: start, and stop (exclusive)


def resize(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return images N x C x H x W resized to `size` (H, W), in their dtype: floats or, on a CPU, uint8 (rounded)."""
    if size[1] > 1:
        return F.interpolate(images, size, mode="bilinear", align_corners=False, antialias=True)
    # on CPUs, torch uses the first row for every row of maps with a single column
    resized = resize_part(images, size, (0, size[0]), (0, 1))
    return resized if images.is_floating_point() else resized.round_().clamp_(0, 255).to(images.dtype)


def resize_part(images: Tensor, size: tuple[int, int], rows: Span, columns: Span) -> Tensor:
    """Return the `rows` and `columns` of the result of `resize`; integers become float32.

    Uses memory only for this part and the pixels that it is computed from. Two matrix products: slower than `resize`.
    """
    top, bottom, down = _triangles(images.shape[-2], size[0], rows)
    left, right, along = _triangles(images.shape[-1], size[1], columns)
    seen = images[..., top:bottom, left:right]
    seen = seen if seen.is_floating_point() else seen.float()
    down, along = (weights.to(seen.dtype).to(seen.device) for weights in (down, along))
    return down @ (seen @ along.mT)


def _triangles(pixels: int, size: int, part: Span) -> tuple[int, int, Tensor]:
    """Return the start and stop of the input pixels of an axis, and their weights in each output pixel of the part."""
    step = pixels / size
    reach = max(step, 1.0)
    centres = (torch.arange(*part, dtype=torch.float64) + 0.5) * step
    first = max(0, math.floor(centres[0].item() - reach))
    last = min(pixels, math.ceil(centres[-1].item() + reach))
    distances = torch.arange(first, last, dtype=torch.float64) + 0.5 - centres[:, None]
    weights = (1 - distances.abs() / reach).clamp(min=0)
    return first, last, weights / weights.sum(1, keepdim=True)
