"""The bytes of files, and what tells whether a file is still the one that was read."""

import os
import time
from pathlib import Path

from cnnkit.core.errors import DataError

__all__ = ["LARGEST", "Stamp", "await_tick", "read_file", "read_with_stamp", "stamp"]

LARGEST = 1 << 30  # bytes of a file that is read as an image
TICK = 20_000_000  # nanoseconds within which two changes may have the same time
READ, BLOCK = os.O_RDONLY | getattr(os, "O_BINARY", 0), 1 << 16

Stamp = tuple[int, int, int, int]


def stamp(status: os.stat_result) -> Stamp:
    """Return size in bytes, times of modification and of change in nanoseconds, and inode.

    A file that is overwritten, replaced, or has changed places with another gets another stamp: only the first two can
    be set at will. A copy or a rename changes the stamp, too, but not the content.
    """
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino


def await_tick(of: Stamp) -> None:
    """Wait, if a file has only just been changed, until a further change would give it another stamp."""
    if 0 <= time.time_ns() - of[2] < TICK:
        time.sleep(TICK / 1e9)


def read_file(path: Path | str) -> bytes:
    """Return the bytes of a file; raises DataError with the reason alone."""
    return read_with_stamp(path)[0]


def read_with_stamp(path: Path | str) -> tuple[bytes, Stamp]:
    """Return the bytes of a file and its stamp after the last one was read; raises DataError with the reason alone."""
    try:
        file = os.open(path, READ)  # fewer calls, at each of which another thread would go on, than open() makes
        try:
            content = os.read(file, BLOCK)
            status = os.fstat(file)
            if len(content) < BLOCK and len(content) == status.st_size:  # most small files
                return content, stamp(status)
            blocks = [content]
            while blocks[-1]:
                blocks.append(os.read(file, BLOCK))
            return b"".join(blocks), stamp(os.fstat(file))
        finally:
            os.close(file)
    except FileNotFoundError as error:
        raise DataError("no such file") from error
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error
