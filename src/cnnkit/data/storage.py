"""The protocol of image storages: memory, mapped files, folders, shards and Python data sets."""

import logging
import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import torch
from torch import Tensor

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.parallel import ahead
from cnnkit.data.split import stratified_split

__all__ = ["Decoding", "InMemory", "Rows", "Selection", "Storage", "as_storage", "generator"]

log = logging.getLogger(__name__)

Rows = slice | Tensor  # the tensor is int64, or bool as a mask
ALL = slice(None)
SAMPLE = 4096  # images


class Storage(ABC):
    """Images of one size, uint8, read by row; a batch is N x C x H x W with channels-last strides.

    Subclasses define `shape`, `read` and `subset`; the defaults of the rest suit images that can be read in any order.
    """

    in_memory: bool = False
    """Whether a batch is available at once; if not, a thread reads batches ahead."""
    resident: bool = False
    """Whether `to` copies the images to a device."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""

    @abstractmethod
    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the readable images of these rows, and their positions among the rows.

        Raises DataError for an unreadable image, unless the storage skips them.
        """

    @abstractmethod
    def subset(self, rows: Tensor) -> Self:
        """Return these rows (int64) as a storage, without reading any."""

    def __getitem__(self, rows: Rows) -> Tensor:
        """Return the readable images of these rows."""
        return self.read(rows)[0]

    def __len__(self) -> int:
        return self.shape[0]

    def to(self, device: torch.device) -> "Storage":
        """Return the images on a device, if they are `resident`."""
        return self

    def order(self, seed: int, epoch: int, world: int) -> Tensor:
        """Return the order of an epoch, int64; rank r of `world` takes r, r + world, r + 2 world, ..."""
        return torch.randperm(len(self), generator=generator(seed, epoch))

    def portions(self, batch_size: int, sizes: Sequence[int], rank: int, world: int) -> Iterator[Rows]:
        """Yield the rows of process `rank` in batches, so that each row belongs to one process.

        `sizes` are the batch sizes over all processes: `batch_size`, except for the last.
        """
        start = 0
        for size in sizes:
            yield slice(start + rank, start + size, world)
            start += size

    def stream(self, parts: Iterable[Rows], pin: bool = False) -> Iterator[tuple[Tensor, Rows]]:
        """Yield the result of `read` for each part, read ahead; `pin` copies it to pinned memory."""

        def load(rows: Rows) -> tuple[Tensor, Rows]:
            images, kept = self.read(rows)
            return (images.pin_memory() if pin else images), kept

        return ahead(load, parts, 1, 0 if self.in_memory else 2)

    def hold_out(self, labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
        """Return sorted rows (kept, held out), with the `fraction` of each class, rounded, held out.

        Raises UsageError unless 0 <= fraction < 1.
        """
        return stratified_split(labels, fraction, seed)

    def places(self) -> bytes | None:
        """Return bytes that identify each image's place, None if the file names do."""
        return None

    def sample(self) -> "Storage":
        """Return a sample of the images for statistics."""
        return self.subset(torch.linspace(0, len(self) - 1, min(len(self), SAMPLE), dtype=torch.float64).long())


class InMemory(Storage):
    """A tensor N x C x H x W, in memory as N x H x W x C."""

    in_memory = resident = True

    def __init__(self, images: Tensor):
        self.images = images

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        number, channels, height, width = self.images.shape
        return number, channels, height, width

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the images of these rows."""
        if isinstance(rows, slice):
            return self.images[rows], ALL
        # whole images in memory order: ten times as fast as indexing
        return self.images.permute(0, 2, 3, 1).index_select(0, rows).permute(0, 3, 1, 2), ALL

    def subset(self, rows: Tensor) -> "InMemory":
        """Return a copy of these rows."""
        return InMemory(self.images[rows])

    def to(self, device: torch.device) -> "InMemory":
        """Return the images on the device."""
        return InMemory(self.images.to(device))

    def sample(self) -> "InMemory":
        """Return all of the images."""
        return self


@dataclass(frozen=True)
class Selection(Storage):
    """Images of a source, each of the size `canvas` (H, W, C); `rows` (int64) are their indices in the source."""

    rows: Tensor
    canvas: tuple[int, int, int]

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        height, width, channels = self.canvas
        return len(self.rows), channels, height, width

    def subset(self, rows: Tensor) -> Self:
        """Return these rows as a storage."""
        return replace(self, rows=self.rows[rows])


@dataclass(frozen=True)
class Decoding(Selection):
    """Image files, fitted into `canvas` and decoded on each access by `workers` threads.

    With `skip`, an image that cannot be read, or has more than `max_pixels`, is skipped and recorded in `skipped` with
    the reason; else it raises DataError.
    """

    workers: int
    skip: bool
    max_pixels: int = field(default=DEFAULT_MAX_PIXELS, kw_only=True)
    skipped: dict[str, str] = field(default_factory=dict, kw_only=True)

    def complain(self, name: str, error: DataError) -> None:
        """Raise DataError, or log once that an image is skipped."""
        if not self.skip:
            raise DataError(f"{name}: {error}; skip such images with --on-bad-image skip") from error
        if name not in self.skipped:
            self.skipped[name] = str(error)
            log.warning("%s: %s; skipped", name, error)


def as_storage(images: Any) -> Storage:
    """Return a tensor of images as a storage, and a storage unchanged."""
    return images if isinstance(images, Storage) else InMemory(images)


def generator(*key: int) -> torch.Generator:
    """Return a generator seeded by `key`, which Python hashes to the 32 bits that torch's generator uses."""
    mixed = random.Random(" ".join(map(str, key))).getrandbits(32)
    return torch.Generator().manual_seed(mixed)
