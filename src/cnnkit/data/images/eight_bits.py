"""Images of every mode of Pillow's as grey or RGB of 8 bits, converted in bands, so that little memory is taken."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

__all__ = ["eight_bits", "is_grey"]

GREY = ("1", "L", "LA", "La", "I", "F")  # and the modes of 16 bits, I;16 and its like
BAND = 1 << 20  # pixels that are converted at once


def is_grey(picture: Image.Image) -> bool:
    """Return whether an image has no colour, by its mode."""
    return picture.mode in GREY or picture.mode.startswith("I;")


def eight_bits(picture: Image.Image) -> Image.Image:
    """Return an image as L or RGB, opaque, with 16-bit and float values brought to 0-255.

    It is converted in bands: besides the image and the result, little memory is taken.
    """
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    most = max(_largest(band) for _, band in _bands(picture)) if picture.mode in ("I", "F") else 0
    result = None
    for top, band in _bands(picture):
        part = _converted(band, most)
        result = result or Image.new(part.mode, picture.size)
        result.paste(part, (0, top))
    assert result  # no image is without pixels
    return result


def _bands(picture: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in parts of its width and about BAND pixels, each with the row that it begins at."""
    rows = max(1, BAND // picture.width)
    for top in range(0, picture.height, rows):
        yield top, picture.crop((0, top, picture.width, min(top + rows, picture.height)))


def _largest(picture: Image.Image) -> float:
    """Return the largest value of an image of numbers."""
    return float(np.nan_to_num(np.asarray(picture)).max())


def _converted(picture: Image.Image, most: float) -> Image.Image:
    """Return an image as L or RGB, opaque; one of numbers is part of an image with `most` as the largest."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        values = np.asarray(picture).astype(np.int64)
        scale = 1 if picture.mode == "I" and most <= 255 else 257  # 32 bits may hold any range
        return Image.fromarray((values.clip(0, 255 * scale) // scale).astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        return Image.fromarray((values * (255 if most <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        grey = picture.mode in GREY
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return picture.convert("L" if grey else "RGB")
    return picture.convert("L") if picture.mode in GREY else picture.convert("RGB")
