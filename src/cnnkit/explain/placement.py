"""Where an image lies in the network's input, and the way back to the image's own pixels."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from cnnkit.core.resize import resize
from cnnkit.data import Preprocess

__all__ = ["Box", "Placement"]

Pixels = tuple[int, int]  # vertical, horizontal


class Box(NamedTuple):
    """A rectangle of pixels; `bottom` and `right` are exclusive."""

    top: int
    left: int
    bottom: int
    right: int


@dataclass(frozen=True)
class Placement:
    """An image of size `image` lies, resized to `resized`, at row and column `offset` of the input of size `input`.

    Where a resized image extends beyond the input, it has been cropped; the offset may be negative.
    """

    image: Pixels
    resized: Pixels
    offset: Pixels
    input: Pixels

    @classmethod
    def of(cls, preprocess: Preprocess, height: int, width: int) -> "Placement":
        """Return the placement of an image of this size."""
        return cls((height, width), *preprocess.placement(height, width), preprocess.image_size)

    @classmethod
    def identity(cls, height: int, width: int) -> "Placement":
        """Return the placement of an image that is the input itself."""
        return cls((height, width), (height, width), (0, 0), (height, width))

    def back(self, heat: Tensor) -> Tensor:
        """Return values over the input, h x w, as values over the image, H x W; 0 where it has been cropped."""
        box = self.box(Box(0, 0, *self.input))
        (top, bottom), (left, right) = self._seen(0), self._seen(1)
        restored = torch.zeros(self.image, dtype=heat.dtype)
        if box is not None:
            size = box.bottom - box.top, box.right - box.left
            part = heat[top:bottom, left:right]
            part = part if part.shape == size else resize(part[None, None], size)[0, 0]
            restored[box.top : box.bottom, box.left : box.right] = part
        return restored

    def box(self, box: Box) -> Box | None:
        """Return a rectangle of the input in pixels of the image, rounded outwards; None if it lies outside of it."""
        rows, columns = self._span(0, box.top, box.bottom), self._span(1, box.left, box.right)
        return Box(rows[0], columns[0], rows[1], columns[1]) if rows and columns else None

    def _seen(self, axis: int) -> Pixels:
        """Return the start and stop of the input's pixels that hold the image."""
        start = self.offset[axis]
        return max(0, start), min(self.input[axis], start + self.resized[axis])

    def _span(self, axis: int, start: int, stop: int) -> Pixels | None:
        first, last = self._seen(axis)
        start, stop = max(start, first), min(stop, last)
        if start >= stop:
            return None
        scale, offset = self.image[axis] / self.resized[axis], self.offset[axis]
        return math.floor((start - offset) * scale), min(self.image[axis], math.ceil((stop - offset) * scale))
