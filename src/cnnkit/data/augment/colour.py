"""Changes of colour and tone on uint8 batches, with an amount for each image; 0 changes nothing.

The results are bit-exact with Pillow's ImageEnhance and ImageOps for each image, except for `hue`, which Pillow lacks,
and `autocontrast`, which is one higher where Pillow's floats fall short of an integer. Each pixel depends only on its
own image, by integer or single float operations, so that neither the rest of the batch nor the device matters. Grey
images have no saturation and no hue to change.
"""

import math

import torch
from torch import Tensor

from cnnkit.core.device import send

__all__ = [
    "autocontrast",
    "brightness",
    "contrast",
    "equalize",
    "hue",
    "jitter",
    "posterize",
    "saturation",
    "sharpness",
    "solarize",
]


def brightness(images: Tensor, amounts: list[float]) -> Tensor:
    """Multiply each image N x C x H x W by 1 + its amount."""
    return _blend(images.new_zeros(1), images, amounts)


def contrast(images: Tensor, amounts: list[float]) -> Tensor:
    """Move pixels away from (or towards) the image's mean grey by 1 + its amount."""
    grey = _grey(images)
    size = grey.shape[1:].numel()
    mean = (2 * grey.sum((1, 2, 3), keepdim=True) + size) // (2 * size)
    return _blend(mean, images, amounts)


def saturation(images: Tensor, amounts: list[float]) -> Tensor:
    """Move pixels away from (or towards) their own grey by 1 + the image's amount."""
    return _blend(_grey(images), images, amounts)


def sharpness(images: Tensor, amounts: list[float]) -> Tensor:
    """Move pixels away from (or towards) their smoothed neighbourhood by 1 + the image's amount; edges stay."""
    x = images.int()
    columns = x[:, :, :-2] + x[:, :, 1:-1] + x[:, :, 2:]
    total = columns[..., :-2] + columns[..., 1:-1] + columns[..., 2:] + 4 * x[:, :, 1:-1, 1:-1]
    smooth = images.clone()
    smooth[:, :, 1:-1, 1:-1] = (2 * total + 13) // 26  # a thirteenth, rounded
    return _blend(smooth, images, amounts)


def posterize(images: Tensor, amounts: list[float]) -> Tensor:
    """Clear the lowest bits of each pixel, as many as the image's amount, rounded."""
    return images & _each(images, [256 - 2 ** round(amount) for amount in amounts], torch.uint8)


def solarize(images: Tensor, amounts: list[float]) -> Tensor:
    """Invert the pixels in the brightest part of the range 0-255, whose fraction is the image's amount."""
    threshold = _each(images, [256 * (1 - amount) for amount in amounts])
    return torch.where(images < threshold, images, 255 - images)


def autocontrast(images: Tensor, amounts: list[float]) -> Tensor:
    """Stretch each channel to 0-255; the amount is ignored."""
    lowest, highest = images.amin((2, 3), keepdim=True).int(), images.amax((2, 3), keepdim=True).int()
    spread = (images.int() - lowest) * 255 // (highest - lowest).clamp(min=1)
    return torch.where(highest > lowest, spread.byte(), images)


def equalize(images: Tensor, amounts: list[float]) -> Tensor:
    """Flatten each channel's histogram; the amount is ignored."""
    pixels = images.flatten(2).flatten(0, 1).long()
    counts = pixels.new_zeros(len(pixels), 256).scatter_add_(1, pixels, torch.ones_like(pixels))
    brightest = counts.gather(1, pixels.amax(1, keepdim=True))
    step = (pixels.shape[1] - brightest) // 255
    levels = (step // 2 + counts.cumsum(1) - counts) // step.clamp(min=1)
    levels = torch.where(step > 0, levels.clamp(max=255), torch.arange(256, device=images.device))
    return levels.gather(1, pixels).byte().view(images.shape)


def hue(images: Tensor, amounts: list[float]) -> Tensor:
    """Rotate colours around the grey axis of the RGB cube by the image's amount; a third of a turn makes red green."""
    if images.shape[1] != 3:
        return images
    weights = []
    for amount in amounts:
        cosine, sine = math.cos(2 * math.pi * amount), math.sin(2 * math.pi * amount)
        even, odd = (1 - cosine) / 3, sine / math.sqrt(3)
        weights.append((cosine + even, even + odd, even - odd))
    x = images.float()
    own, before, after = (_each(images, [row[column] for row in weights]) for column in range(3))
    turned = own * x
    turned += before * x.roll(1, 1)
    turned += after * x.roll(-1, 1)
    return turned.round_().clamp_(0, 255).byte()


def jitter(images: Tensor, u: Tensor, strength: float) -> Tensor:
    """Change brightness, contrast and saturation by up to `strength` either way, hue by up to a quarter of it.

    u is N x 4, a column for each.
    """
    images = images.contiguous()  # half the time of channels-last
    changes = ((brightness, 1.0), (contrast, 1.0), (saturation, 1.0), (hue, 0.25))
    for (change, scale), column in zip(changes, u.t().tolist(), strict=True):
        images = change(images, [scale * strength * (2 * value - 1) for value in column])
    return images


def _blend(base: Tensor, images: Tensor, amounts: list[float]) -> Tensor:
    """Interpolate from `base` to the image and beyond, truncated and clipped to 0-255, as Pillow does."""
    x = images.float()
    x -= base
    x *= _each(images, [1 + amount for amount in amounts])
    x += base
    return x.clamp_(0, 255).byte()


def _grey(images: Tensor) -> Tensor:
    """Return N x 1 x H x W: Pillow's luma (ITU-R 601) of colour images, others unchanged."""
    if images.shape[1] != 3:
        return images
    red, green, blue = images.int().chunk(3, 1)
    return ((19595 * red + 38470 * green + 7471 * blue + 32768) >> 16).byte()


def _each(images: Tensor, values: list[float], dtype: torch.dtype = torch.float32) -> Tensor:
    return send(torch.tensor(values, dtype=dtype), images.device).view(-1, 1, 1, 1)
