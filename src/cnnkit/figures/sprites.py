"""Sprite sheets: many small images in one data URI, shown as tiles of an HTML page that loads nothing.

The format is WebP of quality 80, the smallest at equal error. 1,200 images of Fashion-MNIST: lossy 243 kB (PSNR 38 dB,
.05 s), lossless 479 kB, PNG 496 kB, JPEG 457 kB (39 dB). 200 photographs at 96 pixels: WebP 294 kB (33.7 dB, .07 s),
JPEG 531 kB (34.4 dB), PNG 2.6 MB. Pillow's method 2 has a higher PSNR than its default, 4, which saves 3 % (31.2 dB).
Lossless is used where it is smaller, as for drawings and digits.
"""

import math
from base64 import b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO

import numpy as np
from PIL import Image

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import by
from cnnkit.core.text import html

__all__ = ["Sheet", "sprite_sheet"]

MAX_SIDE = 10_000  # pixels; WebP allows 16,383
QUALITY, METHOD = 80, 2
SMALL = 1 << 20  # pixels of a sheet that is also tried without loss
PAPER, CROSS = 128, 168  # grey levels of what is around an image, and of the mark of a missing one


@dataclass(frozen=True)
class Sheet:
    """Tiles of a sprite sheet in rows of `columns`, each `side` pixels wide and high in the file.

    On the page a tile is `factor` times as large, without smoothing. `name` is the class of the tiles in CSS and HTML.
    """

    name: str
    number: int
    side: int
    factor: int
    columns: int
    content: bytes

    @property
    def num_bytes(self) -> int:
        """The size that the sheet adds to the page."""
        return len(self.css())

    def css(self) -> str:
        """Return the rules of the tiles, with the image itself; empty if there are no tiles."""
        if not self.number:
            return ""
        shown = self.side * self.factor
        smooth = "image-rendering:pixelated;" if self.factor > 1 else ""
        return (
            f".{self.name}{{display:inline-block;width:{shown}px;height:{shown}px;background-repeat:no-repeat;"
            f"background-size:{shown * self.columns}px auto;{smooth}"
            "-webkit-print-color-adjust:exact;print-color-adjust:exact;"
            f"background-image:url(data:image/webp;base64,{b64encode(self.content).decode()})}}"
        )

    def tile(self, index: int, label: str) -> str:
        """Return the tile of an image, which screen readers announce by its label."""
        row, column = divmod(range(self.number)[index], self.columns)
        place = " ".join(f"-{step * self.side * self.factor}px" if step else "0" for step in (column, row))
        words = html(label)
        return (
            f'<span class="{self.name}" role="img" aria-label="{words}" title="{words}" '
            f'style="background-position:{place}"></span>'
        )


def sprite_sheet(images: Sequence[np.ndarray | None], tile: int, name: str = "tile") -> Sheet:
    """Return images (uint8, H x W x C with 1 or 3 channels) as tiles of at most `tile` pixels a side.

    Larger images are shrunk to fit, smaller ones enlarged by an integer factor without smoothing; None is a grey tile
    with a cross. `name` is a CSS class, unique on the page. Raises UsageError for other images, and for more than fit
    into a sheet of 10,000 pixels a side.
    """
    for image in images:
        if image is not None and (
            image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] not in (1, 3) or not image.size
        ):
            raise UsageError(f"a tile must be uint8, H x W x 1 or 3, not {by(*image.shape)} {image.dtype}")
    longest = max((max(image.shape[:2]) for image in images if image is not None), default=tile)
    side = min(tile, longest)
    columns = math.ceil(math.sqrt(len(images)))
    if columns * side > MAX_SIDE:
        most = (MAX_SIDE // side) ** 2
        raise UsageError(f"a sheet holds at most {most:,} tiles of {side} pixels, not {len(images):,}: show fewer")
    if not images:
        return Sheet(name, 0, side, 1, 0, b"")
    channels = max((image.shape[2] for image in images if image is not None), default=1)
    sheet = np.full((math.ceil(len(images) / columns) * side, columns * side, channels), PAPER, np.uint8)
    for place, image in enumerate(images):
        pixels = _cross(side) if image is None else _fitted(image, side)
        height, width = pixels.shape[:2]
        top, left = (side * step for step in divmod(place, columns))
        top, left = top + (side - height) // 2, left + (side - width) // 2
        sheet[top : top + height, left : left + width] = pixels
    return Sheet(name, len(images), side, tile // side, columns, _encoded(sheet))


def _fitted(image: np.ndarray, side: int) -> np.ndarray:
    """Return the image with a longer side of at most `side` pixels."""
    height, width = image.shape[:2]
    longer = max(height, width)
    if longer <= side:
        return image.repeat(side // longer, 0).repeat(side // longer, 1)
    size = max(1, round(width * side / longer)), max(1, round(height * side / longer))
    pixels = Image.fromarray(image[..., 0] if image.shape[2] == 1 else image)
    return np.asarray(pixels.resize(size, Image.Resampling.LANCZOS, reducing_gap=3.0)).reshape(size[1], size[0], -1)


def _cross(side: int) -> np.ndarray:
    """Return the tile of a missing image, side x side x 1."""
    line = np.eye(side, dtype=bool)
    return np.where(line | line[::-1], np.uint8(CROSS), np.uint8(PAPER))[..., None]


def _encoded(sheet: np.ndarray) -> bytes:
    image = Image.fromarray(sheet[..., 0] if sheet.shape[2] == 1 else sheet)
    ways = [{"quality": QUALITY}]
    if image.width * image.height <= SMALL:
        ways.append({"lossless": True, "quality": 50})
    files = [BytesIO() for _ in ways]
    for file, way in zip(files, ways, strict=True):
        image.save(file, "WEBP", method=METHOD, **way)
    return min((file.getvalue() for file in files), key=len)
