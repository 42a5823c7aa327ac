"""Files that are whole or not there: atomic writes, the cache folder, checksums."""

import ctypes
import errno
import hashlib
import os
import shutil
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import BinaryIO

from cnnkit.core.errors import CnnkitError

__all__ = [
    "atomic_write",
    "cache_dir",
    "expanded",
    "make_folder",
    "open_file",
    "read_bytes",
    "replace_folder",
    "sha256",
    "utf8_path",
    "write_through",
]

Content = bytes | str | Callable[[BinaryIO], object]
MOST_BYTES = 1 << 28  # of a file that is read whole: settings, tables, descriptions


def cache_dir() -> Path:
    """Return the folder for downloads: `$CNNKIT_CACHE`, else `cnnkit` in the user's cache folder."""
    if own := os.environ.get("CNNKIT_CACHE"):
        return Path(own)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cnnkit"


def expanded(path: str | os.PathLike[str]) -> Path:
    """Return a path with the home folder for its "~", or as it is where nobody has such a home."""
    return Path(os.path.expanduser(path))  # noqa: PTH111  Path's own raises RuntimeError


def open_file(path: Path | str) -> BufferedReader:
    """Open a file for reading; raises OSError, also for a pipe or a device: these may never end, or never begin."""
    file = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0) | getattr(os, "O_NONBLOCK", 0))
    mode = os.fstat(file).st_mode
    if not stat.S_ISREG(mode):
        os.close(file)
        code = errno.EISDIR if stat.S_ISDIR(mode) else errno.EINVAL
        raise OSError(code, os.strerror(code) if code == errno.EISDIR else "a pipe or a device, not a file", str(path))
    return os.fdopen(file, "rb")


def read_bytes(path: Path | str, most: int = MOST_BYTES) -> bytes:
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


def make_folder(path: Path) -> Path:
    """Create the folder and its parents; raises CnnkitError if that cannot be done."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _cannot_write(path, error) from error
    return path


def write_through(path: Path, content: Content) -> None:
    """Write `content` to `path` and onto the disk (fsync); raises OSError."""
    with path.open("wb") as file:
        if callable(content):
            content(file)
        else:
            file.write(content.encode() if isinstance(content, str) else content)
        file.flush()
        os.fsync(file.fileno())


def atomic_write(path: Path, content: Content) -> None:
    """Write `content` (bytes, text, or a function that writes to a file) to `path`, whole or not at all.

    The bytes go to a neighbour, reach the disk (fsync) and take the name in one step, so that a crash or a
    full disk leaves the earlier file as it was. Raises CnnkitError if the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write_through(temporary, content)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if not isinstance(error, CnnkitError) and (cause := _os_error(error)):
            raise _cannot_write(path, cause) from error
        raise


def replace_folder(path: Path, fill: Callable[[Path], None]) -> None:
    """Put a folder that `fill` writes (with `write_through`) in the place of `path`.

    If `fill` fails, the old one stays. Raises CnnkitError if the folder cannot be written.
    """
    new, old = (path.with_name(f".{path.name}.{os.getpid()}.{tag}") for tag in ("new", "old"))
    try:
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(parents=True)
        fill(new)
        if not path.exists():
            new.rename(path)
        elif not _exchange(new, path):
            path.rename(old)
            new.rename(path)
    except OSError as error:
        raise _cannot_write(path, error) from error
    finally:
        if old.exists() and not path.exists():
            old.rename(path)
        shutil.rmtree(new, ignore_errors=True)
        shutil.rmtree(old, ignore_errors=True)


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


def _cannot_write(path: Path, error: OSError) -> CnnkitError:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    kept = "the earlier one is kept; " if full and path.exists() else ""
    remedy = "make room" if full else "choose another folder"
    return CnnkitError(f"cannot write {path}: {error.strerror or error}; {kept}{remedy}")
