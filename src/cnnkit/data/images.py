"""Pictures from files, whatever their mode, as uint8 tensors."""

from collections.abc import Callable
from functools import wraps
from io import BytesIO
from pathlib import Path
from typing import IO, NamedTuple, ParamSpec, TypeVar

import numpy as np
import torch
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    PngImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)
from PIL.ImageFile import ImageFile
from torch import Tensor

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data.files import read_file
from cnnkit.data.orientation import orientation_of, upright
from cnnkit.data.png import PLAIN, plain_png, small_png

__all__ = [
    "THUMB",
    "Header",
    "decode_image",
    "decode_with_thumb",
    "eight_bits",
    "exceeds",
    "fitted",
    "fitted_size",
    "read_header",
    "read_image",
    "reason_of",
    "thumbnail",
    "write_image",
]

JPEG = b"\xff\xd8"  # the first bytes
# What a file begins with tells its format. `Image.open` warns of large pictures, and warnings are not for threads.
OPENERS: dict[bytes, Callable[..., ImageFile]] = {
    b"\x89P": PngImagePlugin.PngImageFile,
    JPEG: JpegImagePlugin.jpeg_factory,
    b"RI": WebPImagePlugin.WebPImageFile,
    b"BM": BmpImagePlugin.BmpImageFile,
    b"GI": GifImagePlugin.GifImageFile,
    b"II": TiffImagePlugin.TiffImageFile,
    b"MM": TiffImagePlugin.TiffImageFile,
    **{f"P{digit}".encode(): PpmImagePlugin.PpmImageFile for digit in range(1, 7)},
}
GREY = ("1", "L", "LA", "La", "I", "F")  # and the modes of 16 bits, I;16 and its like
THUMB = 12  # pixels in height and width of a thumbnail
DRAFT_GAP = 2  # a JPEG is decoded to at least so many times the size it is then resized to

P = ParamSpec("P")
R = TypeVar("R")


class Header(NamedTuple):
    """What a picture is when upright: its size in pixels, and whether it is grey."""

    height: int
    width: int
    grey: bool


def read_image(path: Path, channels: int | None = None, size: tuple[int, int] | None = None) -> Tensor:
    """Return the picture as uint8, C x H x W, upright (EXIF orientation applied).

    C is 1 (grey) or 3 (RGB); None keeps what the file has. Palettes are looked up, transparency is laid over
    white, 16-bit grey is scaled to 8 bits, CMYK converted; the first frame counts. With `size` (H, W), the picture
    is fitted into it as by `resize_with_pad`; a large JPEG is decoded small. Raises DataError for a file that is
    missing, damaged, no picture or absurdly large.
    """
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3, not {channels}")
    try:
        array = decode_image(read_file(path), channels, size)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    return torch.from_numpy(array.copy()).permute(2, 0, 1)


def write_image(path: Path, image: Tensor) -> None:
    """Write a uint8 image C x H x W (C of 1 or 3) in the format of the path's suffix.

    Raises UsageError for a suffix that names no format, CnnkitError if the file cannot be written.
    """
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(path)
    except (ValueError, KeyError) as error:  # unknown, or known but not to be written
        raise UsageError(f"{path}: no picture format has this suffix; use .png") from error
    except OSError as error:
        raise CnnkitError(f"{path}: cannot be written ({error.strerror or error})") from error


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
    if plain := plain_png(file.read(PLAIN)):
        return Header(plain.height, plain.width, plain.mode == "L")
    picture = _open(file)
    height, width = picture.height, picture.width
    if orientation_of(picture) > 4:
        height, width = width, height
    return Header(height, width, picture.mode in GREY or picture.mode.startswith("I;"))


@_told
def decode_image(
    content: bytes, channels: int | None = None, size: tuple[int, int] | None = None, enlarge: bool = True
) -> np.ndarray:
    """Return what `read_image` does, for the bytes of a file and as H x W x C; the array may be read-only.

    Without `enlarge`, an image that fits into `size` as it is stays so. Raises DataError with the reason alone.
    """
    return _pixels(small_png(content) or _upright(content, size), channels, size, enlarge)


