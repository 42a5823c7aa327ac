"""PNG files: plain ones decoded in a tenth of Pillow's time, others stripped of metadata."""

import os
import struct
import zlib
from collections.abc import Iterator
from io import BytesIO
from typing import IO, NamedTuple

from PIL import Image

__all__ = ["PlainPng", "bare_png", "plain_png", "small_png"]

SIGNATURE = b"\x89PNG\r\n\x1a\n"
PLAIN_START = SIGNATURE + b"\0\0\0\rIHDR"
PLAIN, PLAIN_MODES = 41, {0: "L", 2: "RGB"}  # bytes before the pixels; colour types
SMALL = 1 << 16  # pixels; opening such an image takes longer than decoding it
LIMIT = 1 << 20  # bytes of decompressed metadata; longer ones are ignored
RAW_EXIF, XMP = b"Raw profile type exif\0", b"XML:com.adobe.xmp\0"


class PlainPng(NamedTuple):
    """The header of a small 8-bit PNG, opaque and not interlaced, with a single block of pixels and nothing else."""

    mode: str
    width: int
    height: int
    length: int  # of the block of pixels, in bytes


def plain_png(file: IO[bytes]) -> PlainPng | None:
    """Return the header of an open file; None if it is not a plain PNG."""
    start = file.read(PLAIN)
    if len(start) < PLAIN or not start.startswith(PLAIN_START):
        return None
    width, height, depth, colour, *rest, checksum, length, name = struct.unpack_from(
        ">II5BII4s", start, len(PLAIN_START)
    )
    if depth != 8 or colour not in PLAIN_MODES or any(rest) or name != b"IDAT" or not 0 < width * height <= SMALL:
        return None
    file.seek(PLAIN + length + 8)  # after a checksum and another length
    if file.read(4) != b"IEND" or zlib.crc32(start[12:29]) != checksum:
        return None
    return PlainPng(PLAIN_MODES[colour], width, height, length)


def small_png(content: bytes) -> Image.Image | None:
    """Decode a plain PNG; return None for any other file.

    Inflating its pixels takes a few microseconds; opening it with Pillow takes ten times as long.
    """
    plain = plain_png(BytesIO(content)) if content.startswith(PLAIN_START) else None
    if not plain:
        return None
    try:
        pixels = content[PLAIN : PLAIN + plain.length]
        return Image.frombytes(plain.mode, (plain.width, plain.height), pixels, "zip", plain.mode)
    except ValueError:
        return None  # Pillow raises the error


def bare_png(file: IO[bytes], pixels: bool) -> tuple[IO[bytes], dict[str, bytes]]:
    """Return a PNG with its image only, or the part before its pixels, and its orientation data as Pillow's info.

    Text, colour profiles and similar chunks are removed: they may be corrupt, or too large for Pillow.
    """
    chunks = list(_chunks(file))
    parts = [SIGNATURE]
    for name, start, stop in chunks:
        if name.isalpha() and name[:1].islower() and name != b"tRNS":  # ancillary, except transparency
            continue
        file.seek(start)
        if name == b"IDAT" and not pixels:
            parts.append(file.read(8))
            break
        parts.append(file.read(stop - start))
    return BytesIO(b"".join(parts)), _metadata(file, chunks)


def _chunks(file: IO[bytes]) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name, start and stop of each chunk; an invalid one extends to the end."""
    end, start = file.seek(0, os.SEEK_END), len(SIGNATURE)
    file.seek(start)
    while len(head := file.read(8)) == 8:
        length, name = struct.unpack(">I4s", head)
        stop = min(end, start + length + 12) if name.isalpha() else end
        yield name, start, stop
        if name == b"IEND":
            return
        start = file.seek(stop)


def _metadata(file: IO[bytes], chunks: list[tuple[bytes, int, int]]) -> dict[str, bytes]:
    """Return the first chunk of each kind that may hold an orientation, if it is not too long."""
    found: dict[str, bytes] = {}
    for name, start, stop in chunks:
        if name not in (b"eXIf", b"zTXt", b"iTXt") or stop - start > LIMIT:
            continue
        file.seek(start + 8)
        content = file.read(stop - start - 12)
        if name == b"eXIf":
            found.setdefault("exif", content)
        elif name == b"zTXt" and content.startswith(RAW_EXIF):
            found.setdefault(RAW_EXIF[:-1].decode(), _inflated(content[len(RAW_EXIF) + 1 :]))
        elif name == b"iTXt" and content.startswith(XMP):
            text = content[len(XMP) + 2 :].split(b"\0", 2)[-1]  # after the compression and two names
            compressed = content[len(XMP) :].startswith(b"\1")
            found.setdefault(XMP[:-1].decode(), _inflated(text) if compressed else text)
    return found


def _inflated(content: bytes) -> bytes:
    """Return decompressed data; b"" if it is corrupt or too long."""
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(content, LIMIT)
    except zlib.error:
        return b""
    return b"" if inflater.unconsumed_tail else found
