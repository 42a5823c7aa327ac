"""The IDX format of MNIST and its relatives, plain or gzip-compressed.

Two zero bytes, a type code, the number of dimensions, each dimension as a big-endian 32-bit integer, then the
values, big-endian (LeCun, Cortes, Burges: the MNIST database).
"""

import gzip
import math
import struct
import zlib
from pathlib import Path

import numpy as np

from cnnkit.core.errors import DataError
from cnnkit.core.shape import by

__all__ = ["parse_idx", "read_idx", "read_payload"]

TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> np.ndarray:
    """Return the array in the file, in the machine's byte order; raises DataError that names a bad file."""
    return parse_idx(read_payload(path), str(path))


def read_payload(path: Path) -> bytes:
    """Return the file's bytes, decompressed if they are gzip; raises DataError if they cannot be read."""
    try:
        content = path.read_bytes()
        return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise DataError(f"{path}: the gzip data is damaged or cut short ({error}); fetch the file again") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error


def parse_idx(payload: bytes, name: str) -> np.ndarray:
    """Return the array that an IDX payload holds; `name` is what the DataError for a malformed one says."""
    if len(payload) < 4 or payload[:2] != b"\0\0":
        raise DataError(f"{name}: not an IDX file: it starts with {payload[:4].hex(' ') or 'nothing'}, not 00 00")
    code, rank = payload[2], payload[3]
    if code not in TYPES:
        known = ", ".join(f"{code:02x}" for code in TYPES)
        raise DataError(f"{name}: IDX type code {code:02x} is unknown; known: {known}")
    if rank == 0 or len(payload) < 4 + 4 * rank:
        raise DataError(f"{name}: the IDX header is cut short or has no dimensions (it announces {rank})")
    shape = struct.unpack_from(f">{rank}I", payload, 4)
    dtype = np.dtype(TYPES[code])
    expected = math.prod(shape) * dtype.itemsize
    present = len(payload) - 4 - 4 * rank
    if present != expected:
        problem = "is cut short" if present < expected else "has bytes left over"
        raise DataError(
            f"{name}: the IDX payload {problem}: {by(*shape)} values take {expected:,} bytes, there are {present:,}"
        )
    values = np.frombuffer(payload, dtype, offset=4 + 4 * rank)
    try:
        return values.astype(dtype.newbyteorder("=")).reshape(shape)
    except ValueError as error:
        raise DataError(f"{name}: no array has the dimensions in the IDX header ({error})") from error
