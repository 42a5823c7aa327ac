"""Input images from paths, folders, PIL images, arrays, tensors and lists of these."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.places import expanded
from cnnkit.core.shape import by
from cnnkit.data.files import read_file
from cnnkit.data.folder.walk import unread_images, walk
from cnnkit.data.images.decode import decode_image
from cnnkit.data.images.formats import allow_pixels
from cnnkit.data.images.pixels import CHANNELS, to_pixels

__all__ = ["Input", "each_image"]

Size = tuple[int, int]


@dataclass(frozen=True)
class Input:
    """An image's name, and `read`, which takes channels and a size to shrink to and returns uint8 H x W x C.

    `read` raises DataError with the reason alone, which only for a `file` is reported without failing the others.
    """

    name: str
    read: Callable[[int, Size | None], np.ndarray]
    file: bool = True


def each_image(images: Any, channels: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[Input]:
    """Yield the images of a path, a folder (searched recursively), a PIL image, an array, a tensor, or a list of these.

    An array is H x W or H x W x C, a tensor C x H x W, or a batch of these, N first. `channels` are the network's.
    Reading an image of more than `max_pixels` raises DataError. Raises UsageError for any other argument and for an
    invalid `max_pixels`, DataError for a folder without images.
    """
    allow_pixels(max_pixels)
    for number, found in enumerate(_flat(images, channels)):
        if isinstance(found, _File):
            yield Input(found.name, partial(found.read, max_pixels))
        else:
            yield Input(f"image {number}", partial(_pixels, found, max_pixels), isinstance(found, Image.Image))


class _File(NamedTuple):
    name: str
    path: str | Path

    def read(self, max_pixels: int, channels: int, shrink: Size | None) -> np.ndarray:
        return decode_image(read_file(self.path), channels, shrink, enlarge=False, max_pixels=max_pixels)


def _flat(images: Any, channels: int) -> Iterator[Any]:
    if isinstance(images, str | Path):
        if not str(images):
            raise UsageError("the path of an image is empty")
        path = expanded(images)
        if path.is_dir():
            tree = walk(path)
            unread = [name for names in unread_images(tree).values() for name in names]  # reading them gives the reason
            files = [f"{path}/{name}" for name in (*tree.images, *unread)]
            if not files:
                raise DataError(f"{images}: the folder has no images")
            yield from (_File(file, file) for file in files)
        else:
            yield _File(str(images), path)
    elif isinstance(images, Image.Image):
        yield images
    elif hasattr(images, "shape") and hasattr(images, "ndim") and getattr(images.dtype, "kind", "-") not in "OUT":
        yield from images if _is_batch(images, channels) else (images,)
    elif hasattr(images, "__iter__") and not isinstance(images, bytes | dict):  # also an array of paths
        for some in images:
            yield from _flat(some, channels)
    else:
        raise UsageError(
            f"{type(images).__name__} is not an image: predict takes a path, a folder, a PIL image, an array, a tensor "
            "or a list of these"
        )


def _is_batch(images: Any, channels: int) -> bool:
    """Return whether an array or a tensor is a batch; raises UsageError if that is ambiguous."""
    shape = tuple(images.shape)
    if len(shape) != 3 or isinstance(images, Tensor):
        return len(shape) == 4
    if shape[2] in (*CHANNELS, channels):
        return False
    if channels != 1 and shape[0] in (*CHANNELS, channels):
        raise UsageError(
            f"an array of {by(*shape)} may be {shape[0]} grey images, or one of {shape[0]} channels: "
            "write H x W x C or N x H x W x C"
        )
    return True


def _pixels(image: Any, max_pixels: int, channels: int, shrink: Size | None) -> np.ndarray:
    return to_pixels(image, channels, shrink, max_pixels=max_pixels)
