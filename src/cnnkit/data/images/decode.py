"""Images from files, whatever their mode, as uint8 arrays and tensors."""

import re
from collections.abc import Callable
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import Image, JpegImagePlugin, UnidentifiedImageError
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
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
    "read_header",
    "read_image",
    "reason_of",
    "thumbnail",
    "write_image",
]

THUMB = 12  # pixels in height and width of a thumbnail
DRAFT_GAP = 2  # a JPEG is decoded to at least so many times the size it is then resized to

P = ParamSpec("P")
R = TypeVar("R")


class Header(NamedTuple):
    """What an image is when upright: its size in pixels, and whether it is grey."""

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

    C is 1 (grey) or 3 (RGB); None keeps what the file has. Palettes are looked up, transparency is laid over
    white, 16-bit grey is scaled to 8 bits, CMYK converted; the first frame counts. With `size` (H, W), the image
    is fitted into it as by `resize_with_pad`; a large JPEG is decoded small. Raises DataError for a file that is
    missing, corrupt, no image, or has more than `max_pixels` as decoded.
    """
    allow_pixels(max_pixels)
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3, not {channels}")
    try:
        array = decode_image(read_file(path), channels, size, max_pixels=max_pixels)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def write_image(path: Path, image: Tensor) -> None:
    """Write a uint8 image C x H x W (C of 1 or 3) in the format of the path's suffix.

    Raises UsageError for a suffix that names no format, CnnkitError if the file cannot be written.
    """
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    form = suffix_format(str(path))
    if form is None or not (form.opener and form.written):
        raise UsageError(f"{path}: no image format that is written has this suffix; use .png")
    picture, written = Image.fromarray(np.ascontiguousarray(array)), form.written
    write_output(path, lambda file: picture.save(file, written))


def _told(function: Callable[P, R]) -> Callable[P, R]:
    """Let a function raise DataError, with the reason alone, for whatever Pillow raises."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return function(*args, **kwargs)
        except DataError:
            raise
        except Exception as error:
            raise reason_of(error) from error

    return call


@_told
def read_header(file: IO[bytes]) -> Header:
    """Return what the image in an open file is, without decoding it; raises DataError with the reason alone."""
    if plain := plain_png(file):
        return Header(plain.height, plain.width, plain.mode == "L")
    picture = open_image(file, pixels=False)
    height, width = picture.height, picture.width
    if orientation_of(picture) > 4:
        height, width = width, height
    return Header(height, width, is_grey(picture))


