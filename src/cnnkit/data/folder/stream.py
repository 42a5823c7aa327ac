"""The images of a folder, decoded on each access, for folders that are too large for the cache."""

import logging
import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.parallel import ahead, chunks
from cnnkit.data.files import read_file
from cnnkit.data.images.decode import decode_image
from cnnkit.data.storage import ALL, Rows, Storage

__all__ = ["Streamed"]

CHUNK = 64  # images that a thread decodes at a time, at most

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Streamed(Storage):
    """Image files below `root`, fitted into `canvas` (H, W, C), decoded by `workers` threads.

    With `skip`, an image that cannot be read, or has more than `max_pixels`, is skipped and recorded in `skipped` with
    the reason; else it raises DataError. `rows` are indices of `paths`.
    """

    root: Path
    paths: Sequence[str]
    canvas: tuple[int, int, int]
    workers: int
    skip: bool
    rows: Tensor
    max_pixels: int = DEFAULT_MAX_PIXELS
    skipped: dict[str, str] = field(default_factory=dict)

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        height, width, channels = self.canvas
        return len(self.rows), channels, height, width

    def subset(self, rows: Tensor) -> "Streamed":
        """Return these rows as a storage."""
        return replace(self, rows=self.rows[rows])

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the readable images of these rows, and their positions among the rows.

        Raises DataError for an unreadable image, unless it is skipped.
        """
        paths = [self.paths[row] for row in self.rows[rows].tolist()]
        images, kept = np.empty((len(paths), *self.canvas), np.uint8), torch.ones(len(paths), dtype=torch.bool)

        def decode(numbers: Sequence[int]) -> None:
            for number in numbers:
                image = self._decode(paths[number])
                if image is None:
                    kept[number] = False
                else:
                    images[number] = image

        share = min(CHUNK, -(-len(paths) // (2 * self.workers)) or 1)
        depth = len(paths) if self.workers > 1 else 0
        deque(ahead(decode, chunks(range(len(paths)), share), self.workers, depth), maxlen=0)
        found = torch.from_numpy(images).permute(0, 3, 1, 2)
        return (found, ALL) if kept.all() else (found[kept], kept.nonzero().flatten())

    def _decode(self, path: str) -> np.ndarray | None:
        height, width, channels = self.canvas
        try:
            content = read_file(os.path.join(self.root, path))  # noqa: PTH118  a Path takes longer
            return decode_image(content, channels, (height, width), max_pixels=self.max_pixels)
        except DataError as error:
            if not self.skip:
                remedy = "skip such images with --on-bad-image skip"
                raise DataError(f"{self.root}/{path}: {error}; {remedy}") from error
            if path not in self.skipped:
                self.skipped[path] = str(error)
                log.warning("%s/%s: %s; skipped", self.root, path, error)
            return None
