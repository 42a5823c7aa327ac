"""A file of rows of one shape that is only ever added to, and mapped into memory by whoever reads it."""

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

CHECKED = 1 << 23  # bytes that a thread checks at a time


class Rows:
    """The first rows of a file, each uint8 of one `shape`; an index elsewhere has the checksum of each, their `sums`.

    What lies behind them belongs to nobody. A row that is written never changes, and a file that is dropped goes on for
    those who have it mapped. Rows are added within a `with` block.
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
        """How many there are."""
        return len(self.sums)

    @property
    def bytes(self) -> int:
        """The bytes of a row."""
        return math.prod(self.shape)

    def holds(self, live: int) -> bool:
        """Return whether the file has all of its rows, and half of them or more are still of use, as `live` are."""
        return self._is_whole() and live >= self.count // 2

    def corrupt(self, numbers: Iterable[int], workers: int) -> set[int]:
        """Return which of these rows are not what was written; all of them if the file is cut or cannot be read."""
        wanted = np.array(sorted(numbers), np.int64)
        if not self._is_whole():
            return set(wanted.tolist())
        runs = np.split(wanted, np.flatnonzero(np.diff(wanted) > 1) + 1)
        at_a_time = max(1, CHECKED // max(1, self.bytes))
        parts = (part for run in runs for part in chunks(run.tolist(), at_a_time))
        return {number for found in ahead(self._check, parts, workers, 2 * workers) for number in found}

    def add(self, row: np.ndarray) -> int:
        """Write a row, and return its number; raises OSError."""
        if not self._file:
            self._file = self._open()
        self._file.write(row.data)
        self.sums.append(zlib.crc32(row.data))  # before it is noted: an interrupt may waste a row, but not share it
        return self.count - 1

    def flush(self) -> None:
        """Bring the rows that were added onto the disk; raises OSError."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def drop(self) -> None:
        """Forget all rows and remove the file; raises OSError."""
        self.path.unlink(missing_ok=True)
        self.sums.clear()

    def read(self) -> np.ndarray:
        """Return all rows, mapped into memory; a change to them is not written back."""
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
        """Return which of these rows, one after the other, are not what was written."""
        content = b""
        with suppress(OSError), open_file(self.path) as file:  # of a disk that fails
            file.seek(numbers[0] * self.bytes)
            content = file.read(len(numbers) * self.bytes)
        rows = memoryview(content)
        sums = (zlib.crc32(rows[start : start + self.bytes]) for start in range(0, len(rows), self.bytes))
        return [number for number, found in zip_longest(numbers, sums) if found != self.sums[number]]

    def _open(self) -> BinaryIO:
        if not self.count:
            self.drop()  # what is there may be mapped
        file = os.fdopen(
            no_follow(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)), "ab"
        )
        file.truncate(self.count * self.bytes)
        return file
