"""Places on this machine: the user's home, the cache, and the private folder that stands in for it."""

import atexit
import functools
import logging
import os
import shutil
import stat
import tempfile
import time
from contextlib import suppress
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["cache_dir", "expanded", "exposed", "in_cache", "is_private", "private_folder"]

log = logging.getLogger(__name__)

PREFIX, LOCK = "cnnkit-", ".lock"
LEFT_SECONDS = 60  # a private folder as old as this has been locked by its process, if that is alive
OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HELD: list[FileLock] = []  # the lock of the private folder, as long as the process


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ~ as the home folder, or as it is where nobody knows that folder, as in shells."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises where there is no home


def cache_dir() -> Path:
    """Return the cache: `$CNNKIT_CACHE`, else `cnnkit` in the user's cache folder.

    A user without a home folder has a private one; raises OSError if there can be none.
    """
    return _named_cache() or _without_home()


def in_cache(path: Path) -> bool:
    """Return whether a path lies in the cache."""
    cache = _named_cache()
    return is_private(path) or (cache is not None and path.absolute().is_relative_to(cache.absolute()))


def is_private(path: Path) -> bool:
    """Return whether a path lies in the private folder of this process."""
    return bool(_HELD) and path.is_relative_to(private_folder())


@functools.cache
def private_folder() -> Path:
    """Return a folder that nobody else can enter and that goes when the process ends; raises OSError.

    What killed processes have left behind is removed.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=PREFIX)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    lock = FileLock(folder / LOCK)
    lock.acquire()
    _HELD.append(lock)
    return folder


def exposed(folder: Path, root: Path) -> Path | None:
    """Return the first folder, from `folder` upwards, in which others could change what is found in `folder`, or None.

    Both are real paths, without links. Each folder must belong to the user or the system, and be closed to writing by
    a group or by others; above `root`, one that is sticky, as /tmp is, may be open. Raises OSError for a missing one.
    """
    if os.name != "posix":  # rights of another kind
        return None
    for one in (folder, *folder.parents):
        found = one.lstat()
        sticky = one in root.parents and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (0, os.geteuid()) or (found.st_mode & OTHERS and not sticky):
            return one
    return None


def _named_cache() -> Path | None:
    if own := os.environ.get("CNNKIT_CACHE"):
        return expanded(own)
    if own := os.environ.get("XDG_CACHE_HOME"):
        return Path(own) / "cnnkit"
    home = expanded("~")
    return home / ".cache" / "cnnkit" if home != Path("~") else None


@functools.cache
def _without_home() -> Path:
    folder = private_folder()
    log.warning("there is no home folder: what is cached goes when this process ends; set $CNNKIT_CACHE to keep it")
    return folder


def _sweep(parent: Path) -> None:
    """Remove the private folders of this user whose processes were killed."""
    for left in parent.glob(f"{PREFIX}*/{LOCK}"):
        with suppress(OSError, Timeout):
            found = left.parent.lstat()
            mine = stat.S_ISDIR(found.st_mode) and (os.name != "posix" or found.st_uid == os.geteuid())
            if mine and time.time() - found.st_mtime > LEFT_SECONDS:
                with FileLock(left, timeout=0):
                    shutil.rmtree(left.parent, ignore_errors=True)
