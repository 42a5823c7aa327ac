"""Arrays and tensors in memory as a data set."""

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError, about
from cnnkit.core.shape import by
from cnnkit.data.images.pixels import to_array, to_bytes
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.reading import Reading

__all__ = ["is_arrays", "load_arrays", "number_labels", "split_test"]

CHANNELS = (1, 3)


def is_arrays(data: Any) -> bool:
    """Return whether data is a pair of arrays or tensors, images and labels."""
    is_pair = isinstance(data, tuple | list) and len(data) == 2 and all(hasattr(part, "__len__") for part in data)
    return is_pair and hasattr(data[0], "shape")


def load_arrays(data: Any, options: Reading) -> Dataset:
    """Return (images, labels) as a data set.

    Images are N x H x W, N x H x W x C (arrays) or N x C x H x W (tensors): uint8, or floats from 0 to 1, which are
    stored in 8 bits. Labels are N integers or names; the classes are those that occur, sorted. A fraction of each class
    is held out for testing. Raises DataError for other shapes and values.
    """
    images, given = data
    with about("images"):
        pixels = _pixels(images)
    names, labels = number_labels(given, len(pixels))
    digest = hashlib.sha256(pixels.data)
    digest.update(repr((pixels.shape, names, labels.tolist())).encode())
    tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2)
    return split_test(Dataset("arrays", names, ImageSet(tensor, labels), None, sha256=digest.hexdigest()), options)


def number_labels(given: Any, number: int, classes: Sequence[str] | None = None) -> tuple[tuple[str, ...], Tensor]:
    """Return the names of the classes, and the class index of each of `number` images.

    With `classes`, integer labels are indices into them. Raises DataError unless there is one label per image.
    """
    values = to_array(given)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]  # as in Keras' data sets
    if values.ndim != 1 or len(values) != number:
        raise DataError(f"labels must be one for each of {number:,} images, not {by(*values.shape)}")
    if values.dtype.kind == "f" and np.isfinite(values).all() and np.array_equal(values, values.round()):
        values = values.astype(np.int64)
    if values.dtype.kind not in "iuUO" or not all(isinstance(value, int | str) for value in values.tolist()):
        raise DataError(f"labels must be integers or names, not {values.dtype}")
    if classes is not None and values.dtype.kind in "iu":
        if len(values) and not 0 <= values.min() <= values.max() < len(classes):
            raise DataError(f"labels range from {values.min()} to {values.max()}, but there are {len(classes)} classes")
        return tuple(classes), torch.from_numpy(values.astype(np.int64))
    known = sorted(set(values.tolist()), key=lambda value: (isinstance(value, str), value))
    if len(known) < 2:
        raise DataError(f"all labels are {', '.join(map(repr, known))}: a classifier needs at least two classes")
    if len(set(map(str, known))) < len(known):
        raise DataError(f"two classes have the same name: {', '.join(map(repr, known))}")
    numbers = {value: place for place, value in enumerate(known)}
    return tuple(map(str, known)), torch.tensor([numbers[value] for value in values.tolist()])


def split_test(dataset: Dataset, options: Reading) -> Dataset:
    """Return the data set with a fixed fraction of each class held out for testing."""
    kept, aside = dataset.train.hold_out(options.test_fraction, seed=0)
    test = dataset.train.subset(aside) if len(aside) else None
    return Dataset(dataset.name, dataset.classes, dataset.train.subset(kept), test, sha256=dataset.sha256)


def _pixels(images: Any) -> np.ndarray:
    """Return images as uint8 N x H x W x C."""
    is_tensor, values = isinstance(images, Tensor), to_array(images)
    if values.ndim == 3:
        values = values[..., None]
    elif values.ndim == 4:
        first, last = values.shape[1] in CHANNELS, values.shape[3] in CHANNELS
        if (first and (is_tensor or not last)) or (is_tensor and not last):
            values = values.transpose(0, 2, 3, 1)
    if values.ndim != 4 or not values.size:
        raise DataError(f"they must be N x H x W, N x H x W x C or, a tensor, N x C x H x W, not {by(*values.shape)}")
    return np.require(to_bytes(values), requirements=["C_CONTIGUOUS", "WRITEABLE"])  # as torch requires
