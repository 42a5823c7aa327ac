"""The bytes of files, and stamps that show whether a file has changed since it was read."""

import os
import time
from pathlib import Path

from cnnkit.core.errors import DataError
from cnnkit.core.files import require_regular
from cnnkit.core.limits import MAX_IMAGE_BYTES

__all__ = ["Stamp", "await_tick", "read_file", "read_with_stamp", "stamp"]

TICK = 20_000_000  # nanoseconds within which two changes may have the same timestamp
READ, BLOCK = os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0), 1 << 16

Stamp = tuple[int, int, int, int]


def stamp(status: os.stat_result) -> Stamp:
    """Return size in bytes, times of modification and of change in nanoseconds, and inode.

    A file that is overwritten, replaced, or swapped with another gets another stamp, as only the first two can be set
    by users. A copy or a rename also changes the stamp, but not the content.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def await_tick(of: Stamp) -> None:
    """Wait, if a file was changed just now, until another change would result in another stamp."""
    if 0 <= time.time_ns() - of[2] < TICK:
        time.sleep(TICK / 1e9)


def read_file(path: Path | str) -> bytes:
    """Return the bytes of a file; raises DataError with the reason alone."""
    return read_with_stamp(path)[0]


def read_with_stamp(path: Path | str) -> tuple[bytes, Stamp]:
    """Return the bytes of a file, and its stamp after they were read.

    Raises DataError, with the reason alone, also for a pipe or a device, and for more than MAX_IMAGE_BYTES.
    """
    try:
        file = os.open(path, READ)  # with fewer system calls than open(), each of which switches threads
        try:
            status = os.fstat(file)
            require_regular(status, path)
            content = os.read(file, BLOCK) if status.st_size <= MAX_IMAGE_BYTES else b""
            if len(content) < BLOCK and len(content) == status.st_size:  # most small files
                return content, stamp(os.fstat(file))
            blocks, total = [content], max(status.st_size, len(content))
            while blocks[-1] and total <= MAX_IMAGE_BYTES:
                blocks.append(os.read(file, BLOCK))
                total = max(total, len(blocks) * BLOCK)
            if total > MAX_IMAGE_BYTES:
                raise DataError(f"refused: it has {total:,} bytes, more than {MAX_IMAGE_BYTES:,}")
            return b"".join(blocks), stamp(os.fstat(file))
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise DataError("no such file") from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