@_told
def decode_with_thumb(
    content: bytes, channels: int | None = None, size: tuple[int, int] | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return what `decode_image` and `thumbnail` do; most formats are decoded once for both."""
    picture = small_png(content) or _upright(content, size)
    thumb = thumbnail(content) if content.startswith(JPEG) else _thumb(picture)
    return _pixels(picture, channels, size), thumb


@_told
def thumbnail(content: bytes) -> np.ndarray:
    """Return the image in the bytes of a file as THUMB x THUMB RGB values, flat and uint8, aspect ratio not kept.

    They follow from the bytes alone. A JPEG is decoded small. Raises DataError with the reason alone.
    """
    return _thumb(small_png(content) or _upright(content, (THUMB, THUMB), stretch=True))


def fitted_size(height: int, width: int, size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest size within `size` that keeps the aspect ratio."""
    scale = min(size[0] / height, size[1] / width)
    return max(1, round(height * scale)), max(1, round(width * scale))


def reason_of(error: Exception) -> DataError:
    """Return what to say of anything that Pillow raises: a damaged file can bring forth any error."""
    if isinstance(error, UnidentifiedImageError | SyntaxError):
        return DataError("not a picture that can be read")
    if isinstance(error, Image.DecompressionBombError):
        return DataError(f"refused: {error}")
    return DataError(f"the picture is damaged or cut short ({error})")


def _upright(content: bytes, size: tuple[int, int] | None, stretch: bool = False) -> Image.Image:
    """Return the first frame as L or RGB.

    A JPEG that is much larger than `size` (H, W) takes is brought to it, with its aspect ratio unless it is stretched.
    """
    file = _open(BytesIO(content))
    if not isinstance(file, JpegImagePlugin.JpegImageFile):
        file.load()  # their orientation may lie behind their pixels
    orientation, whole, box = orientation_of(file), file.size, None
    if size is not None:
        turned = orientation > 4
        inner = size if stretch else fitted_size(*(whole if turned else whole[::-1]), size)
        inner = inner if turned else inner[::-1]
        box = file.draft(None, (DRAFT_GAP * inner[0], DRAFT_GAP * inner[1]))
    picture = eight_bits(file)
    if box and file.size != whole:
        picture = picture.resize(inner, Image.Resampling.BILINEAR, box[1])
    return upright(picture, orientation)


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


def _thumb(picture: Image.Image) -> np.ndarray:
    """Return an image, L or RGB, as a thumbnail."""
    small = picture.resize((THUMB, THUMB), Image.Resampling.BILINEAR, reducing_gap=3)
    values = np.frombuffer(small.tobytes(), np.uint8)
    return values if small.mode == "RGB" else values.repeat(3)


def eight_bits(picture: Image.Image) -> Image.Image:
    """Return an image as L or RGB, opaque, with 16-bit and float values brought to 0-255."""
    if picture.mode in ("L", "RGB") and "transparency" not in picture.info:
        return picture
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        values = np.asarray(picture).astype(np.int64)
        scale = 1 if picture.mode == "I" and values.max() <= 255 else 257  # 32 bits may hold any range
        return Image.fromarray((values.clip(0, 255 * scale) // scale).astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        return Image.fromarray((values * (255 if values.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        grey = picture.mode in GREY
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return picture.convert("L" if grey else "RGB")
    return picture.convert("L") if picture.mode in GREY else picture.convert("RGB")


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


def _open(file: IO[bytes]) -> ImageFile:
    """Read what lies before the pixels; refuse more pixels than Pillow thinks sane."""
    file.seek(0)
    opener = OPENERS.get(file.read(2), Image.open)
    file.seek(0)
    picture = opener(file)
    if Image.MAX_IMAGE_PIXELS and picture.height * picture.width > Image.MAX_IMAGE_PIXELS:
        raise DataError(f"refused: {picture.width:,} x {picture.height:,} pixels may be a decompression bomb")
    return picture
