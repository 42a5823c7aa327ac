"""Image sets and data sets: what loading gives and training takes."""

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

__all__ = ["Dataset", "ImageSet", "StoredImages"]


class StoredImages(Protocol):
    """Images that are not in memory: uint8, `shape` N x C x H x W, read row by row."""

    @property
    def shape(self) -> tuple[int, ...]:
        """N, C, H, W."""

    def __getitem__(self, rows: slice | Tensor) -> Tensor:
        """Return the images of these rows (a slice, or int64), in memory as N x H x W x C."""

    def subset(self, rows: Tensor) -> "StoredImages":
        """Return these rows (int64) as images of their own; nothing is read or copied."""


@dataclass(frozen=True)
class ImageSet:
    """Images, uint8, N x C x H x W in memory as N x H x W x C (channels-last strides), and labels, int64, N.

    `names` are the files' paths below the data set's folder, with "/" between their parts; images from IDX files
    have none.
    """

    images: Tensor | StoredImages
    labels: Tensor
    names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.labels)

    def subset(self, rows: Tensor) -> "ImageSet":
        """Return the set of these rows (int64), in their order."""
        images = self.images[rows] if isinstance(self.images, Tensor) else self.images.subset(rows)
        names = tuple(self.names[row] for row in rows.tolist()) if self.names else ()
        return ImageSet(images, self.labels[rows], names)


@dataclass(frozen=True)
class Dataset:
    """Sets of images of the same classes, in the labels' order.

    `validation` is None where the data set has none of its own: take it out of `train` (`stratified_split`).
    `skipped` names the files that could not be read, relative to the folder, and why.
    """

    name: str
    classes: tuple[str, ...]
    train: ImageSet
    test: ImageSet | None
    validation: ImageSet | None = None
    skipped: tuple[tuple[str, str], ...] = ()
