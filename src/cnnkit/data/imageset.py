"""Image sets and data sets: what loading gives and training takes."""

import hashlib
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from cnnkit.data.split import split_by_content
from cnnkit.data.storage import Storage, as_storage

__all__ = ["Dataset", "ImageSet"]

AT_A_TIME = 4096  # images that are copied for a digest


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8, N x C x H x W in memory as N x H x W x C (channels-last strides), and labels, int64, N.

    `names` are the files' paths below the data set's folder, with "/" between their parts, `digests` what tells their
    contents apart; images that come from no files of their own have neither. Images that are nearly the same have one
    number in `groups` (int64, N).
    """

    images: Tensor | Storage
    labels: Tensor
    names: Sequence[str] = ()
    digests: Sequence[str] = ()
    groups: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def storage(self) -> Storage:
        """The images by the protocol that all storages have."""
        return as_storage(self.images)

    def subset(self, rows: Tensor) -> "ImageSet":
        """Return the set of these rows (int64), in their order."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.subset(rows)
        names, digests = (
            tuple(map(told.__getitem__, rows.tolist())) if told else () for told in (self.names, self.digests)
        )
        groups = None if self.groups is None else self.groups[rows]
        return ImageSet(images, self.labels[rows], names, digests, groups)

    def digest(self) -> str:
        """Return the SHA-256 of what says which images these are: where the storage has them, their names, or all."""
        told = self.storage.places()
        if told is None and self.names:
            told = json.dumps(self.names).encode()
        return hashlib.sha256(told).hexdigest() if told is not None else self._content_digest()

    def _content_digest(self) -> str:
        """Return the SHA-256 of images in memory, and of their labels."""
        found = hashlib.sha256(self.labels.cpu().numpy().data)
        for start in range(0, len(self), AT_A_TIME):
            images, _ = self.storage.read(slice(start, start + AT_A_TIME))
            found.update(images.permute(0, 2, 3, 1).contiguous().cpu().numpy().data)
        return found.hexdigest()

    def hold_out(self, fraction: float, seed: int | str, used: Set[str] = frozenset()) -> tuple[Tensor, Tensor]:
        """Return sorted rows (kept, held out): the `fraction` of each class is held out.

        Image files are divided by what they hold (`split_by_content`), never those whose digest is `used`; others as
        their storage divides them, by a number. Raises UsageError unless 0 <= fraction < 1.
        """
        if not self.digests:
            return self.storage.hold_out(self.labels, fraction, int(seed))
        groups = torch.arange(len(self)) if self.groups is None else self.groups
        return split_by_content(self.labels, self.digests, groups, fraction, f"{seed}", used)


@dataclass(frozen=True)
class Dataset:
    """Sets of images of the same classes, in the labels' order.

    `validation` is None where the data set has none of its own: take it out of `train` (`ImageSet.hold_out`).
    `skipped` names the files that could not be read, relative to the folder, and why. `sha256` is that of data handed
    in from Python, which have no place to be found at again, `parts_sha256` those of other data taken for parts.
    `pool` are all images of a folder or a table, which the parts are taken from; `left_out` the classes of too few
    images. `remarks` say what was decided, or passed over, and may surprise.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet | None
    validation: ImageSet | None = None
    skipped: tuple[tuple[str, str], ...] = ()
    sha256: str | None = None
    parts_sha256: tuple[str, ...] = ()
    pool: ImageSet | None = None
    left_out: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
