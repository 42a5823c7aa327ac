"""Batches of an image set: one permutation per epoch, one gather per batch, preprocessing on the batch."""

from collections.abc import Iterable, Iterator
from itertools import tee
from typing import Protocol

import torch
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data.imageset import ImageSet
from cnnkit.data.preprocess import Preprocess
from cnnkit.data.storage import Rows, generator

__all__ = ["Augmentation", "Batches"]


class Augmentation(Protocol):
    """A pure function of images and of uniform random numbers, `numbers` for each image."""

    @property
    def numbers(self) -> int:
        """Random numbers per image."""

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return augmented uint8 images for images N x C x H x W and u, float32, N x `numbers`, in [0, 1)."""


class Batches:
    """An image set as batches (x, y): floats N x C x H x W with channels-last strides, labels N.

    `epoch(e)` yields every image once, in an order that depends on (seed, e) only, so that an epoch can be resumed at
    any batch; `augment` changes its images by random numbers that depend on (seed, e, number of the batch). Iteration
    is in the storage's order, without augmentation. Of several processes, `shard` (rank, world), each takes every
    world-th row of each shuffled batch. The last batch may be smaller, but a remainder of fewer than two images per
    process joins the batch before, as batch normalisation cannot train on one. `sizes` are the batch sizes over all
    processes. Raises UsageError for a batch size below world.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        preprocess: Preprocess,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
        augment: Augmentation | None = None,
        shard: tuple[int, int] = (0, 1),
    ):
        self.rank, self.world = shard
        if batch_size < self.world:
            processes = f" for {self.world} processes" if self.world > 1 else ""
            raise UsageError(f"batch_size must be at least {self.world}{processes}, not {batch_size}")
        self.device = torch.device(device)
        self.images = data.storage.to(self.device)
        self.labels = data.labels.to(self.device) if self.images.resident else data.labels
        self.batch_size, self.preprocess, self.seed, self.augment = batch_size, preprocess, seed, augment
        self._last: tuple[int | None, Tensor] = (None, torch.empty(0))  # an epoch, and its order
        whole, rest = divmod(len(data), batch_size)
        self.sizes = [batch_size] * whole
        if whole and rest < 2 * self.world:
            self.sizes[-1] += rest
        elif rest:
            self.sizes.append(rest)

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def num_images(self) -> int:
        """Images of an epoch, over all processes."""
        return len(self.labels)

    @property
    def in_memory(self) -> bool:
        """Whether the images are in memory or memory-mapped."""
        return self.images.in_memory

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for _, x, y in self.numbered():
            yield x, y

    def numbered(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield this process' part of each batch with the rows of its images: rows (int64, on the CPU), x, y."""
        parts, again = tee(self.images.portions(self.batch_size, self.sizes, self.rank, self.world))
        for part, (images, labels, kept) in zip(again, self._read(parts), strict=True):
            if len(labels):
                rows = torch.arange(self.num_images)[part] if isinstance(part, slice) else part
                yield rows[kept], self.preprocess(images), labels

    def epoch(self, epoch: int, first: int = 0, stop: int | None = None) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield this process' part of the shuffled batches of an epoch from number `first` to before `stop` (the end).

        No other images are read. Raises UsageError without a seed, or with fewer images than processes, and DataError
        for a batch without a readable image.
        """
        if self.seed is None:
            raise UsageError("these batches have no seed for shuffling")
        if 0 < self.num_images < self.world:
            raise UsageError(f"{self.num_images:,} images are too few for {self.world} processes")
        order = self.images.order(self.seed, epoch, self.world).to(self.labels.device)
        parts = (order[self._part(number)] for number in range(first, len(self) if stop is None else stop))
        for number, (images, labels, kept) in enumerate(self._read(parts), first):
            if not len(labels):
                raise DataError(f"batch {number} of epoch {epoch} has no readable image")
            if self.augment:
                u = self._numbers(self.augment, epoch, number)[self.rank :: self.world][kept]
                images = self.augment(images, u)
            yield self.preprocess(images), labels

    def stretch(self, epoch: int, first: int, count: int) -> tuple[Tensor, Tensor]:
        """Return the images and labels of `count` batches of an epoch from number `first` on, concatenated.

        Images that need no resizing stay uint8. Only for one process and images that are `in_memory`.
        """
        if self._last[0] != epoch:
            self._last = epoch, self.images.order(self.seed or 0, epoch, self.world)
        start = first * self.batch_size
        rows = self._last[1][start : start + sum(self.sizes[first : first + count])]
        images, labels = self.images[rows], self.labels[rows]
        if self.augment:
            numbers = [self._numbers(self.augment, epoch, number) for number in range(first, first + count)]
            images = self.augment(images, torch.cat(numbers))
        return images if self.preprocess.keeps(images) else self.preprocess(images), labels

    def _numbers(self, augment: Augmentation, epoch: int, number: int) -> Tensor:
        """Return the random numbers of a batch, over all processes."""
        return torch.rand(self.sizes[number], augment.numbers, generator=generator(self.seed or 0, epoch, number))

    def _part(self, number: int) -> slice:
        """Return this process' slice of the order for a batch."""
        start = number * self.batch_size
        return slice(start + self.rank, start + self.sizes[number], self.world)

    def _read(self, parts: Iterable[Rows]) -> Iterator[tuple[Tensor, Tensor, Rows]]:
        """Yield the images of some rows on the device, their labels, and the rows that could be read."""
        parts, again = tee(parts)
        later = self.device.type == "cuda"  # from pinned memory; elsewhere copies must be synchronous
        pin = later and not self.images.resident  # so that the copy is asynchronous
        for rows, (images, kept) in zip(again, self.images.stream(parts, pin), strict=True):
            labels = self.labels[rows][kept]
            labels = labels.pin_memory() if pin else labels
            yield images.to(self.device, non_blocking=later), labels.to(self.device, non_blocking=later), kept
