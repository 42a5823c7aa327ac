"""The pictures of a folder, decoded whenever they are asked for: for folders that no cache holds."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError
from cnnkit.data.ahead import ahead
from cnnkit.data.images import decode_image

__all__ = ["Streamed"]

CHUNK = 8  # pictures that a thread decodes at a time


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
        """Return the images of these rows, and which of them, counted from 0, they are: all that could be read.

        Raises DataError if one, or with `skip` each of them, cannot be read.
        """
        paths = [self.paths[row] for row in self.rows[rows].tolist()]
        chunks = [paths[start : start + CHUNK] for start in range(0, len(paths), CHUNK)]
        found = [image for chunk in ahead(self._decode, chunks, self.workers, len(chunks)) for image in chunk]
        kept = [number for number, image in enumerate(found) if image is not None]
        if paths and not kept:
            raise DataError(f"{self.root}: none of {len(paths)} pictures can be read, such as {paths[0]}")
        images = torch.from_numpy(np.stack([image for image in found if image is not None]))
        return images.permute(0, 3, 1, 2), torch.tensor(kept)

    def _decode(self, paths: Sequence[str]) -> list[np.ndarray | None]:
        return [self._read(path) for path in paths]

    def _read(self, path: str) -> np.ndarray | None:
        height, width, channels = self.canvas
        try:
            return decode_image((self.root / path).read_bytes(), channels, (height, width))
        except (DataError, OSError) as error:
            reason = f"cannot be read ({error.strerror})" if isinstance(error, OSError) else str(error)
        if not self.skip:
            raise DataError(f"{self.root / path}: {reason}; leave such pictures out with --on-bad-image skip")
        if path not in self.skipped:
            self.skipped[path] = reason
            print(f"{self.root / path}: {reason}; left out", file=sys.stderr)
        return None
