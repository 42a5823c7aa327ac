"""Image files of any mode, decoded to uint8 arrays and tensors."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
import torch
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError, about
from cnnkit.core.files import write_output
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.data.files import read_file
from cnnkit.data.images.eight_bits import eight_bits, is_grey
from cnnkit.data.images.formats import allow_pixels, open_image, require_pixels, suffix_format, too_many_pixels
from cnnkit.data.images.orientation import orientation_of, upright
from cnnkit.data.images.png import plain_png, small_png

__all__ = [
    "THUMB",
    "Header",
    "decode_image",
    "decode_with_thumb",
    "exceeds",
    "fitted",
    "fitted_size",
    "pillow_errors",
    "read_header",
    "read_image",
    "thumbnail",
    "write_image",
]

THUMB = 12  # pixels in height and width of a thumbnail
DRAFT_GAP = 2  # a JPEG is decoded to at least this multiple of the size it is then resized to


class Header(NamedTuple):
    """The properties of an upright image: its size in pixels, and whether it is grey."""

    height: int
    width: int
    grey: bool


def read_image(
    path: Path,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Tensor:
    """Return the image as uint8, C x H x W, upright (EXIF orientation applied).

    C is 1 (grey) or 3 (RGB); None keeps the file's. Palettes are applied, transparency is composited over white,
    16-bit grey is scaled to 8 bits, CMYK converted; the first frame is used. With `size` (H, W), the image is fitted
    into it as by `resize_with_pad`; a large JPEG is decoded at a reduced size. Raises DataError for a file that is
    missing, corrupt, not an image, or decodes to more than `max_pixels`.
    """
    allow_pixels(max_pixels)
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3, not {channels}")
    with about(path):
        array = decode_image(read_file(path), channels, size, max_pixels=max_pixels)
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def write_image(path: Path, image: Tensor) -> None:
    """Write a uint8 image C x H x W (C of 1 or 3) in the format of the path's suffix.

    Raises UsageError for a suffix that names no format, CnnkitError if the file cannot be written.
    """
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    form = suffix_format(str(path))
    if form is None or not (form.opener and form.written):
        raise UsageError(f"{path}: images cannot be written in a format with this suffix; use .png")
    written = form.written
    write_output(path, lambda file: Image.fromarray(np.ascontiguousarray(array)).save(file, written))


@contextmanager
def pillow_errors() -> Iterator[None]:
    """Raise DataError, with the reason alone, for any exception of Pillow."""
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # a corrupt file may raise any
        raise _reason(error) from error


@pillow_errors()
def read_header(file: IO[bytes]) -> Header:
    """Return the properties of an image file without decoding it; raises DataError with the reason alone."""
    if plain := plain_png(file):
        return Header(plain.height, plain.width, plain.mode == "L")
    image = open_image(file, pixels=False)
    height, width = image.height, image.width
    if orientation_of(image) > 4:
        height, width = width, height
    return Header(height, width, is_grey(image))


@pillow_errors()
def decode_image(
    content: bytes,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    enlarge: bool = True,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> np.ndarray:
    """Decode the bytes of a file as `read_image` does, to H x W x C; the array may be read-only.

    Without `enlarge`, an image that fits into `size` is not resized. Raises DataError with the reason alone.
    """
    return _pixels(_frame(content, size, max_pixels).upright(size), channels, size, enlarge)


@pillow_errors()
def decode_with_thumb(
    content: bytes,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return the results of `decode_image` and `thumbnail`; except for some JPEGs, the file is decoded once."""
    frame = _frame(content, size, max_pixels)
    thumb = _thumb(frame) if frame.suits_thumb else thumbnail(content, max_pixels)
    return _pixels(frame.upright(size), channels, size), thumb


