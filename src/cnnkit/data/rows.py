"""A file of rows of one shape that is only ever added to, and mapped into memory by whoever reads it."""

import math
import os
from pathlib import Path
from typing import BinaryIO, Self

import numpy as np

__all__ = ["Rows"]


class Rows:
    """The first `count` rows of a file, each uint8 of one `shape`; an index elsewhere says how many there are.

    What lies behind them belongs to nobody. A row that is written never changes, and a file that is dropped goes on for
    those who have it mapped. Rows are added within a `with` block.
    """

    def __init__(self, path: Path, shape: tuple[int, ...], count: int = 0):
        self.path, self.shape, self.count = path, shape, count
        self._file: BinaryIO | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        if self._file:
            self._file.close()
            self._file = None

    def holds(self, live: int) -> bool:
        """Return whether the file has all of its rows, and half of them or more are still of use, as `live` are."""
        size = self.path.stat().st_size if self.path.exists() else 0
        return size >= self.count * math.prod(self.shape) and live >= self.count // 2

    def add(self, row: np.ndarray) -> int:
        """Write a row, and return its number; raises OSError."""
        if not self._file:
            self._file = self._open()
        self._file.write(row.data)
        self.count += 1  # before it is noted: an interrupt may waste a row, but not share it
        return self.count - 1

    def flush(self) -> None:
        """Bring the rows that were added onto the disk; raises OSError."""
        if self._file:
            self._file.flush()
            os.fsync(self._file.fileno())

    def drop(self) -> None:
        """Forget all rows and remove the file."""
        self.path.unlink(missing_ok=True)
        self.count = 0

    def read(self) -> np.ndarray:
        """Return all rows, mapped into memory; a change to them is not written back."""
        if not self.count:
            return np.empty((0, *self.shape), np.uint8)
        return np.memmap(self.path, np.uint8, "c", shape=(self.count, *self.shape))

    def _open(self) -> BinaryIO:
        if not self.count:
            self.drop()  # what is there may be mapped
        file = self.path.open("ab")
        file.truncate(self.count * math.prod(self.shape))
        return file
