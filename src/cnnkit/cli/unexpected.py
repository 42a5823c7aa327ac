"""Unexpected errors: one line for the user, and a report in a file."""

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

MAX_MESSAGE = 500  # characters
FOLDERS: tuple[Callable[[], Path], ...] = (lambda: cache_dir() / "reports", lambda: Path(tempfile.gettempdir()))
PACKAGES = ("cnnkit", "torch", "numpy", "pillow", "pydantic", "cyclopts")


def wants_traceback() -> bool:
    """Return whether $CNNKIT_DEBUG asks for Python's traceback."""
    return os.environ.get("CNNKIT_DEBUG", "0") not in ("", "0")


def describe(error: Exception) -> str:
    """Return the line for a bug, whose details are written to a report, or for memory running out."""
    message = without_passwords(_message(error))
    if _is_about_memory(error):
        wanted = re.search(r"allocate ([\d.,]+ \w+)", message)
        failed = f" (cannot allocate {wanted[1]})" if wanted else ""
        return f"out of memory{failed}; use fewer images at a time (--batch-size), smaller images or a smaller network"
    name = type(error).__name__
    cut = message if len(message) <= MAX_MESSAGE else f"{message[:MAX_MESSAGE]} ..."
    line = f"unexpected error: {name}{f': {cut}' if cut else ''}; this is a bug in cnnkit"
    for folder in FOLDERS:
        with suppress(OSError, CnnkitError):  # no home, disk full, no permission: try the next one
            return f"{line}; the full report is in {_write(folder(), error)}"
    return f"{line}; its report cannot be written: CNNKIT_DEBUG=1 prints the traceback"


def _write(folder: Path, error: Exception) -> str:
    """Write the report to a new file in the folder; raises OSError."""
    make_folder(folder, 0o755)
    now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
    lines = [
        f"cnnkit stopped with an unexpected error on {now}.",
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


def _message(error: Exception) -> str:
    try:
        return " ".join(str(error).split())
    except Exception:  # its __str__ fails too
        return ""


def _traceback(error: Exception) -> str:
    try:
        return "".join(traceback.format_exception(error))
    except Exception:  # it calls the error's __str__, which may fail; the stack is still worth reporting
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
