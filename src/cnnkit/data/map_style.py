"""A map-style `torch.utils.data.Dataset` of (image, label) as a data set, whose images are read on access."""

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError, about
from cnnkit.core.parallel import chunks
from cnnkit.core.progress import Counter
from cnnkit.core.shape import by
from cnnkit.data.arrays import number_labels, split_test
from cnnkit.data.images.decode import fitted
from cnnkit.data.images.pixels import to_pixels
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.reading import Reading
from cnnkit.data.storage import ALL, Rows, Selection

__all__ = ["PythonImages", "is_map_style", "load_map_style"]

SAMPLE = 8  # images by which the size and the channels are determined
CHUNK = 64  # images between two updates of the progress


def is_map_style(data: Any) -> bool:
    """Return whether data has a length and items by number."""
    return hasattr(data, "__getitem__") and hasattr(data, "__len__") and not isinstance(data, str | dict | list | tuple)


@dataclass(frozen=True)
class PythonImages(Selection):
    """Images of a Python data set, fitted into `canvas` (H, W, C); `rows` are indices of it.

    One thread reads them, a batch ahead; if the data set is deterministic, runs repeat and resume bit for bit. Raises
    DataError for an item that is not an image of this size, or whose label is no longer that in `labels`.
    """

    source: Any
    fit: bool
    labels: list[Any]
    max_pixels: int

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the images of these rows."""
        numbers = self.rows[rows].tolist()
        images = np.empty((len(numbers), *self.canvas), np.uint8)
        for image, number in zip(images, numbers, strict=True):
            image[:] = self._image(number)
        return torch.from_numpy(images).permute(0, 3, 1, 2), ALL

    def _image(self, number: int) -> np.ndarray:
        height, width, channels = self.canvas
        given, label = _item(self.source, number)
        if label != self.labels[number]:
            raise DataError(f"item {number} of the data set had the label {self.labels[number]!r} and has {label!r}")
        with about(f"item {number} of the data set"):
            pixels = to_pixels(given, channels, (height, width) if self.fit else None, max_pixels=self.max_pixels)
        if self.fit and pixels.shape[:2] != (height, width) and channels in (1, 3):
            resized = fitted(Image.fromarray(pixels[..., 0] if channels == 1 else pixels), (height, width))
            pixels = np.asarray(resized).reshape(self.canvas)
        if pixels.shape != self.canvas:
            raise DataError(
                f"item {number} of the data set is {by(*pixels.shape[:2])}, others are {by(height, width)}: "
                "set a common size with image_size"
            )
        return pixels


def load_map_style(data: Any, options: Reading) -> Dataset:
    """Open a map-style data set whose items are (image, label).

    Images are accepted as by `to_pixels`; labels are integers, indices of `data.classes` if that exists, or names. The
    labels are read first: from `data.targets` if there is no target_transform, else item by item. With `image_size`
    all images are fitted into it, else they must have one size. A sample determines whether all are grey. A fraction of
    each class is held out for testing. Raises DataError for invalid items, UsageError if there are none.
    """
    total = len(data)
    if not total:
        raise UsageError(f"the data set {type(data).__name__} has no items")
    labels = _labels(data, total, options.progress)
    classes = getattr(data, "classes", None)
    classes = list(map(str, classes)) if isinstance(classes, list | tuple) else None
    names, numbers = number_labels(labels, total, classes)
    canvas, seen = _canvas(data, total, options)
    fit = options.image_size is not None
    storage = PythonImages(torch.arange(total), canvas, data, fit, labels, options.max_pixels)
    digest = hashlib.sha256(repr((names, numbers.tolist(), seen)).encode()).hexdigest()
    name = type(data).__name__.lower()
    return split_test(Dataset(name, names, ImageSet(storage, numbers), None, sha256=digest), options)


def _item(data: Any, number: int) -> tuple[Any, Any]:
    try:
        item = data[number]
    except Exception as error:  # of the data set's own code
        raise DataError(f"item {number} of the data set cannot be read: {type(error).__name__}: {error}") from error
    if not isinstance(item, tuple | list) or len(item) != 2:
        raise DataError(f"item {number} of the data set is {type(item).__name__}, not (image, label)")
    return item[0], _plain(item[1])


def _plain(label: Any) -> Any:
    """Return a label as a Python object."""
    return label.item() if isinstance(label, np.generic | Tensor | np.ndarray) and np.ndim(label) == 0 else label


def _labels(data: Any, total: int, progress: bool) -> list[Any]:
    known = getattr(data, "targets", None)
    if known is not None and getattr(data, "target_transform", None) is None and len(known) == total:
        return [_plain(label) for label in known]
    labels = []
    with Counter(f"reading the labels of {type(data).__name__}", total, progress) as counter:
        for numbers in chunks(range(total), CHUNK):
            labels += [_item(data, number)[1] for number in numbers]
            counter.advance(len(numbers))
    return labels


def _canvas(data: Any, total: int, options: Reading) -> tuple[tuple[int, int, int], list[str]]:
    """Return H, W and C of the images by a sample, and its digests if it is the same when read twice."""
    seen = []
    for number in sorted({number * (total - 1) // (SAMPLE - 1) for number in range(SAMPLE)}):
        images = [_item(data, number)[0] for _ in range(2)]
        with about(f"item {number} of the data set"):
            seen.append([to_pixels(image, max_pixels=options.max_pixels) for image in images])
    height, width = options.image_size or seen[0][0].shape[:2]
    digests = [hashlib.sha256(one.tobytes()).hexdigest() for one, other in seen if np.array_equal(one, other)]
    channels = options.channels or max(one.shape[2] for one, _ in seen)
    return (height, width, channels), digests if len(digests) == len(seen) else []
