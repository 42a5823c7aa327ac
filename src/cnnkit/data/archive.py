"""A data set that comes as one archive: unpacked once, into the cache, and nothing outside of it."""

import gzip
import logging
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, Literal, NamedTuple

from pydantic import TypeAdapter

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.core.files import atomic_write, lock, make_folder, replace_folder, sha256, sweep
from cnnkit.core.kept import cache_folder, read_record, to_record
from cnnkit.core.progress import Counter

__all__ = ["ARCHIVES", "is_archive", "unpacked"]

log = logging.getLogger(__name__)

ZIP, TAR = (".zip",), (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVES = (*ZIP, *TAR)
# what the readers raise for corrupt bytes; NotImplementedError is zipfile's for a compression that it does not know
CORRUPT = (
    tarfile.TarError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    NotImplementedError,
    ValueError,
)
MOST_FILES = 10_000_000
BLOCK = 1 << 20
_LISTED = TypeAdapter(dict[Literal["sizes"], dict[str, int]])


class _Member(NamedTuple):
    """A file in an archive."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None]


def is_archive(data: object) -> bool:
    """Say whether this is the path of an archive, by its suffix; a plain .tar is a shard."""
    return isinstance(data, str | Path) and str(data).lower().endswith(ARCHIVES)


def unpacked(path: Path, progress: bool = True) -> Path:
    """Return the folder in the cache that holds what is in an archive, unpacked if it is not there yet.

    Only files are taken, no links or devices; their content decides which folder it is. Raises DataError for an archive
    that is missing, corrupt or encrypted, or that names a file outside of its folder; CnnkitError if the disk has no
    room.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such archive")
    place = cache_folder("unpacked") / sha256(path)[:32] / _stem(path)
    listed = place.with_name(f".{place.name}.json")
    with lock(place.parent.with_name(f".{place.parent.name}.lock")):
        if place.is_dir():
            if read_record(listed, _LISTED) == {"sizes": _sizes(place)}:
                return place
            log.warning("%s is not what was unpacked: it is unpacked again", place)
        try:
            make_folder(place.parent)
            sweep(place)
            replace_folder(place, lambda folder: _unpack(path, folder, progress))
            atomic_write(listed, to_record({"sizes": _sizes(place)}))
        except BaseException:
            with suppress(OSError):
                place.parent.rmdir()
            raise
    return place


def _sizes(folder: Path) -> dict[str, int]:
    """Return the size in bytes of each file below a folder, by its path in it."""
    paths = (os.path.join(at, name) for at, _, names in os.walk(folder) for name in names)  # noqa: PTH118  a Path takes longer
    return {os.path.relpath(path, folder): os.lstat(path).st_size for path in paths}


def _unpack(path: Path, folder: Path, progress: bool) -> None:
    free = shutil.disk_usage(folder).free
    written, names = 0, set()
    try:
        with Counter(f"unpacking {path}", path.stat().st_size, progress) as counter:
            for member, position in _members(path):
                counter.advance(position - counter.done)
                inner = _safe(path, member.name)
                if inner in names:  # a later one would take the place of an earlier one
                    raise DataError(f"{path}: it has two files of the name {member.name}")
                names.add(inner)
                written += member.size
                if written > free // 2 or len(names) > MOST_FILES:
                    raise CnnkitError(
                        f"{path}: unpacked it takes more than half of the free disk ({free:,} bytes): make room, or "
                        "set $CNNKIT_CACHE"
                    )
                _copy(member, folder / inner)
    except CORRUPT as error:
        raise DataError(f"{path}: the archive is corrupt or of an unknown kind ({error})") from error
    except RuntimeError as error:  # of zipfile, for what is encrypted
        raise DataError(f"{path}: the archive cannot be read ({error})") from error


def _copy(member: _Member, target: Path) -> None:
    """Write a file, and no more of it than its archive said."""
    source = member.open()
    if source is None:
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    left = member.size
    with source, target.open("wb") as file:
        while block := source.read(BLOCK):
            left -= len(block)
            if left < 0:
                raise ValueError(f"{member.name} is longer than it says")
            file.write(block)


def _members(path: Path) -> Iterator[tuple[_Member, int]]:
    """Yield the files of an archive, and how far into it they are, in bytes."""
    if path.name.lower().endswith(ZIP):
        with zipfile.ZipFile(path) as archive:
            for info in archive.infolist():
                if not info.is_dir() and (info.external_attr >> 16) & 0o170000 in (0, 0o100000):
                    yield (
                        _Member(info.filename, info.file_size, partial(archive.open, info)),
                        info.header_offset,
                    )
    else:
        with path.open("rb") as file, tarfile.open(fileobj=file, mode="r:*") as archive:
            for member in archive:
                if member.isreg():
                    yield (
                        _Member(member.name, member.size, partial(archive.extractfile, member)),
                        file.tell(),
                    )
            while archive.fileobj and archive.fileobj.read(BLOCK):
                pass  # corrupt bytes may look like an end: the checksum lies behind them all


def _safe(path: Path, name: str) -> PurePosixPath:
    """Return the path of a file within the archive's folder; raises DataError for one that leads out of it."""
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or (inner.parts and ":" in inner.parts[0]) or "\0" in name:
        raise DataError(f"{path}: refused: it names a file outside of its own folder, {name!r}")
    return inner


def _stem(path: Path) -> str:
    suffix = next(suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)] or "archive"
