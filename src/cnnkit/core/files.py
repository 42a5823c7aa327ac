"""Files that are whole or not there: read with a limit, written atomically, locked; checksums."""

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
    "sha256",
    "sweep",
    "utf8_path",
    "write_output",
    "write_through",
]

Content = bytes | str | Callable[[BinaryIO], object]
MAX_BYTES = 1 << 28  # of a file that is read whole: settings, tables, descriptions
RANDOM = 8  # bytes in a temporary name, which nobody can foresee
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
REMEDIES = {
    **dict.fromkeys(FULL, "make room"),
    errno.ENAMETOOLONG: "choose a shorter name",
    **dict.fromkeys((errno.EMFILE, errno.ENFILE), "allow more open files (ulimit -n)"),
}


class CannotWrite(CnnkitError):
    """A file or a folder cannot be written, made or locked; `reason` says why."""

    def __init__(self, message: str, reason: str):
        super().__init__(message)
        self.reason = reason


def open_file(path: Path | str) -> BufferedReader:
    """Open a file for reading; raises OSError, also for a pipe or a device: these may never end, or never begin."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if code == errno.EISDIR else "a pipe or a device, not a file", str(path))
    return os.fdopen(file, "rb")


def is_file(path: Path) -> bool:
    """Return whether there is such a file, as far as the user may look."""
    return os.path.isfile(path)  # noqa: PTH113  a Path raises where the user may not


def no_follow(path: Path | str, flags: int) -> int:
    """Open a file, but not through a link; an opener for `open`, which raises OSError."""
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0), 0o666)


def read_bytes(path: Path | str, most: int = MAX_BYTES) -> bytes:
    """Return the bytes of a file; raises OSError, also for what is no regular file or has more than `most` bytes."""
    with open_file(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise OSError(errno.EFBIG, f"it has more than {most:,} bytes", str(path))
    return content


def sha256(path: Path) -> str:
    """Return the SHA-256 of the file's bytes, in hex; raises OSError."""
    with open_file(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@contextmanager
def utf8_path(path: Path) -> Iterator[Path]:
    """Name a file for a library that takes UTF-8 alone: by its path or, if that is not UTF-8, as an open file."""
    try:
        os.fsencode(path).decode()
    except UnicodeDecodeError:
        with path.open("rb") as file:
            yield Path(f"/dev/fd/{file.fileno()}")  # only POSIX has such paths
    else:
        yield path


def make_folder(path: Path, mode: int = 0o777) -> Path:
    """Create the folder and its parents, each with `mode` less the umask; raises CannotWrite if that cannot be done."""
    try:
        missing = list(takewhile(lambda folder: not os.path.lexists(folder), (path, *path.parents)))
        for folder in reversed(missing or [path]):
            folder.mkdir(mode, exist_ok=True)
    except OSError as error:
        raise cannot_write(path, error) from error
    return path


def append(path: Path, content: bytes) -> None:
    """Write behind the end of a file, which is made if it is missing; raises OSError, also for a link or a pipe."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0)
    with os.fdopen(no_follow(path, flags), "ab") as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise OSError(errno.EINVAL, "a pipe or a device, not a file", str(path))
        file.write(content)


@contextmanager
def lock(path: Path, timeout: float = -1) -> Iterator[None]:
    """Hold a lock file, which is made if it is missing, or wait for it, at most `timeout` seconds if not negative.

    Raises filelock's Timeout, and CannotWrite if it cannot be made or locked.
    """
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
    """Write `content` to `path`, a new file with `mode` less the umask, and onto the disk (fsync).

    Raises OSError, also if there is such a file, or a link.
    """
    with open(path, "xb", opener=lambda name, flags: os.open(name, flags, mode)) as file:
        _fill(file, content)
        file.flush()
        os.fsync(file.fileno())


def atomic_write(path: Path, content: Content, mode: int = 0o666) -> None:
    """Write `content` (bytes, text, or a function that writes to a file) to `path`, whole or not at all.

    The bytes go to a neighbour, reach the disk (fsync) and take the name in one step, so that a crash or a
    full disk leaves the earlier file as it was. A link of that name goes; what it leads to stays as it is. Raises
    CannotWrite if the file cannot be written.
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
    """Write a file that the user has named, as `atomic_write` does; through a link, and into what is no file.

    Raises CannotWrite.
    """
    if is_file(path) or not os.path.exists(path):  # noqa: PTH110  a Path raises where it may not look
        atomic_write(Path(os.path.realpath(path)), content)
        return
    try:  # /dev/stdout, a pipe
        with path.open("wb") as file:
            _fill(file, content)
    except OSError as error:
        raise cannot_write(path, error) from error


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder that `fill` writes (with `write_through`) in the place of `path`.

    If `fill` fails, the old one stays. A link of that name goes; what it leads to stays as it is. Raises CannotWrite if
    the folder cannot be written.
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
    """Remove what processes left that were killed while they wrote `path`; for who alone may write it now.

    Where one had just moved the earlier `path` away, that takes its place again.
    """
    left = re.compile(rf"\.{re.escape(path.name)}\.[0-9a-f]+\.(tmp|new|old)")
    with suppress(OSError):
        for other in list(path.parent.iterdir()):
            if found := left.fullmatch(other.name):
                if found[1] == "old" and not os.path.lexists(path):
                    other.rename(path)
                remove(other)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with what is in it, as far as it is there and can be."""
    with suppress(OSError):
        if stat.S_ISDIR(path.lstat().st_mode):
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()


def cannot_write(
    path: Path, error: OSError | NotImplementedError, verb: str = "write", replaced: bool = False
) -> CannotWrite:
    """Return the error that says what cannot be written, or `replaced`, why, and what to do."""
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
    """Let two folders trade names in one step, so that neither is ever missing; False where Linux cannot."""
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    try:
        rename = ctypes.CDLL(None).renameat2
    except (AttributeError, TypeError):  # another C library, another system
        return False
    return bool(rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _os_error(error: BaseException | None) -> OSError | None:
    """Find the operating system's reason: writers such as torch.save wrap it in errors of their own."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error
