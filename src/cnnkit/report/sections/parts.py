"""Sections of a report that cannot be shown."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from cnnkit.core.errors import CnnkitError

__all__ = ["Missing", "attempt"]

Part = TypeVar("Part")


@dataclass(frozen=True)
class Missing:
    """A section that cannot be shown: the reason, and what to do."""

    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return the reason as plain data."""
        return {"missing": self.reason}


def attempt(build: Callable[[], Part]) -> Part | Missing:
    """Return what `build` returns; Missing, with the error's line, if it raises a CnnkitError."""
    try:
        return build()
    except CnnkitError as error:
        return Missing(str(error))
