"""Where images lie and how they are read: one protocol for memory, mapped files, folders, shards and Python's own."""

import random
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Self

import torch
from torch import Tensor

from cnnkit.core.parallel import ahead
from cnnkit.data.split import stratified_split

__all__ = ["InMemory", "Rows", "Storage", "as_storage", "generator"]

Rows = slice | Tensor  # the tensor is int64, or bool as a mask
ALL = slice(None)
SAMPLE = 4096  # images


class Storage(ABC):
    """Images of one size, uint8, read by row; a batch comes as N x C x H x W with channels-last strides.

    A storage of another kind derives from this class and says what its `shape` is and how to `read`; the rest has
    defaults, which suit images that can be read in any order.
    """

    in_memory: bool = False
    """Whether a batch is there at once; if not, batches are read ahead by a thread."""
    resident: bool = False
    """Whether `to` puts the images themselves on a device."""

    @property
    @abstractmethod
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""

    @abstractmethod
    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the images of these rows that can be read, and which of the rows they are, counted from 0.

        Raises DataError for one that cannot be read, unless the storage leaves such images out.
        """

    @abstractmethod
    def subset(self, rows: Tensor) -> Self:
        """Return these rows (int64) as a storage of its own; nothing is read."""

    def __getitem__(self, rows: Rows) -> Tensor:
        """Return the images of these rows that can be read."""
        return self.read(rows)[0]

    def __len__(self) -> int:
        return self.shape[0]

    def to(self, device: torch.device) -> "Storage":
        """Return the images on a device, if they can stay there (`resident`)."""
        return self

    def order(self, seed: int, epoch: int, world: int) -> Tensor:
        """Return the order of an epoch, int64; of `world` processes, number r takes r, r + world, r + 2 world, ..."""
        return torch.randperm(len(self), generator=generator(seed, epoch))

    def portions(self, batch_size: int, sizes: Sequence[int], rank: int, world: int) -> Iterator[Rows]:
        """Yield the rows of process `rank` in batches: each row of one process.

        `sizes` are those of the batches over all processes: `batch_size`, but for the last.
        """
        start = 0
        for size in sizes:
            yield slice(start + rank, start + size, world)
            start += size

    def stream(self, parts: Iterable[Rows], pin: bool = False) -> Iterator[tuple[Tensor, Rows]]:
        """Yield what `read` returns for each part, read ahead; `pin` puts it into memory that a GPU copies from."""

        def load(rows: Rows) -> tuple[Tensor, Rows]:
            images, kept = self.read(rows)
            return (images.pin_memory() if pin else images), kept

        return ahead(load, parts, 1, 0 if self.in_memory else 2)

    def hold_out(self, labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
        """Return sorted rows (kept, held out): the `fraction` of each class, rounded, is held out.

        Raises UsageError unless 0 <= fraction < 1.
        """
        return stratified_split(labels, fraction, seed)

    def places(self) -> bytes | None:
        """Return what says where each image lies, if it is not the names of files."""
        return None

    def sample(self) -> "Storage":
        """Return enough of the images for statistics."""
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
        # whole images, as they lie in memory: ten times as fast as indexing
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


def as_storage(images: Any) -> Storage:
    """Return a tensor of images as a storage, and a storage as it is."""
    return images if isinstance(images, Storage) else InMemory(images)


def generator(*key: int) -> torch.Generator:
    """Return a generator seeded by `key`: torch's keeps 32 bits of a seed, so Python hashes the numbers into them."""
    mixed = random.Random(" ".join(map(str, key))).getrandbits(32)
    return torch.Generator().manual_seed(mixed)
