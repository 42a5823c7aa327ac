"""One file of a folder of pictures: what it holds, or what is wrong with it."""

import hashlib
from io import BytesIO
from typing import NamedTuple

import numpy as np

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.data.files import read_file
from cnnkit.data.images.decode import THUMB, decode_with_thumb
from cnnkit.data.images.formats import format_of, open_image
from cnnkit.data.images.orientation import stored_orientation

__all__ = ["PICTURE", "Trouble", "examine"]

PICTURE = np.dtype(
    [
        ("content", "S16"),  # digest of the file's bytes
        ("pixels", "S16"),  # digest of what training sees: the upright picture in RGB
        ("height", "u4"),
        ("width", "u4"),
        ("bytes", "u8"),
        ("mode", "U8"),
        ("format", "U12"),
        ("turned", "?"),  # by its EXIF orientation
        ("thumb", "u1", (THUMB * THUMB * 3,)),
    ]
)
REASONS = {  # words of the errors that decoding raises, and the kind of trouble they tell of
    "are not read": "unread-format",
    "not an image": "no-picture",
    "refused": "too-large",
    "truncated": "truncated",
    "not enough": "truncated",
    "end of file": "truncated",
    "no such file": "unreadable",
    "not a regular file": "unreadable",
    "cannot be read": "unreadable",
    "": "damaged",
}


class Trouble(NamedTuple):
    """Why a file is of no use: a kind of finding, and the reason."""

    kind: str
    reason: str


def examine(path: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray | Trouble:
    """Decode the file as training would, and return one row of PICTURE, or what is wrong; nothing is raised."""
    try:
        content = read_file(path)
        if not content:
            return Trouble("empty-file", "")
        return _picture(content, *decode_with_thumb(content, 3, max_pixels=max_pixels))
    except DataError as error:
        reason = " ".join(str(error).split())
        return Trouble(next(kind for words, kind in REASONS.items() if words in reason), reason)
    except MemoryError:
        return Trouble("too-large", "it does not fit into memory")
    except Exception as error:  # a corrupt file can bring forth anything
        return Trouble("damaged", " ".join(str(error).split()))


def _picture(content: bytes, pixels: np.ndarray, thumb: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    file = open_image(BytesIO(content), pixels=False)
    form = format_of(content)
    facts = file.mode, form.name if form else "", stored_orientation(file) > 1
    digests = _digest(content), _digest(f"{height} {width} ".encode(), pixels.data)
    return np.array([(*digests, height, width, len(content), *facts, thumb)], PICTURE)


def _digest(*parts: bytes | memoryview) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        result.update(part)
    return result.digest()[:16]
