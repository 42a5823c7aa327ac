"""Files that cannot be read as images, and why."""

import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from helpers.images import encoded, png_chunk


def saved(kind: str) -> bytes:
    return encoded(kind, Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)))


def damaged(content: bytes, first: int, last: int) -> bytes:
    return content[:first] + bytes(byte ^ 0xA5 for byte in content[first:last]) + content[last:]


BOMB = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">II5B", 50_000, 50_000, 8, 2, 0, 0, 0))
BAD: dict[str, tuple[bytes | None, str]] = {
    "unreadable.png": (None, "cannot be read"),
    "cut.jpg": (saved("JPEG")[:1500], "corrupt or incomplete"),
    "cut.png": (saved("PNG")[:1500], "corrupt or incomplete"),
    "text.jpg": (b"<html><body>404 not found</body></html>", "not an image"),
    "empty.png": (b"", "the file is empty"),
    "bomb.png": (BOMB + png_chunk(b"IDAT", zlib.compress(bytes(1000))), "more than max_pixels"),
    "deflate.png": (damaged(saved("PNG"), 60, 400), "corrupt or incomplete"),
    "drawing.png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG images are not supported"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), ""),
    "broken.gif": (saved("GIF")[:1500], "corrupt or incomplete"),
    "broken.tif": (damaged(saved("TIFF"), 8, 60), ""),
    "broken.webp": (saved("WEBP")[:600], ""),
}


def with_bad_ones(root: Path) -> Path:
    """Put twelve files that cannot be read, of ten kinds, among the good pictures of a class."""
    for name, (content, _) in BAD.items():
        if content is None:
            (root / "cat" / name).symlink_to("nowhere")
        else:
            (root / "cat" / name).write_bytes(content)
    (root / "cat/00.png").rename(root / "cat/really a png.jpg")
    return root
