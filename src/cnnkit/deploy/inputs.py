"""Whatever holds images, a path, a folder, PIL images, arrays or tensors, as one image after the other."""

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
    """An image by its name, and what reads it: uint8, H x W x C, for a number of channels and a size to shrink to.

    Reading raises DataError with the reason alone. A `file` may be unreadable; an array is there to be seen.
    """

    name: str
    read: Callable[[int, Size | None], np.ndarray]
    file: bool = True


def each_image(images: Any, channels: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Iterator[Input]:
    """Yield the images in a path, a folder (with all below it), a PIL image, an array, a tensor, or a list of these.

    An array is H x W, H x W x C, or a batch of these with N before; a tensor has C before H. `channels` are those that
    the network takes. Reading an image of more than `max_pixels` raises DataError. Raises UsageError for what is
    none of these and for an impossible `max_pixels`, DataError for a folder without images.
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
            unread = [name for names in unread_images(tree).values() for name in names]  # whose reading says why
            files = [f"{path}/{name}" for name in (*tree.images, *unread)]
            if not files:
                raise DataError(f"{images}: there is no image in this folder")
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
            f"{type(images).__name__} is no image: predict takes a path, a folder, a PIL image, an array, a tensor, or "
            "a list of these"
        )


def _is_batch(images: Any, channels: int) -> bool:
    """Return whether an array or a tensor holds several images; raises UsageError if nobody can tell."""
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
