"""The IDX format of MNIST and similar data sets, plain or gzip-compressed.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit integer, then the
values, big-endian (LeCun, Cortes, Burges: the MNIST database).
"""

import gzip
import io
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from cnnkit.core.errors import DataError
from cnnkit.core.files import open_file
from cnnkit.core.limits import DEFLATE_RATIO, MAX_IDX_BYTES
from cnnkit.core.shape import by

__all__ = ["read_idx"]

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
GZIP = b"\x1f\x8b"


def read_idx(path: Path) -> np.ndarray:
    """Return the array in the file, in the machine's byte order.

    Inflates at most the size that the header declares, and uses memory only for what the file can hold. Raises
    DataError for an invalid file.
    """
    try:
        with open_file(path) as file:
            size = file.seek(0, io.SEEK_END)
            file.seek(0)
            zipped = file.read(len(GZIP)) == GZIP
            file.seek(0)
            with gzip.GzipFile(fileobj=file) if zipped else file as payload:
                return _array(payload, size * DEFLATE_RATIO if zipped else size, str(path))
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is corrupt or truncated ({error}); download the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def _array(file: io.BufferedIOBase, most: int, name: str) -> np.ndarray:
    """Return the array in an open file of at most `most` bytes."""
    start = file.read(4)
    if len(start) < 4 or start[:2] != b"\0\0":
        raise DataError(f"{name}: not an IDX file: it starts with {start.hex(' ') or 'nothing'}, not 00 00")
    code, rank = start[2], start[3]
    if code not in TYPES:
        known = ", ".join(f"{code:02x}" for code in TYPES)
        raise DataError(f"{name}: IDX type code {code:02x} is unknown; known: {known}")
    if rank == 0 or len(header := file.read(4 * rank)) < 4 * rank:
        raise DataError(f"{name}: the IDX header is truncated or has no dimensions (it declares {rank})")
    shape = struct.unpack(f">{rank}I", header)
    dtype = np.dtype(TYPES[code])
    expected = math.prod(shape) * dtype.itemsize
    needed = f"{by(*shape[:4])}{' x ...' if rank > 4 else ''} values take {expected:,} bytes"
    if expected > MAX_IDX_BYTES:
        raise DataError(f"{name}: refused: {needed}, more than {MAX_IDX_BYTES:,}")
    content = np.empty(min(expected, most), np.uint8)  # uses memory only as it is filled
    view, present = memoryview(content.data), 0
    while present < len(content) and (count := file.readinto(view[present:])):
        present += count
    if present < expected:
        raise DataError(f"{name}: the IDX payload is truncated: {needed}, there are {present:,}")
    if file.read(1):
        raise DataError(f"{name}: the IDX payload is too long: {needed}, there are more")
    try:
        values = content.view(dtype)
        return values.astype(dtype.newbyteorder("="), copy=False).reshape(shape)
    except ValueError as error:
        raise DataError(f"{name}: no array has the dimensions in the IDX header ({error})") from error
