"""Image sets and data sets: what loading gives and training takes."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from torch import Tensor

from cnnkit.data.storage import Storage, as_storage

__all__ = ["Dataset", "ImageSet"]


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8, N x C x H x W in memory as N x H x W x C (channels-last strides), and labels, int64, N.

    `names` are the files' paths below the data set's folder, with "/" between their parts; images that come from no
    files of their own have none.
    """

    images: Tensor | Storage
    labels: Tensor
    names: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def storage(self) -> Storage:
        """The images by the protocol that all storages have."""
        return as_storage(self.images)

    def subset(self, rows: Tensor) -> "ImageSet":
        """Return the set of these rows (int64), in their order."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.subset(rows)
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return ImageSet(images, self.labels[rows], names)

    def digest(self) -> str | None:
        """Return the SHA-256 of what says which images these are: where the storage has them, or their names."""
        told = self.storage.places()
        if told is None:
            told = json.dumps(self.names).encode() if self.names else None
        return None if told is None else hashlib.sha256(told).hexdigest()

    def hold_out(self, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
        """Return sorted rows (kept, held out), as the storage divides them: the `fraction` of each class.

        Raises UsageError unless 0 <= fraction < 1.
        """
        return self.storage.hold_out(self.labels, fraction, seed)


@dataclass(frozen=True)
class Dataset:
    """Sets of images of the same classes, in the labels' order.

    `validation` is None where the data set has none of its own: take it out of `train` (`ImageSet.hold_out`).
    `skipped` names the files that could not be read, relative to the folder, and why. `sha256` is that of data handed
    in from Python, which have no place to be found at again, `parts_sha256` those of other data taken for parts.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet | None
    validation: ImageSet | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    sha256: str | None = None
    parts_sha256: tuple[str, ...] = ()
