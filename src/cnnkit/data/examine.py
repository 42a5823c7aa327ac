"""One file of a folder of pictures: what it holds, or what is wrong with it."""

import hashlib
import os
import stat
from io import BytesIO
from typing import NamedTuple

import numpy as np
from PIL import Image

from cnnkit.core.errors import DataError
from cnnkit.data.files import LARGEST, read_file
from cnnkit.data.images import THUMB, decode_with_thumb
from cnnkit.data.orientation import EXIF, ORIENTATION

__all__ = ["FORMATS", "PICTURE", "Trouble", "examine", "format_of"]

PICTURE = np.dtype(
    [
        ("content", "S16"),  # digest of the file's bytes
        ("pixels", "S16"),  # digest of what training sees: the upright picture in RGB
        ("height", "u4"),
        ("width", "u4"),
        ("bytes", "u8"),
        ("mode", "U8"),
        ("format", "U8"),
        ("turned", "?"),  # by its EXIF orientation
        ("thumb", "u1", (THUMB * THUMB * 3,)),
    ]
)
FORMATS = {
    "jpg": ("JPEG", "MPO"),  # MPO: a JPEG with more frames behind it, as some cameras write
    "jpeg": ("JPEG", "MPO"),
    "png": ("PNG",),
    "webp": ("WEBP",),
    "bmp": ("BMP", "DIB"),
    "tif": ("TIFF",),
    "tiff": ("TIFF",),
    "gif": ("GIF",),
    "ppm": ("PPM",),
    "pgm": ("PPM",),
}
KNOWN = sorted({name for names in FORMATS.values() for name in names})
REASONS = {  # words of the errors that decoding raises, and the kind of trouble they tell of
    "not a picture": "no-picture",
    "refused": "too-large",
    "truncated": "truncated",
    "not enough": "truncated",
    "end of file": "truncated",
    "no such file": "unreadable",
    "cannot be read": "unreadable",
    "": "damaged",
}


class Trouble(NamedTuple):
    """Why a file is of no use: a kind of finding, and the reason."""

    kind: str
    reason: str


def examine(path: str) -> np.ndarray | Trouble:
    """Decode the file as training would, and return one row of PICTURE, or what is wrong; nothing is raised."""
    try:
        found = os.stat(path)  # noqa: PTH116  a Path for each of a million files takes longer
        if not stat.S_ISREG(found.st_mode):
            return Trouble("unreadable", "not a regular file")  # a named pipe would never end
        if not found.st_size:
            return Trouble("empty-file", "")
        if found.st_size > LARGEST:
            return Trouble("too-large", f"{found.st_size:,} bytes")
        content = read_file(path)
        return _picture(content, *decode_with_thumb(content, 3))
    except OSError as error:
        return Trouble("unreadable", error.strerror or str(error))
    except DataError as error:
        reason = " ".join(str(error).split())
        return Trouble(next(kind for words, kind in REASONS.items() if words in reason), reason)
    except MemoryError:
        return Trouble("too-large", "it does not fit into memory")
    except Exception as error:  # a damaged file can bring forth anything
        return Trouble("damaged", " ".join(str(error).split()))


def format_of(path: str) -> str:
    """Return the format of a picture whose suffix is none that training reads; "" if the file holds none."""
    try:
        if stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  as above
            with Image.open(path, formats=KNOWN) as picture:
                return picture.format or ""
    except Exception:  # a damaged one counts as none
        return ""
    return ""


def _picture(content: bytes, pixels: np.ndarray, thumb: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    with Image.open(BytesIO(content)) as file:
        facts = file.mode, file.format or "", _turned(file)
    digests = _digest(content), _digest(f"{height} {width} ".encode(), pixels.data)
    return np.array([(*digests, height, width, len(content), *facts, thumb)], PICTURE)


def _turned(file: Image.Image) -> bool:
    if file.format == "PNG" and not EXIF & file.info.keys():
        return False  # Pillow would decode it again to look behind the pixels
    try:
        return file.getexif().get(ORIENTATION, 1) in range(2, 9)
    except Exception:  # a damaged one counts as none
        return False


def _digest(*parts: bytes | memoryview) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        result.update(part)
    return result.digest()[:16]
