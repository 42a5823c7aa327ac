"""The formats of images: signatures, suffixes, and functions that open them.

Image files are opened by `open_image` only: Pillow's `Image.open` tries all of its formats, including PostScript, which
starts another program, and warns of large images, which is not thread-safe.
"""

import math
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import IO, NamedTuple

from PIL import (
    BmpImagePlugin,
    Image,
    Jpeg2KImagePlugin,
    PpmImagePlugin,
    TiffImagePlugin,
    WebPImagePlugin,
    features,
)
from PIL.ImageFile import ImageFile

from cnnkit.core.errors import DataError
from cnnkit.core.files import open_file
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_PIXELS
from cnnkit.core.shape import count
from cnnkit.data.images.openers import HAS_HEIF, Jpeg, open_avif, open_gif, open_heic, open_jpeg, open_png, open_tiff

__all__ = [
    "FORMATS",
    "SUFFIXES",
    "Format",
    "TooManyPixelsError",
    "Unread",
    "allow_pixels",
    "format_of",
    "open_image",
    "require_pixels",
    "suffix_format",
    "too_many_pixels",
    "unread",
]

Opener = Callable[[IO[bytes], bool], ImageFile]


class Format(NamedTuple):
    """A format: its name, signature and suffixes, and how to open and write it, or a remedy if it is not supported."""

    name: str
    start: re.Pattern[bytes]
    suffixes: tuple[str, ...] = ()
    opener: Opener | None = None
    written: str = ""  # its name in Pillow, if images can be written in it
    remedy: str = "convert to JPEG or PNG"


class TooManyPixelsError(DataError):
    """An image has more pixels than the limit allows."""


class Unread(NamedTuple):
    """An image that is not read: the name of its format, and the reason with the remedy."""

    name: str
    remedy: str


def _begins(pattern: bytes) -> re.Pattern[bytes]:
    return re.compile(pattern, re.DOTALL)


def _plugin(plugin: Callable[[IO[bytes]], ImageFile]) -> Opener:
    return lambda file, pixels: plugin(file)


def _if_built(feature: str, opener: Opener) -> Opener | None:
    """Return the opener if this Pillow was built with the format's library."""
    return opener if features.check(feature) else None


