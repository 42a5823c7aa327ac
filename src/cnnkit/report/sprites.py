"""The images of a page within its bytes: each gallery is one sheet, with as many images as fit."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from itertools import islice

import numpy as np

from cnnkit.figures import Sheet, sprite_sheet

__all__ = ["Budget", "Sprites"]

MARGIN = 0.95  # of the images that would fit, as they differ in size
TILE_BYTES = 250  # of a tile's HTML, with its name twice


@dataclass(frozen=True)
class Sprites:
    """The images of a gallery as one sheet, with the place of each image by its key."""

    sheet: Sheet
    places: dict[Hashable, int]

    def tile(self, key: Hashable, label: str) -> str:
        """Return the HTML of an image."""
        return self.sheet.tile(self.places[key], label)


class Budget:
    """The bytes that are left for images, and lines that say what was left out."""

    def __init__(self, num_bytes: int):
        self.left, self.left_out = num_bytes, list[str]()

    def sprites(
        self, name: str, title: str, images: Mapping[Hashable, np.ndarray | None], tile: int, share: float
    ) -> Sprites | None:
        """Return the first images, as many as fit into this share of the bytes that are left; None if none do.

        They are shown with at most `tile` pixels a side, None as a cross; `name` is their CSS class.
        """
        number, limit = len(images), self.left * share
        while number:
            sheet = sprite_sheet(list(islice(images.values(), number)), tile, name)
            cost = sheet.num_bytes + number * TILE_BYTES
            if cost <= limit:
                break
            number = max(0, min(number - 1, int(MARGIN * number * limit / cost)))
        if number < len(images):
            self.left_out.append(f"{title}: {len(images) - number:,} of {len(images):,} images")
        if not number:
            return None
        self.left -= cost
        return Sprites(sheet, {key: place for place, key in enumerate(islice(images, number))})
