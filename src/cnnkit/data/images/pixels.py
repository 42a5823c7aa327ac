"""Images in Python (PIL images, arrays, tensors) as uint8 pixels."""

from typing import Any

import numpy as np
import torch
from PIL import Image

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.shape import by
from cnnkit.data.images.decode import exceeds, fitted, pillow_errors
from cnnkit.data.images.eight_bits import eight_bits
from cnnkit.data.images.formats import require_pixels
from cnnkit.data.images.orientation import upright

__all__ = ["to_array", "to_bytes", "to_pixels"]

CHANNELS = (1, 3, 4)  # grey, RGB, RGBA: axes of other lengths are heights and widths


def to_pixels(
    image: Any,
    channels: int | None = None,
    shrink: tuple[int, int] | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> np.ndarray:
    """Return an image as uint8 H x W x C.

    A PIL image is turned upright and converted like one from a file. An array is H x W or H x W x C, a tensor H x W or
    C x H x W; floats are 0 to 1. The result has `channels` (1 or 3) if given; transparency is composited over white. An
    image larger than `shrink` (H, W) is fitted into it, as in training. Raises DataError with the reason alone, also
    for a PIL image of more than `max_pixels`.
    """
    if isinstance(image, Image.Image):
        with pillow_errors():  # such as for a truncated or closed file
            if not image.width * image.height:
                raise DataError("it has no pixels")
            require_pixels(image, max_pixels)
            pil = eight_bits(upright(image))
            pil.load()
    else:
        pixels = _last(image)
        if pixels.shape[2] not in CHANNELS or channels not in (None, 1, 3):
            if channels not in (None, pixels.shape[2]):
                raise DataError(f"it has {pixels.shape[2]} channels, not {channels}")
            return pixels
        pil = eight_bits(Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))
    mode = "L" if (channels or len(pil.getbands())) == 1 else "RGB"
    pil = pil if pil.mode == mode else pil.convert(mode)
    if shrink is not None and exceeds(pil, shrink):
        pil = fitted(pil, shrink)
    return np.asarray(pil).reshape(pil.height, pil.width, -1)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Return pixel values as uint8: integers from 0 to 255 unchanged, floats from 0 to 1 times 255.

    Raises DataError with the reason alone for other values and NaN.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype.kind not in "iuf":
        raise DataError(f"pixels must be integers or floats, not {values.dtype}")
    low, high = (values.min(), values.max()) if values.size else (0, 0)
    most = 1 if values.dtype.kind == "f" else 255
    if not (low >= 0 and high <= most):  # also for NaN
        raise DataError(f"{values.dtype} pixels must be 0 to {most}, not {low:.6g} to {high:.6g}")
    return (values * 255.0).round().astype(np.uint8) if most == 1 else values.astype(np.uint8)


def to_array(values: Any) -> np.ndarray:
    """Return an array, a tensor or a list as an array; raises DataError with the reason alone."""
    try:
        if isinstance(values, torch.Tensor):
            values = values.detach().cpu()
            return np.asarray(values.float() if values.dtype == torch.bfloat16 else values)  # numpy lacks it
        return np.asarray(values)
    except (TypeError, ValueError, RuntimeError) as error:
        raise DataError(f"{type(values).__name__} is not an array: {error}") from error


def _last(image: Any) -> np.ndarray:
    """Return an array or tensor as uint8 with the channels last."""
    is_tensor = isinstance(image, torch.Tensor)
    values = to_array(image)
    if values.dtype == object or values.ndim not in (2, 3) or not values.size:
        shapes = "H x W or C x H x W" if is_tensor else "H x W or H x W x C"
        what = by(*values.shape) if values.ndim else f"{type(image).__name__}"
        raise DataError(f"an image must be {shapes}, not {what}")
    values = to_bytes(values)
    if values.ndim == 2:
        return np.ascontiguousarray(values[..., None])
    first, last = values.shape[0] in CHANNELS, values.shape[2] in CHANNELS
    channels_first = not last if is_tensor is False and first else is_tensor and (first or not last)
    return np.ascontiguousarray(values.transpose(1, 2, 0) if channels_first else values)
