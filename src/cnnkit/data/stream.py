"""The pictures of a folder, decoded whenever they are asked for: for folders that no cache holds."""

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError
from cnnkit.data.ahead import ahead, chunks
from cnnkit.data.images import decode_image, read_file

__all__ = ["Streamed"]

CHUNK = 64  # pictures that a thread decodes at a time, at most


@dataclass(frozen=True)
class Streamed:
    """Pictures below `root` as uint8 images, fitted into `canvas` (H, W, C), decoded by `workers` threads.

    With `skip`, a picture that cannot be read is left out and kept in `skipped` with the reason; else it raises
    DataError. `rows` are those of `paths` that this is about.
    """

    root: Path
    paths: Sequence[str]
    canvas: tuple[int, int, int]
    workers: int
    skip: bool
    rows: Tensor
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        height, width, channels = self.canvas
        return len(self.rows), channels, height, width

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return the images of these rows, without those that are skipped."""
        return self.fetch(rows)[0]

    def subset(self, rows: Tensor) -> "Streamed":
        """Return these rows as images of their own."""
        return Streamed(self.root, self.paths, self.canvas, self.workers, self.skip, self.rows[rows], self.skipped)

    def fetch(self, rows: slice | Tensor) -> tuple[Tensor, Tensor]:
        """Return the images of these rows that can be read, and which they are, counted from 0.

        Raises DataError for one that cannot be read, unless it is skipped.
        """
        paths = [self.paths[row] for row in self.rows[rows].tolist()]
        images, kept = np.empty((len(paths), *self.canvas), np.uint8), torch.ones(len(paths), dtype=torch.bool)

        def decode(numbers: Sequence[int]) -> None:
            for number in numbers:
                image = self._read(paths[number])
                if image is None:
                    kept[number] = False
                else:
                    images[number] = image

        share = min(CHUNK, -(-len(paths) // (2 * self.workers)) or 1)
        depth = len(paths) if self.workers > 1 else 0
        deque(ahead(decode, chunks(range(len(paths)), share), self.workers, depth), maxlen=0)
        found = torch.from_numpy(images).permute(0, 3, 1, 2)
        return (found if kept.all() else found[kept]), kept.nonzero().flatten()

    def _read(self, path: str) -> np.ndarray | None:
        height, width, channels = self.canvas
        try:
            return decode_image(read_file(f"{self.root}/{path}"), channels, (height, width))
        except DataError as error:
            if not self.skip:
                remedy = "leave such pictures out with --on-bad-image skip"
                raise DataError(f"{self.root}/{path}: {error}; {remedy}") from error
            if path not in self.skipped:
                self.skipped[path] = str(error)
                print(f"{self.root}/{path}: {error}; left out", file=sys.stderr)
            return None