OTHER_PILLOW = "install Pillow from PyPI: pip install --force-reinstall pillow"
RAW = (".cr2", ".cr3", ".nef", ".arw", ".dng", ".orf", ".raf", ".rw2", ".pef", ".srw")
START = 64  # bytes that identify the format
TILE_WIDTH, TILE_LENGTH = 322, 323  # tags of a TIFF
BRANDS = rb".{4}ftyp(?:.{4})*?"  # of ISO media files, such as AVIF and HEIC
FORMATS = (
    Format("JPEG", _begins(rb"\xff\xd8\xff"), (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"), open_jpeg, "JPEG"),
    Format("PNG", _begins(rb"\x89PNG\r\n\x1a\n"), (".png",), open_png, "PNG"),
    Format(
        "WebP",
        _begins(rb"RIFF.{4}WEBP"),
        (".webp",),
        _if_built("webp", _plugin(WebPImagePlugin.WebPImageFile)),
        "WEBP",
        OTHER_PILLOW,
    ),
    Format("BMP", _begins(rb"BM"), (".bmp",), _plugin(BmpImagePlugin.BmpImageFile), "BMP"),
    Format("GIF", _begins(rb"GIF8[79]a"), (".gif",), open_gif, "GIF"),
    Format("RAW", _begins(rb"II\*\x00.{4}CR|FUJIFILMCCD-RAW|IIR[OS]|IIU\x00|" + BRANDS + rb"crx "), RAW),
    Format(
        "TIFF",
        _begins(rb"II[*+]\x00|MM\x00[*+]|MM\*\x00|II\x00\*"),
        (".tif", ".tiff"),
        open_tiff,
        "TIFF",
    ),
    Format("PPM", _begins(rb"P[1-6]\s"), (".ppm", ".pgm", ".pbm", ".pnm"), _plugin(PpmImagePlugin.PpmImageFile), "PPM"),
    Format("AVIF", _begins(BRANDS + rb"avi[fs]"), (".avif",), _if_built("avif", open_avif), "AVIF", OTHER_PILLOW),
    Format(
        "JPEG 2000",
        _begins(rb"\xff\x4f\xff\x51|\x00\x00\x00\x0cjP  \r\n\x87\n"),
        (".jp2", ".j2k", ".jpx"),
        _if_built("jpg_2000", _plugin(Jpeg2KImagePlugin.Jpeg2KImageFile)),
        "JPEG2000",
        OTHER_PILLOW,
    ),
    Format(
        "HEIC",
        _begins(BRANDS + rb"(?:hei[cxms]|hev[cxms]|mif1|msf1)"),
        (".heic", ".heif", ".hif"),
        open_heic if HAS_HEIF else None,
        remedy="pip install 'cnnkit[heic]'",
    ),
    Format("SVG", _begins(rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]*>\s*)?<svg[\s/>]"), (".svg", ".svgz")),
    Format("PSD", _begins(rb"8BPS"), (".psd", ".psb")),
    Format("PostScript", _begins(rb"%!PS|\xc5\xd0\xd3\xc6"), (".eps", ".ps")),
    Format("JPEG XL", _begins(rb"\xff\x0a|\x00\x00\x00\x0cJXL "), (".jxl",)),
    Format("OpenEXR", _begins(rb"\x76\x2f\x31\x01"), (".exr",)),
    Format("ICO", _begins(rb"\x00\x00\x01\x00[^\x00]"), (".ico",)),
    Format("CUR", _begins(rb"\x00\x00\x02\x00[^\x00].{4}\x00"), (".cur",)),
    Format("ICNS", _begins(rb"icns"), (".icns",)),
    Format("WMF", _begins(rb"\xd7\xcd\xc6\x9a\x00\x00|\x01\x00\x00\x00.{36} EMF"), (".wmf", ".emf")),
    Format("FITS", _begins(rb"SIMPLE  ="), (".fits",)),
    Format("XCF", _begins(rb"gimp xcf"), (".xcf",)),
    Format("DICOM", _begins(rb"(?!)"), (".dcm",)),
    Format("TGA", _begins(rb"(?!)"), (".tga",)),
)
SUFFIXES = tuple(suffix for form in FORMATS if form.opener for suffix in form.suffixes)
BY_SUFFIX = {suffix: form for form in FORMATS for suffix in form.suffixes}


def format_of(start: bytes) -> Format | None:
    """Return the format of a file by its first START bytes; None if it is unknown or not an image."""
    return next((form for form in FORMATS if form.start.match(start)), None)


def suffix_format(path: str) -> Format | None:
    """Return the format of a path's suffix; None if it is unknown."""
    return BY_SUFFIX.get(os.path.splitext(path)[1].lower())  # noqa: PTH122  a Path takes longer


def open_image(file: IO[bytes], pixels: bool = True) -> ImageFile:
    """Open an image of FORMATS; without `pixels`, only its header can be read.

    Call `require_pixels` before decoding it. Raises DataError with the reason alone for other files, and any exception
    of Pillow for a corrupt one.
    """
    file.seek(0)
    start = file.read(START)
    form = format_of(start)
    if form is None:
        raise DataError("not an image of a supported format" if start else "the file is empty")
    if form.opener is None:
        raise DataError(f"{form.name} images are not supported: {form.remedy}")
    file.seek(0)
    return form.opener(file, pixels)


def allow_pixels(max_pixels: int) -> None:
    """Increase Pillow's own limit to `max_pixels` if necessary; raises UsageError for a number out of range."""
    count(max_pixels, "max_pixels", MAX_PIXELS)
    if Image.MAX_IMAGE_PIXELS and max_pixels > max(DEFAULT_MAX_PIXELS, Image.MAX_IMAGE_PIXELS):
        Image.MAX_IMAGE_PIXELS = max_pixels


def require_pixels(image: Image.Image, max_pixels: int) -> None:
    """Raise TooManyPixelsError for an image whose decoding needs memory for more than `max_pixels`.

    The buffer of the decoder counts: for a JPEG the pixels that it is decoded to, or all pixels of the file if it has
    several passes, as progressive ones do; for a TIFF a tile that is larger than the image.
    """
    width, height = max(image.size, _buffer(image), key=math.prod)
    if width * height > max_pixels:
        raise too_many_pixels(width * height, f"{width:,} x {height:,}")


def too_many_pixels(pixels: int, size: str) -> TooManyPixelsError:
    """Return the error for an image of a `size` beyond the limit."""
    remedy = f"if you trust the image: --max-pixels {pixels}" if pixels <= MAX_PIXELS else "no limit allows so many"
    return TooManyPixelsError(f"refused: {size} pixels are more than max_pixels allows; {remedy}")


def _buffer(image: Image.Image) -> tuple[int, int]:
    """Return width and height of the decoder's buffer, besides the image itself."""
    if isinstance(image, Jpeg):
        return image.buffer
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    width, height = tags.get(TILE_WIDTH), tags.get(TILE_LENGTH)
    return (width, height) if isinstance(width, int) and isinstance(height, int) else (0, 0)


def unread(path: str) -> Unread | None:
    """Return the format and remedy of an image that is not read because of its format or suffix, by its first bytes.

    None for an image that is read, another file, and a file that cannot be opened.
    """
    by_name = suffix_format(path)
    try:
        with open_file(path) as file:
            start = file.read(START)
    except OSError:
        return None
    form = format_of(start)
    if start and by_name and not by_name.opener and (form is None or by_name.name == "RAW"):  # many RAWs are TIFFs
        form = by_name
    if form is None or (form.opener and by_name and by_name.opener):
        return None
    if not form.opener:
        return Unread(form.name, form.remedy)
    own, right = Path(path).suffix, form.suffixes[0]
    return Unread(form.name, f"wrong extension; rename *{own} to *{right}" if own else f"no extension; add {right}")
