"""Options for reading a data set, common to all formats."""

from collections.abc import Set
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnnkit.core.errors import UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_CANVAS, MAX_WORKERS
from cnnkit.core.shape import count
from cnnkit.data.images.formats import allow_pixels

__all__ = ["BUDGET", "BadImage", "Reading"]

BadImage = Literal["error", "skip"]
BUDGET = 32 * 10**9  # bytes on the disk for a folder's pixels


@dataclass(frozen=True)
class Reading:
    """Options of `load_dataset`; each format uses those that apply to it. Raises UsageError for values out of range."""

    data_dir: Path | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    on_bad_image: BadImage = "error"
    workers: int | None = None
    budget: int = BUDGET
    test_fraction: float = 0.1
    progress: bool = True
    min_images: int = 0
    """Classes with fewer training images are left out."""
    trainable: bool = True
    """Whether classes that cannot be trained on are an error."""
    used: Set[str] = frozenset()
    """Digests of images that are not held out for testing."""
    only: Set[str] | None = None
    """Digests of the images to open; None for all."""
    max_pixels: int = DEFAULT_MAX_PIXELS
    """Largest number of pixels to decode an image to (`require_pixels`)."""

    def __post_init__(self) -> None:
        allow_pixels(self.max_pixels)
        if self.workers is not None:
            count(self.workers, "workers", MAX_WORKERS)
        if self.image_size is not None:
            count(max(self.image_size), "image_size", MAX_CANVAS)

    def require_channels(self) -> None:
        """Raise UsageError for channels that are neither 1 nor 3."""
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels must be 1 or 3, not {self.channels}")
