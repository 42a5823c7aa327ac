"""Folders of this machine: the user's home, the cache, and the private folder that may replace it."""

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
LEFT_SECONDS = 60  # a private folder of this age is locked by its process, unless that was killed
OTHERS = stat.S_IWGRP | stat.S_IWOTH
_HELD: list[FileLock] = []  # the lock of the private folder, until the process ends


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with a leading ~ expanded, or unchanged if there is no home folder, as in shells."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path.expanduser raises where there is no home


def cache_dir() -> Path:
    """Return the cache: `$CNNKIT_CACHE`, else `cnnkit` in the user's cache folder.

    Without a home folder, it is a private folder; raises OSError if that cannot be created.
    """
    return _named_cache() or _without_home()


def in_cache(path: Path) -> bool:
    """Return whether a path is in the cache."""
    cache = _named_cache()
    return is_private(path) or (cache is not None and path.absolute().is_relative_to(cache.absolute()))


def is_private(path: Path) -> bool:
    """Return whether a path is in the private folder of this process."""
    return bool(_HELD) and path.is_relative_to(private_folder())


@functools.cache
def private_folder() -> Path:
    """Return a folder that only this user can enter and that is deleted when the process ends; raises OSError.

    Those of killed processes are deleted.
    """
    _sweep(Path(tempfile.gettempdir()))
    folder = Path(os.path.realpath(tempfile.mkdtemp(prefix=PREFIX)))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    lock = FileLock(folder / LOCK)
    lock.acquire()
    _HELD.append(lock)
    return folder


def exposed(folder: Path, root: Path) -> Path | None:
    """Return the first folder, from `folder` upwards, through which others could change `folder`, or None.

    Both are real paths, without links. Each folder must belong to the user or root, and not be writable by a group or
    by others; above `root`, a sticky one, such as /tmp, may be. Raises OSError for a missing one.
    """
    if os.name != "posix":  # other kinds of permissions
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
    log.warning("there is no home folder: the cache is deleted when this process ends; set $CNNKIT_CACHE to keep it")
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
