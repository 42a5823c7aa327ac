"""Image sets and data sets, the result of loading and the input of training."""

import hashlib
import json
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from cnnkit.data.split import split_by_content
from cnnkit.data.storage import Storage, as_storage

__all__ = ["Dataset", "FileFacts", "ImageSet"]

AT_A_TIME = 4096  # images that are copied at a time for a digest


@dataclass(frozen=True, eq=False)
class FileFacts:
    """What the cache knows of image files: upright `sizes` (int32, N x 2: height and width), and their thumbnails."""

    sizes: Tensor
    thumb_file: np.ndarray
    thumb_rows: np.ndarray

    def thumbs(self) -> np.ndarray:
        """Return the thumbnail of each image (`thumbnail`), uint8, N x D; they depend only on the contents."""
        return np.asarray(self.thumb_file[self.thumb_rows])

    def subset(self, rows: Tensor) -> "FileFacts":
        """Return the facts of these rows (int64)."""
        return FileFacts(self.sizes[rows], self.thumb_file, self.thumb_rows[rows.numpy()])


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8, N x C x H x W in memory as N x H x W x C (channels-last strides), and labels, int64, N.

    `names` are the files' paths below the data set's folder, with "/" between their parts, `digests` those of their
    contents, and `files` what else is known of them; images that are not single files have none of these.
    Near-duplicates have the same number in `groups` (int64, N).
    """

    images: Tensor | Storage
    labels: Tensor
    names: Sequence[str] = ()
    digests: Sequence[str] = ()
    groups: Tensor | None = None
    files: FileFacts | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def storage(self) -> Storage:
        """The images as a Storage."""
        return as_storage(self.images)

    def subset(self, rows: Tensor) -> "ImageSet":
        """Return the set of these rows (int64), in this order."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.subset(rows)
        names, digests = (
            tuple(map(values.__getitem__, rows.tolist())) if values else () for values in (self.names, self.digests)
        )
        groups = None if self.groups is None else self.groups[rows]
        files = self.files and self.files.subset(rows)
        return ImageSet(images, self.labels[rows], names, digests, groups, files)

    def digest(self) -> str:
        """Return the SHA-256 of what identifies the images: their places in the storage, their names, or all pixels."""
        identity = self.storage.places()
        if identity is None and self.names:
            identity = json.dumps(self.names).encode()
        return hashlib.sha256(identity).hexdigest() if identity is not None else self._content_digest()

    def _content_digest(self) -> str:
        """Return the SHA-256 of images in memory, and of their labels."""
        found = hashlib.sha256(self.labels.cpu().numpy().data)
        for start in range(0, len(self), AT_A_TIME):
            images, _ = self.storage.read(slice(start, start + AT_A_TIME))
            found.update(images.permute(0, 2, 3, 1).contiguous().cpu().numpy().data)
        return found.hexdigest()

    def hold_out(self, fraction: float, seed: int | str, used: Set[str] = frozenset()) -> tuple[Tensor, Tensor]:
        """Return sorted rows (kept, held out), with the `fraction` of each class held out.

        Image files are split by their content (`split_by_content`), and those whose digest is in `used` are kept;
        others are split by their storage, with an integer seed. Raises UsageError unless 0 <= fraction < 1.
        """
        if len(self) and not self.digests:
            return self.storage.hold_out(self.labels, fraction, int(seed))
        groups = torch.arange(len(self)) if self.groups is None else self.groups
        return split_by_content(self.labels, self.digests, groups, fraction, f"{seed}", used)


@dataclass(frozen=True)
class Dataset:
    """Sets of images with the same classes, in the labels' order.

    `validation` is None if the data set has none: hold it out of `train` (`ImageSet.hold_out`). `skipped` lists files
    that could not be read, relative to the folder, with the reasons. `sha256` is that of data passed from Python, which
    has no path, `parts_sha256` those of such data used as parts. `pool` holds all images of a folder or a table, from
    which the parts are taken; `left_out` the classes with too few images. `remarks` explain surprising decisions and
    ignored files.
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
