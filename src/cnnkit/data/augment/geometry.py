"""Augmentations that move or remove pixels of uint8 batches; pixels without a source become zero."""

import math

import torch
from torch import Tensor

from cnnkit.core.device import send
from cnnkit.core.resize import resize

__all__ = ["Matrix", "crop", "erase", "flip", "random_resized_crop", "warp"]

Matrix = tuple[float, float, float, float, float, float]


def flip(images: Tensor, u: Tensor) -> Tensor:
    """Mirror the images whose u (N x 1) is below a half, left to right."""
    result = images.flip(-1)  # selecting by bits, as below, takes half the time of torch.where
    result ^= images
    result &= _all_bits(u < 0.5, images)[:, :, None, None]
    result ^= images
    return result


def crop(images: Tensor, u: Tensor, padding: int | None = None) -> Tensor:
    """Pad with zeros (default: an eighth of each side), and crop to the original size at u (N x 2: y, x)."""
    number, channels, height, width = images.shape
    if not number:
        return images
    top, left = (-(-side // 8) if padding is None else padding for side in (height, width))
    padded = images.new_zeros(number, height + 2 * top, width + 2 * left, channels)
    padded[:, top : top + height, left : left + width] = images.permute(0, 2, 3, 1)
    y, x = ((u[:, axis, None] * (2 * most + 1)).long() for axis, most in enumerate((top, left)))
    # each row of the result is contiguous in `padded`
    rows = torch.arange(number, device=u.device)[:, None] * (height + 2 * top) + y
    starts = (rows + torch.arange(height, device=u.device)) * (width + 2 * left) + x
    pieces = padded.view(-1).unfold(0, width * channels, 1)
    taken = pieces.index_select(0, send((starts * channels).view(-1), images.device))
    return taken.view(number, height, width, channels).permute(0, 3, 1, 2)


def random_resized_crop(images: Tensor, u: Tensor, smallest: float = 0.08, *, size: tuple[int, int]) -> Tensor:
    """Crop a part of each image and resize it to `size` (Szegedy et al. 2015).

    u is N x 4: the part's area, from `smallest` to 1 of the image's; its width / height, from 3/4 to 4/3 on a
    logarithmic scale, as far as that area fits; y and x. If no such part fits into a long image, the largest one of
    the nearest ratio is used. Bilinear, antialiased when shrinking.
    """
    channels, height, width = images.shape[1:]
    bytes_suffice = images.device.type == "cpu"  # elsewhere torch resizes floats only
    parts = [images.new_empty((0, channels, *size))]
    for row, (area, ratio, y, x) in enumerate(u.tolist()):
        tall, wide = _box((smallest + (1 - smallest) * area) * height * width, ratio, height, width)
        top, left = int(y * (height - tall + 1)), int(x * (width - wide + 1))
        part = images[row : row + 1, :, top : top + tall, left : left + wide]
        part = part if bytes_suffice else part.float()
        parts.append(resize(part, size))
    result = torch.cat(parts)
    return result if bytes_suffice else result.round_().clamp_(0, 255).byte()


def erase(images: Tensor, u: Tensor, probability: float = 0.25) -> Tensor:
    """Set a rectangle to zero in some images, each with this probability (random erasing: Zhong et al. 2020).

    u is N x 5: whether; its area, from 0.02 to 0.4 of the image's; its height / width, from 0.3 to 1 / 0.3; y and x.
    A side longer than the image's is clipped to it.
    """
    number, channels, height, width = images.shape
    whether, share, ratio, y, x = u.split(1, 1)
    area = (share * 0.38 + 0.02) * (height * width)
    tall = (area * (ratio * (1 / 0.3 - 0.3) + 0.3)).sqrt().round().clamp(1, height)
    wide = (area / tall).round().clamp(1, width)
    top, left = (y * (height - tall + 1)).floor(), (x * (width - wide + 1)).floor()
    tall = tall * (whether < probability)
    rows, columns = torch.arange(height, device=u.device), torch.arange(width, device=u.device)
    in_rows = _all_bits((rows >= top) & (rows < top + tall), images)
    in_columns = _all_bits((columns >= left) & (columns < left + wide), images).repeat_interleave(channels, 1)
    # along the rows in memory order: a quarter of the time of masked_fill
    kept = (in_rows[:, :, None] & in_columns[:, None]).bitwise_not_()
    kept &= images.permute(0, 2, 3, 1).reshape(number, height, width * channels)
    return kept.view(number, height, width, channels).permute(0, 3, 1, 2)


def warp(images: Tensor, matrices: list[Matrix]) -> Tensor:
    """Set each pixel (x, y) to the one nearest to (a x + b y + c, d x + e y + f), with (a, ..., f) for each image.

    Coordinates are integers of 1/65536 pixel, as in Pillow's `transform`, and so the same on every device.
    """
    number, channels, height, width = images.shape
    fixed = [
        [math.floor(65536 * value + 0.5) for value in (a, b, c + (a + b) / 2, d, e, f + (d + e) / 2)]
        for a, b, c, d, e, f in matrices
    ]
    a, b, c, d, e, f = send(torch.tensor(fixed), images.device).view(number, 6, 1, 1).unbind(1)
    x, y = torch.arange(width, device=images.device), torch.arange(height, device=images.device)[:, None]
    column, row = (a * x + b * y + c) >> 16, (d * x + e * y + f) >> 16
    inside = (column >= 0) & (column < width) & (row >= 0) & (row < height)
    place = torch.where(inside, row * width + column, 0).view(number, 1, -1).expand(-1, channels, -1)
    return images.flatten(2).gather(2, place).view(images.shape).masked_fill(~inside[:, None], 0)


def _all_bits(chosen: Tensor, images: Tensor) -> Tensor:
    """Return 255 where true and 0 elsewhere, to select bytes, on the device of the images."""
    return send(chosen.to(torch.uint8) * 255, images.device)


def _box(area: float, u: float, height: int, width: int) -> tuple[int, int]:
    """Return the height and width of a part of this area, with a ratio drawn by u."""
    low, high = max(3 / 4, area / height**2), min(4 / 3, width**2 / area)
    if low > high:
        low = high = min(max(width / height, 3 / 4), 4 / 3)
    ratio = low * (high / low) ** u
    area = min(area, height**2 * ratio, width**2 / ratio)
    return max(1, round(math.sqrt(area / ratio))), max(1, round(math.sqrt(area * ratio)))