@pillow_errors()
def thumbnail(content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return an image file's thumbnail, THUMB x THUMB RGB values, flat, uint8, without keeping the aspect ratio.

    They depend only on the bytes. A JPEG is decoded at a reduced size. Raises DataError with the reason alone.
    """
    return _thumb(_frame(content, (THUMB, THUMB), max_pixels, stretch=True))


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size within `size` that keeps the aspect ratio."""
    scale = min(size[0] / height, size[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def _reason(error: Exception) -> DataError:
    if isinstance(error, UnidentifiedImageError | SyntaxError):
        return DataError("not an image of a supported format")
    if isinstance(error, MemoryError):
        return DataError("refused: it does not fit into memory")
    if isinstance(error, Image.DecompressionBombError):
        pixels = int(re.findall(r"\d+", str(error))[0])
        return too_many_pixels(pixels, f"{pixels:,}")
    return DataError(f"the image is corrupt or incomplete ({error})")


class _Frame(NamedTuple):
    """The first frame of a file as stored, L or RGB; a JPEG may be decoded at a reduced size."""

    image: Image.Image
    orientation: int = 1
    whole: tuple[int, int] = (0, 0)  # width and height of a JPEG, 0 of others
    box: tuple[float, float, float, float] | None = None  # the part that the image covers, if decoded at a reduced size

    @property
    def suits_thumb(self) -> bool:
        """Whether the thumbnail is made from the same frame."""
        scale = _scale(self.whole, (DRAFT_GAP * THUMB, DRAFT_GAP * THUMB))
        return not self.whole[0] or self.image.size == (-(-self.whole[0] // scale), -(-self.whole[1] // scale))

    def upright(self, size: tuple[int, int] | None) -> Image.Image:
        """Return the upright image; a JPEG decoded at a reduced size is fitted into `size` (H, W)."""
        image = self.image
        if self.box and size:
            inner = _inner(self.whole, self.orientation, size)
            image = image.resize(inner, Image.Resampling.BILINEAR, self.box)
        return upright(image, self.orientation)


def _frame(content: bytes, size: tuple[int, int] | None, max_pixels: int, stretch: bool = False) -> _Frame:
    """Decode a file; a JPEG to little more than `size` (H, W), or with `stretch` to that without its aspect ratio."""
    if plain := small_png(content):
        return _Frame(plain)
    file = open_image(BytesIO(content))
    orientation = orientation_of(file)
    if not isinstance(file, JpegImagePlugin.JpegImageFile):
        require_pixels(file, max_pixels)
        return _Frame(eight_bits(file), orientation)
    whole, box = file.size, None
    if size is not None:
        inner = size if stretch else _inner(whole, orientation, size)
        box = file.draft(None, (DRAFT_GAP * inner[0], DRAFT_GAP * inner[1]))
    require_pixels(file, max_pixels)
    return _Frame(eight_bits(file), orientation, whole, box[1] if box and file.size != whole else None)


def _inner(whole: tuple[int, int], orientation: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the stored width and height of an image that is fitted into `size` (H, W) when upright."""
    if orientation > 4:
        return fitted_size(*whole, size)
    height, width = fitted_size(*whole[::-1], size)
    return width, height


def _scale(whole: tuple[int, int], least: tuple[int, int]) -> int:
    """Return by what Pillow divides the size of a JPEG that must be decoded to at least `least`."""
    most = min(whole[0] // least[0], whole[1] // least[1])
    return next((scale for scale in (8, 4, 2) if scale <= most), 1)


def _pixels(image: Image.Image, channels: int | None, size: tuple[int, int] | None, enlarge: bool = True) -> np.ndarray:
    """Return an image, L or RGB, as H x W x C."""
    if channels is None:
        channels = 1 if image.mode == "L" else 3
    mode = "L" if channels == 1 else "RGB"
    if image.mode != mode:
        image = image.convert(mode)
    if size is not None and image.size != size[::-1] and (enlarge or exceeds(image, size)):
        image = fitted(image, size)
    return np.frombuffer(image.tobytes(), np.uint8).reshape(image.height, image.width, channels)


def _thumb(frame: _Frame) -> np.ndarray:
    """Return the thumbnail of a frame that `suits_thumb`."""
    small = frame.image.resize((THUMB, THUMB), Image.Resampling.BILINEAR, frame.box, reducing_gap=3)
    small = upright(small, frame.orientation)
    values = np.frombuffer(small.tobytes(), np.uint8)
    return values if small.mode == "RGB" else values.repeat(3)


def exceeds(image: Image.Image, size: tuple[int, int]) -> bool:
    """Return whether an image is higher or wider than `size` (H, W)."""
    return image.height > size[0] or image.width > size[1]


def fitted(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image, L or RGB, fitted into `size` (H, W) with its aspect ratio kept, centred on black."""
    height, width = fitted_size(image.height, image.width, size)
    canvas = Image.new(image.mode, size[::-1])
    inner = image.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(inner, ((size[1] - width) // 2, (size[0] - height) // 2))
    return canvas
