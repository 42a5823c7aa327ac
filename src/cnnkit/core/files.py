"""Files: read with a limit, written atomically, locked; checksums."""

import ctypes
import errno
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from io import BufferedReader
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from cnnkit.core.errors import CnnkitError
from cnnkit.core.limits import MAX_TEXT_BYTES
from cnnkit.core.places import in_cache

__all__ = [
    "CannotWrite",
    "append",
    "atomic_write",
    "cannot_write",
    "is_file",
    "lock",
    "make_folder",
    "no_follow",
    "open_file",
    "read_bytes",
    "remove",
    "replace_folder",
    "require_regular",
    "sha256",
    "sweep",
    "write_output",
    "write_through",
]

Content = bytes | str | Callable[[BinaryIO], object]
RANDOM = 8  # bytes in a temporary name, so that it cannot be predicted
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    **dict.fromkeys(FULL, "make room"),
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
}


class CannotWrite(CnnkitError):
    """A file or a folder cannot be written, created or locked, for the given `reason`."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def open_file(path: Path | str) -> BufferedReader:
    """Open a regular file for reading; raises OSError."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    try:
        require_regular(os.fstat(file), path)
        return os.fdopen(file, "rb")
    except OSError:
        os.close(file)
        raise


def require_regular(status: os.stat_result, path: Path | str) -> None:
    """Raise OSError for a folder, and for a pipe or a device, which may block or never end."""
    if stat.S_ISDIR(status.st_mode):
        raise OSError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(status.st_mode):
        raise OSError(errno.EINVAL, "not a regular file", str(path))


def is_file(path: Path) -> bool:
    """Return whether a file exists, False without the permission to look."""
    return os.path.isfile(path)  # noqa: PTH113  a Path raises without permission


def no_follow(path: Path | str, flags: int) -> int:
    """Open a file without following a link, as an opener for `open`; raises OSError."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def read_bytes(path: Path | str, most: int = MAX_TEXT_BYTES) -> bytes:
    """Return the bytes of a regular file; raises OSError, also for more than `most` bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hex; raises OSError."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: Path, mode: int = 0o777) -> Path:
    """Create the folder and its parents, each with `mode` less the umask; raises CannotWrite."""
    try:
        missing = list(takewhile(lambda folder: not os.path.lexists(folder), (path, *path.parents)))
        for folder in reversed(missing or [path]):
            folder.mkdir(mode, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def append(path: Path, content: bytes) -> None:
    """Append to a file, creating it if it is missing; raises OSError, also for a link or a pipe."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(no_follow(path, flags), "ab") as file:
        require_regular(os.fstat(file.fileno()), path)
        file.write(content)


@contextmanager
def lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock file, waiting at most `timeout` seconds (negative: forever); raises Timeout and CannotWrite."""
    held = FileLock(path)
    try:
        held.acquire(timeout)
    except Timeout:
        raise
    except (OSError, NotImplementedError) as error:
        raise cannot_write(path, error, "lock") from error
    try:
        yield
    finally:
        held.release()


def write_through(path: Path, content: Content, mode: int = 0o666) -> None:
    """Write `content` to the new file `path`, with `mode` less the umask, and fsync it; raises OSError if it exists."""
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        _fill(file, content)
        file.flush()
        os.fsync(file.fileno())


def atomic_write(path: Path, content: Content, mode: int = 0o666) -> None:
    """Write `content` (bytes, text, or a function that writes to a file) to `path` atomically.

    The bytes are written to a temporary file in the same folder, fsynced, and renamed, so that a crash or a full disk
    leaves the earlier file unchanged. A link is replaced, its target is not. Raises CannotWrite.
    """
    temporary = _temporary(path, "tmp")
    try:
        write_through(temporary, content, mode)
        temporary.replace(path)
    except BaseException as error:
        remove(temporary)
        if not isinstance(error, CnnkitError) and (cause := _os_error(error)):
            raise cannot_write(path, cause, replaced=True) from error
        raise


def write_output(path: Path, content: Content) -> None:
    """Write a file that the user named, atomically unless it is a pipe or device; follows links, raises CannotWrite."""
    if is_file(path) or not os.path.exists(path):  # noqa: PTH110  a Path raises without permission
        atomic_write(Path(os.path.realpath(path)), content)
        return
    try:  # /dev/stdout, a pipe
        with path.open("wb") as file:
            _fill(file, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Replace the folder `path` by one that `fill` writes (with `write_through`).

    If `fill` fails, the old one stays. A link is replaced, its target is not. Raises CannotWrite.
    """
    new, old = _temporary(path, "new"), _temporary(path, "old")
    make_folder(path.parent)
    try:
        new.mkdir()
        fill(new)
        if not os.path.lexists(path):
            new.rename(path)
        elif not _exchange(new, path):
            path.rename(old)
            new.rename(path)
    except OSError as error:
        raise cannot_write(path, error, replaced=True) from error
    finally:
        with suppress(OSError):
            if os.path.lexists(old) and not os.path.lexists(path):
                old.rename(path)
        remove(new)
        remove(old)


def sweep(path: Path) -> None:
    """Remove temporary files of processes that were killed while writing `path`; the caller must hold its lock.

    If the earlier `path` had just been moved away, restore it.
    """
    leftover = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.(tmp|new|old)")
    with suppress(OSError):
        for other in list(path.parent.iterdir()):
            if found := leftover.fullmatch(other.name):
                if found[1] == "old" and not os.path.lexists(path):
                    other.rename(path)
                remove(other)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with its content, as far as possible."""
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def cannot_write(
    path: Path, error: OSError | NotImplementedError, verb: str = "write", replaced: bool = False
) -> CannotWrite:
    """Return the error for a file that cannot be written (or locked, or `replaced`), with the reason and the remedy."""
    code: int = getattr(error, "errno", None) or 0
    reason = str(getattr(error, "strerror", None) or error)
    kept = "the earlier one is kept; " if replaced and code in FULL and os.path.lexists(path) else ""
    remedy = REMEDIES.get(code)
    if in_cache(path):
        remedy = " or ".join(filter(None, [remedy, "set $CNNKIT_CACHE to another folder"]))
    return CannotWrite(f"cannot {verb} {path}: {reason}; {kept}{remedy or 'choose another folder'}", reason)


def _fill(file: BinaryIO, content: Content) -> None:
    if callable(content):
        content(file)
    else:
        file.write(content.encode() if isinstance(content, str) else content)


def _temporary(path: Path, tag: str) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(RANDOM)}.{tag}")


def _exchange(one: Path, other: Path) -> bool:
    """Exchange the names of two folders atomically; return False where the system does not support it."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError):  # another C library, another system
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _os_error(error: BaseException | None) -> OSError | None:
    """Return the OSError behind an error, as writers such as torch.save wrap it in errors of their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
