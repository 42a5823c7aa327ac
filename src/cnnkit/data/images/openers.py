"""Openers of image formats that tolerate corrupt or huge metadata."""

import os
import re
import struct
from importlib.util import find_spec
from io import BytesIO
from typing import IO

from PIL import AvifImagePlugin, GifImagePlugin, Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin
from PIL.ImageFile import ImageFile

from cnnkit.core.errors import DataError
from cnnkit.data.images.png import bare_png

__all__ = ["HAS_HEIF", "Jpeg", "open_avif", "open_gif", "open_heic", "open_jpeg", "open_png", "open_tiff"]

HAS_HEIF = find_spec("pillow_heif") is not None
START_OF_SCAN, FILL, FRAMES_AND_TABLES = 0xDA, 0xFF, range(0xC0, 0xE0)  # markers of a JPEG
MAX_SCANS = 500  # of a progressive JPEG; ten are usual
LONGEST_TAG = 1 << 22  # bytes of a TIFF's list of numbers; longer ones are ignored
BYTES = (1, 2, 6, 7)  # types of tags whose values stay bytes
GIF_START, GIF_IMAGE, GIF_EXTENSION = "<6xHHB2x", b",", b"!"
AVIF_EXIF = re.compile(rb"(infe.{8}(?:.{2})?)Exif", re.DOTALL)  # the entry of the block
ADOBE, ADOBE_LENGTH = 0xEE, 14  # the colour transform
EXIF = 0xE1, b"Exif\0\0"


def open_png(file: IO[bytes], pixels: bool) -> ImageFile:
    """Open a PNG; without `pixels`, only its header can be read."""
    bare, info = bare_png(file, pixels)
    image = PngImagePlugin.PngImageFile(bare)
    image.info.update(info)
    return image


def open_jpeg(file: IO[bytes], pixels: bool) -> ImageFile:
    """Open a JPEG, or the first image of an MPO; raises DataError for one of more than MAX_SCANS scans."""
    try:
        image = Jpeg(file)
    except Exception:  # perhaps for a segment of metadata
        image = Jpeg(_bare_jpeg(file))
    if pixels and image.buffer != (0, 0):
        file.seek(0)
        if (scans := file.read().count(bytes([FILL, START_OF_SCAN]))) > MAX_SCANS:
            raise DataError(f"refused: it has {scans:,} scans, each of which takes as long as a whole image")
    return image


def open_gif(file: IO[bytes], pixels: bool) -> ImageFile:
    """Open a GIF; raises DecompressionBombError before Pillow allocates memory, which it does on opening."""
    width, height = _gif_canvas(file)
    if Image.MAX_IMAGE_PIXELS and width * height > Image.MAX_IMAGE_PIXELS:
        raise Image.DecompressionBombError(f"{width * height} pixels")
    file.seek(0)
    return GifImagePlugin.GifImageFile(file)


def open_avif(file: IO[bytes], pixels: bool) -> ImageFile:
    """Open an AVIF, whose orientation is not in its EXIF block."""
    try:
        return AvifImagePlugin.AvifImageFile(file)
    except Exception:  # perhaps for the EXIF block
        file.seek(0)
        return AvifImagePlugin.AvifImageFile(BytesIO(AVIF_EXIF.sub(rb"\1none", file.read(), count=1)))


def open_tiff(file: IO[bytes], pixels: bool) -> ImageFile:
    """Open the first page of a TIFF."""
    return _Tiff(file)


def open_heic(file: IO[bytes], pixels: bool) -> ImageFile:
    """Open a HEIC with pillow-heif, an extra; raises DataError if that cannot be imported."""
    try:
        from pillow_heif import HeifImageFile  # type: ignore[import-not-found, unused-ignore]  # an extra
    except ImportError as error:
        raise DataError(
            f"HEIC images are not supported: pillow-heif cannot be imported ({error}): install it again with "
            "pip install --force-reinstall pillow-heif"
        ) from error

    heic: ImageFile = HeifImageFile(file)  # type: ignore[no-untyped-call, unused-ignore]  # it has none
    return heic


class Jpeg(JpegImagePlugin.JpegImageFile):
    """A JPEG; `buffer` is the width and height of the decoder's buffer if it has several passes."""

    buffer: tuple[int, int] = (0, 0)

    def _open(self) -> None:
        super()._open()
        assert self.fp
        end, length = self.fp.tell(), 6 + 2 * self.layers  # of the segment before the pixels, if it is about all layers
        self.fp.seek(max(0, end - length - 2))
        whole = self.fp.read(5) == struct.pack(">BBHB", FILL, START_OF_SCAN, length, self.layers)
        self.fp.seek(end)
        if not whole or self.info.get("progressive"):
            self.buffer = self.size

    def _read_dpi_from_exif(self) -> None:
        """Do nothing, as reading the whole EXIF block is slow, and a corrupt one causes warnings."""


class _Tiff(TiffImagePlugin.TiffImageFile):
    def _setup(self) -> None:
        """Read the tags except long lists, which would take far more memory in Python."""
        found = self.tag_v2._tagdata
        for tag in [tag for tag, data in found.items() if len(data) > LONGEST_TAG]:
            if self.tag_v2.tagtype[tag] not in BYTES:
                del found[tag]
        super()._setup()  # type: ignore[no-untyped-call, unused-ignore]


def _bare_jpeg(file: IO[bytes]) -> IO[bytes]:
    """Return a JPEG without the segments that are not needed for decoding and orientation."""
    file.seek(0)
    content = file.read()
    parts, start = [content[:2]], 2
    while content[start : start + 1] == b"\xff" and len(content) >= start + 4:
        marker, length = struct.unpack_from(">BH", content, start + 1)
        if marker == START_OF_SCAN:
            break
        if marker == FILL:
            start += 1
            continue
        segment = content[start : start + 2 + length]
        sound_adobe = marker == ADOBE and length >= ADOBE_LENGTH
        if marker in FRAMES_AND_TABLES or sound_adobe or (marker, segment[4:10]) == EXIF:
            parts.append(segment)
        start += 2 + length
    return BytesIO(b"".join([*parts, content[start:]]))


def _gif_canvas(file: IO[bytes]) -> tuple[int, int]:
    """Return width and height of a GIF's canvas, including its first image."""
    width, height, flags = struct.unpack(GIF_START, file.read(struct.calcsize(GIF_START)))
    if flags & 0x80:  # a palette
        file.seek(3 << (flags & 7) + 1, os.SEEK_CUR)
    while (block := file.read(1)) not in (b"", GIF_IMAGE):
        if block == GIF_EXTENSION:
            file.seek(1, os.SEEK_CUR)
            while length := ord(file.read(1) or b"\0"):
                file.seek(length, os.SEEK_CUR)
    if len(place := file.read(8)) < 8:
        return width, height
    left, top, own_width, own_height = struct.unpack("<4H", place)
    return max(width, left + own_width), max(height, top + own_height)
