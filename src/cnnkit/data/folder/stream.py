"""The images of a folder, decoded on each access, for folders that are too large for the cache."""

import os
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError
from cnnkit.core.parallel import ahead, chunks
from cnnkit.data.files import read_file
from cnnkit.data.images.decode import decode_image
from cnnkit.data.storage import ALL, Decoding, Rows

__all__ = ["Streamed"]

CHUNK = 64  # images that a thread decodes at a time, at most


@dataclass(frozen=True)
class Streamed(Decoding):
    """Image files below `root`; `rows` are indices of `paths`."""

    root: Path
    paths: Sequence[str]

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the readable images of these rows, and their positions among the rows.

        Raises DataError for an unreadable image, unless it is skipped.
        """
        paths = [self.paths[row] for row in self.rows[rows].tolist()]
        height, width, channels = self.canvas
        images, kept = np.empty((len(paths), *self.canvas), np.uint8), torch.ones(len(paths), dtype=torch.bool)

        def decode(numbers: Sequence[int]) -> None:
            for number in numbers:
                try:
                    content = read_file(os.path.join(self.root, paths[number]))  # noqa: PTH118  a Path takes longer
                    images[number] = decode_image(content, channels, (height, width), max_pixels=self.max_pixels)
                except DataError as error:
                    kept[number] = False
                    self.complain(f"{self.root}/{paths[number]}", error)

        share = min(CHUNK, -(-len(paths) // (2 * self.workers)) or 1)
        depth = len(paths) if self.workers > 1 else 0
        deque(ahead(decode, chunks(range(len(paths)), share), self.workers, depth), maxlen=0)
        found = torch.from_numpy(images).permute(0, 3, 1, 2)
        return (found, ALL) if kept.all() else (found[kept], kept.nonzero().flatten())
