"""The check of a single image file."""

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

__all__ = ["IMAGE", "Problem", "examine", "problem_kind"]

IMAGE = np.dtype(
    [
        ("content", "S16"),  # digest of the file's bytes
        ("pixels", "S16"),  # digest of the upright image in RGB
        ("height", "u4"),
        ("width", "u4"),
        ("bytes", "u8"),
        ("mode", "U8"),
        ("format", "U12"),
        ("turned", "?"),  # by its EXIF orientation
        ("thumb", "u1", (THUMB * THUMB * 3,)),
    ]
)
REASONS = {  # substrings of decoding errors, and the kinds of finding that they mean
    "are not supported": "unread-format",
    "not an image": "no-image",
    "refused": "too-large",
    "truncated": "truncated",
    "not enough": "truncated",
    "end of file": "truncated",
    "no such file": "unreadable",
    "cannot be read": "unreadable",
    "": "corrupt",
}


class Problem(NamedTuple):
    """Why a file cannot be used: a kind of finding, and the reason."""

    kind: str
    reason: str


def examine(path: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> np.ndarray | Problem:
    """Decode the file as training would, and return a row of IMAGE, or the problem; never raise."""
    try:
        content = read_file(path)
        if not content:
            return Problem("empty-file", "")
        return _facts(content, *decode_with_thumb(content, 3, max_pixels=max_pixels))
    except DataError as error:
        reason = " ".join(str(error).split())
        return Problem(problem_kind(reason), reason)
    except MemoryError:
        return Problem("too-large", "it does not fit into memory")
    except Exception as error:  # a corrupt file may raise any exception
        return Problem("corrupt", " ".join(str(error).split()))


def problem_kind(reason: str) -> str:
    """Return the kind of finding for the reason why a file cannot be decoded."""
    return next(kind for words, kind in REASONS.items() if words in reason)


def _facts(content: bytes, pixels: np.ndarray, thumb: np.ndarray) -> np.ndarray:
    height, width = pixels.shape[:2]
    file = open_image(BytesIO(content), pixels=False)
    form = format_of(content)
    facts = file.mode, form.name if form else "", stored_orientation(file) > 1
    digests = _digest(content), _digest(f"{height} {width} ".encode(), pixels.data)
    return np.array([(*digests, height, width, len(content), *facts, thumb)], IMAGE)


def _digest(*parts: bytes | memoryview) -> bytes:
    result = hashlib.sha256()
    for part in parts:
        result.update(part)
    return result.digest()[:16]
