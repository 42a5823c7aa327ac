"""An append-only file of rows of one shape, which readers map into memory."""

import math
import os
import zlib
from collections.abc import Iterable, Sequence
from contextlib import suppress
from itertools import zip_longest
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

from cnnkit.core.files import no_follow, open_file
from cnnkit.core.parallel import ahead, chunks

__all__ = ["Rows"]

CHECKED = 1 << 23  # bytes that a thread verifies at a time


class Rows:
    """The first rows of a file, each uint8 of one `shape`, with their checksums `sums`, which an index stores.

    Bytes after them are unused. Written rows never change, and a dropped file stays valid for processes that have it
    mapped. Rows are added within a `with` block.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], sums: Iterable[int] = ()):
        self.path, self.shape, self.sums = path, shape, list(sums)
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()
            self._file = None

    @property
    def count(self) -> int:
        """The number of rows."""
        return len(self.sums)

    @property
    def bytes(self) -> int:
        """The size of a row in bytes."""
        return math.prod(self.shape)

    def holds(self, live: int) -> bool:
        """Return whether the file has all of its rows, and at least half of them are in use, namely `live`."""
        return self._is_whole() and live >= self.count // 2

    def corrupt(self, numbers: Iterable[int], workers: int) -> set[int]:
        """Return which of these rows are corrupt; all of them if the file is truncated or unreadable."""
        wanted = np.array(sorted(numbers), np.int64)
        if not self._is_whole():
            return set(wanted.tolist())
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        at_a_time = max(1, CHECKED // max(1, self.bytes))
        parts = (part for run in runs for part in chunks(run.tolist(), at_a_time))
        return {number for found in ahead(self._check, parts, workers, 2 * workers) for number in found}

    def add(self, row: np.ndarray) -> int:
        """Append a row, and return its number; raises OSError."""
        if not self._file:
            self._file = self._open()
        self._file.write(row.data)
        self.sums.append(zlib.crc32(row.data))  # after writing: an interrupt may waste a row, but not reuse it
        return self.count - 1

    def flush(self) -> None:
        """Write the added rows to the disk (fsync); raises OSError."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def drop(self) -> None:
        """Forget all rows and remove the file; raises OSError."""
        self.path.unlink(missing_ok=True)
        self.sums.clear()

    def read(self) -> np.ndarray:
        """Return all rows, memory-mapped; changes are not written back."""
        if not self.count:
            return np.empty((0, *self.shape), np.uint8)
        return np.memmap(self.path, np.uint8, "c", shape=(self.count, *self.shape))

    def _is_whole(self) -> bool:
        try:
            with open_file(self.path) as file:
                return os.fstat(file.fileno()).st_size >= self.count * self.bytes
        except OSError:
            return not self.count

    def _check(self, numbers: Sequence[int]) -> list[int]:
        """Return which of these consecutive rows are corrupt."""
        content = b""
        with suppress(OSError), open_file(self.path) as file:  # a failing disk
            file.seek(numbers[0] * self.bytes)
            content = file.read(len(numbers) * self.bytes)
        rows = memoryview(content)
        sums = (zlib.crc32(rows[start : start + self.bytes]) for start in range(0, len(rows), self.bytes))
        return [number for number, found in zip_longest(numbers, sums) if found != self.sums[number]]

    def _open(self) -> BinaryIO:
        if not self.count:
            self.drop()  # the existing file may be mapped
        file = os.fdopen(
            no_follow(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)), "ab"
        )
        file.truncate(self.count * self.bytes)
        return file
