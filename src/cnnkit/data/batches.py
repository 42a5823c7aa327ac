"""Batches out of memory: one permutation per epoch, one gather per batch, pixels to floats on the batch."""

import random
from collections.abc import Iterator

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.data.datasets import ImageSet
from cnnkit.data.preprocess import Preprocess

__all__ = ["Batches"]


class Batches:
    """An image set as batches (x, y): floats N x C x H x W with channels-last strides, labels N.

    `epoch(e)` gives every image once, shuffled by (seed, e) alone if a seed is given, so that an epoch can be
    entered at any batch; iteration is in order. The last batch may be smaller, but a single image left over
    joins the batch before it: batch normalisation cannot train on one.
    """

    def __init__(
        self,
        data: ImageSet,
        batch_size: int,
        preprocess: Preprocess,
        *,
        device: torch.device | str = "cpu",
        seed: int | None = None,
    ):
        if batch_size < 1:
            raise UsageError(f"batch_size must be at least 1, not {batch_size}")
        self.images, self.labels = data.images.to(device), data.labels.to(device)
        self.batch_size, self.preprocess, self.seed = batch_size, preprocess, seed

    def __len__(self) -> int:
        whole, rest = divmod(self.num_images, self.batch_size)
        return whole + (rest > 1 or (rest == 1 and whole == 0))

    @property
    def num_images(self) -> int:
        """How many images an epoch has."""
        return len(self.labels)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for number in range(len(self)):
            rows = self._rows(number)
            yield self.preprocess(self.images[rows]), self.labels[rows]

    def epoch(self, epoch: int, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the shuffled batches of an epoch from batch number `first` on."""
        if self.seed is None:
            raise UsageError("these batches have no seed to shuffle by")
        # torch's CPU generator keeps 32 bits of a seed; Python hashes both numbers into them
        mixed = random.Random(f"{self.seed} {epoch}").getrandbits(32)
        order = torch.randperm(self.num_images, generator=torch.Generator().manual_seed(mixed))
        order = order.to(self.labels.device)
        for number in range(first, len(self)):
            rows = order[self._rows(number)]
            yield self.preprocess(self.images[rows]), self.labels[rows]

    def _rows(self, number: int) -> slice:
        start = number * self.batch_size
        return slice(start, start + self.batch_size if number + 1 < len(self) else None)