@_told
def decode_image(
    content: bytes,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    enlarge: bool = True,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> np.ndarray:
    """Return what `read_image` does, for the bytes of a file and as H x W x C; the array may be read-only.

    Without `enlarge`, an image that fits into `size` as it is stays so. Raises DataError with the reason alone.
    """
    return _pixels(_frame(content, size, max_pixels).upright(size), channels, size, enlarge)


@_told
def decode_with_thumb(
    content: bytes,
    channels: int | None = None,
    size: tuple[int, int] | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `decode_image` and `thumbnail` do; but for some JPEGs the file is decoded once for both."""
    frame = _frame(content, size, max_pixels)
    thumb = _thumb(frame) if frame.suits_thumb else thumbnail(content, max_pixels)
    return _pixels(frame.upright(size), channels, size), thumb


@_told
def thumbnail(content: bytes, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray:
    """Return the image in the bytes of a file as THUMB x THUMB RGB values, flat and uint8, aspect ratio not kept.

    They follow from the bytes alone. A JPEG is decoded small. Raises DataError with the reason alone.
    """
    return _thumb(_frame(content, (THUMB, THUMB), max_pixels, stretch=True))


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size within `size` that keeps the aspect ratio."""
    scale = min(size[0] / height, size[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def reason_of(error: Exception) -> DataError:
    """Return what to say of anything that Pillow raises: a corrupt file can bring forth any error."""
    if isinstance(error, UnidentifiedImageError | SyntaxError):
        return DataError("not an image that can be read")
    if isinstance(error, MemoryError):
        return DataError("refused: it does not fit into memory")
    if isinstance(error, Image.DecompressionBombError):
        pixels = int(re.findall(r"\d+", str(error))[0])
        return too_many_pixels(pixels, f"{pixels:,}")
    return DataError(f"the image is corrupt or cut short ({error})")


class _Frame(NamedTuple):
    """The first frame of a file as it is stored, L or RGB; a JPEG may be decoded small."""

    picture: Image.Image
    orientation: int = 1
    whole: tuple[int, int] = (0, 0)  # width and height of a JPEG, 0 of others
    box: tuple[float, float, float, float] | None = None  # what the image covers of a picture decoded small

    @property
    def suits_thumb(self) -> bool:
        """Whether a thumbnail would be made of the same picture."""
        scale = _scale(self.whole, (DRAFT_GAP * THUMB, DRAFT_GAP * THUMB))
        return not self.whole[0] or self.picture.size == (-(-self.whole[0] // scale), -(-self.whole[1] // scale))

    def upright(self, size: tuple[int, int] | None) -> Image.Image:
        """Return the image upright, a JPEG that was decoded small as large as fits into `size` (H, W)."""
        picture = self.picture
        if self.box and size:
            inner = _inner(self.whole, self.orientation, size)
            picture = picture.resize(inner, Image.Resampling.BILINEAR, self.box)
        return upright(picture, self.orientation)


def _frame(content: bytes, size: tuple[int, int] | None, max_pixels: int, stretch: bool = False) -> _Frame:
    """Decode a file; a JPEG to not much more than `size` (H, W) takes, with its aspect ratio kept or not."""
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
    """Return width and height, as stored, of an image that is fitted into `size` (H, W) when it is upright."""
    if orientation > 4:
        return fitted_size(*whole, size)
    height, width = fitted_size(*whole[::-1], size)
    return width, height


def _scale(whole: tuple[int, int], least: tuple[int, int]) -> int:
    """Return by what Pillow divides a JPEG that is to be decoded to at least so many pixels."""
    most = min(whole[0] // least[0], whole[1] // least[1])
    return next((scale for scale in (8, 4, 2) if scale <= most), 1)


def _pixels(
    picture: Image.Image, channels: int | None, size: tuple[int, int] | None, enlarge: bool = True
) -> np.ndarray:
    """Return an image, L or RGB, as H x W x C."""
    if channels is None:
        channels = 1 if picture.mode == "L" else 3
    mode = "L" if channels == 1 else "RGB"
    if picture.mode != mode:
        picture = picture.convert(mode)
    if size is not None and picture.size != size[::-1] and (enlarge or exceeds(picture, size)):
        picture = fitted(picture, size)
    return np.frombuffer(picture.tobytes(), np.uint8).reshape(picture.height, picture.width, channels)


def _thumb(frame: _Frame) -> np.ndarray:
    """Return a frame that `suits_thumb` as a thumbnail."""
    small = frame.picture.resize((THUMB, THUMB), Image.Resampling.BILINEAR, frame.box, reducing_gap=3)
    small = upright(small, frame.orientation)
    values = np.frombuffer(small.tobytes(), np.uint8)
    return values if small.mode == "RGB" else values.repeat(3)


def exceeds(picture: Image.Image, size: tuple[int, int]) -> bool:
    """Return whether an image is higher or wider than `size` (H, W)."""
    return picture.height > size[0] or picture.width > size[1]


def fitted(picture: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Return an image, L or RGB, fitted into `size` (H, W) with its aspect ratio kept, centred on black."""
    height, width = fitted_size(picture.height, picture.width, size)
    canvas = Image.new(picture.mode, size[::-1])
    inner = picture.resize((width, height), Image.Resampling.BILINEAR)
    canvas.paste(inner, ((size[1] - width) // 2, (size[0] - height) // 2))
    return canvas
