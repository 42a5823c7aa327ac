"""How a data set is read: what all of its formats are told."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cnnkit.core.errors import UsageError

__all__ = ["BUDGET", "BadImage", "Reading"]

BadImage = Literal["error", "skip"]
BUDGET = 32 * 10**9  # bytes on the disk, for a folder


@dataclass(frozen=True)
class Reading:
    """Options of `load_dataset`; each format takes those that mean something to it."""

    data_dir: Path | None = None
    image_size: tuple[int, int] | None = None
    channels: int | None = None
    on_bad_image: BadImage = "error"
    workers: int | None = None
    budget: int = BUDGET
    test_fraction: float = 0.1
    progress: bool = True

    def require_channels(self) -> None:
        """Raise UsageError for images that are neither grey nor in colour."""
        if self.channels not in (None, 1, 3):
            raise UsageError(f"channels must be 1 or 3, not {self.channels}")
