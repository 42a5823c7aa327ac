"""The last resort: an error that nobody foresaw becomes one line, and a report in a file."""

import datetime
import os
import platform
import re
import sys
import tempfile
import traceback
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import make_folder
from cnnkit.core.places import cache_dir
from cnnkit.core.text import encode, without_passwords

__all__ = ["describe", "wants_traceback"]

LONGEST = 500  # characters of a message
PLACES: tuple[Callable[[], Path], ...] = (lambda: cache_dir() / "reports", lambda: Path(tempfile.gettempdir()))
PACKAGES = ("cnnkit", "torch", "numpy", "pillow", "pydantic", "cyclopts")


def wants_traceback() -> bool:
    """Say whether $CNNKIT_DEBUG asks for Python's own words."""
    return os.environ.get("CNNKIT_DEBUG", "0") not in ("", "0")


def describe(error: Exception) -> str:
    """Return the line for an error that is a bug or the end of memory; of a bug, a file gets all that is known."""
    words = without_passwords(_words(error))
    if _is_about_memory(error):
        wanted = re.search(r"allocate ([\d.,]+ \w+)", words)
        more = f"{wanted[1]} more are not free" if wanted else "no more is free"
        return f"out of memory: {more}; take fewer images at a time (--batch-size), smaller ones, or a smaller network"
    name = type(error).__name__
    cut = words if len(words) <= LONGEST else f"{words[:LONGEST]} ..."
    told = f"unexpected error: {name}{f': {cut}' if cut else ''}; this is a bug in cnnkit"
    for place in PLACES:
        with suppress(OSError, CnnkitError):  # no home, no room, no rights: the next one
            return f"{told}; the full report is in {_write(place(), error)}"
    return f"{told}; its report cannot be written: CNNKIT_DEBUG=1 prints it"


def _write(folder: Path, error: Exception) -> str:
    """Write the report into a file of its own in the folder; raises OSError."""
    make_folder(folder, 0o755)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    lines = [
        f"cnnkit stopped on {now} by an error that it did not expect.",
        f"command: {' '.join(sys.argv)}",
        f"Python {platform.python_version()}, {platform.platform()}",
        ", ".join(f"{name} {_version(name)}" for name in PACKAGES),
        "",
        _traceback(error),
    ]
    handle, path = tempfile.mkstemp(".txt", f"cnnkit-{now[:10]}-", folder)
    with os.fdopen(handle, "wb") as file:
        file.write(encode(without_passwords("\n".join(lines))))
    return path


def _words(error: Exception) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:  # its own words fail too
        return ""


def _traceback(error: Exception) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # it asks the error for its words, which may fail; the report needs the lines all the same
        return "".join(traceback.format_tb(error.__traceback__)) + type(error).__name__


def _version(name: str) -> str:
    try:
        return version(name)
    except ImportError:
        return "is missing"


def _is_about_memory(error: Exception) -> bool:
    if "torch" not in sys.modules:
        return isinstance(error, MemoryError)
    from cnnkit.core.memory import is_about_memory

    return isinstance(error, MemoryError | RuntimeError) and is_about_memory(error)
