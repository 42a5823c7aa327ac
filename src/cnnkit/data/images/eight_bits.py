"""Images of all modes of Pillow converted to 8-bit grey or RGB, in bands, to save memory."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

__all__ = ["eight_bits", "is_grey"]

GREY = ("1", "L", "LA", "La", "I", "F")  # and the 16-bit modes, such as I;16
BAND = 1 << 20  # pixels that are converted at once


def is_grey(image: Image.Image) -> bool:
    """Return whether an image is grey, by its mode."""
    return image.mode in GREY or image.mode.startswith("I;")


def eight_bits(image: Image.Image) -> Image.Image:
    """Return an image as L or RGB, opaque, with 16-bit and float values scaled to 0-255."""
    if image.mode in ("L", "RGB") and "transparency" not in image.info:
        return image
    numeric = image.mode in ("I", "F")
    most = max(float(np.nan_to_num(np.asarray(band)).max()) for _, band in _bands(image)) if numeric else 0
    result = None
    for top, band in _bands(image):
        part = _converted(band, most)
        result = result or Image.new(part.mode, image.size)
        result.paste(part, (0, top))
    assert result  # no image is without pixels
    return result


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in bands of about BAND pixels, each with its first row."""
    rows = max(1, BAND // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _converted(image: Image.Image, most: float) -> Image.Image:
    """Return an image as L or RGB, opaque; a numeric one is a band of an image with the largest value `most`."""
    if image.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        values = np.asarray(image).astype(np.int64)
        scale = 1 if image.mode == "I" and most <= 255 else 257  # 32 bits may hold any range
        return Image.fromarray((values.clip(0, 255 * scale) // scale).astype(np.uint8))
    if image.mode == "F":
        values = np.nan_to_num(np.asarray(image))
        return Image.fromarray((values * (255 if most <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        grey = image.mode in GREY
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return image.convert("L" if grey else "RGB")
    return image.convert("L") if image.mode in GREY else image.convert("RGB")
