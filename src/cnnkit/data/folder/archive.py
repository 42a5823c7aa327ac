"""Archives of images, unpacked once into the cache, and never outside of it."""

import bz2
import errno
import gzip
import logging
import lzma
import os
import shutil
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, BinaryIO, Literal, NamedTuple, TypeVar, cast

from pydantic import TypeAdapter

from cnnkit.core.cache import cache_folder, read_record, to_record
from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.core.files import atomic_write, lock, make_folder, open_file, replace_folder, sha256, sweep
from cnnkit.core.limits import DEFLATE_RATIO, MAX_ARCHIVE_FILES
from cnnkit.core.progress import Counter
from cnnkit.data.members import Metered, members, open_tar

__all__ = ["ARCHIVES", "is_archive", "unpacked"]

log = logging.getLogger(__name__)

ZIP, TAR = (".zip",), (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
ARCHIVES = (*ZIP, *TAR)
# exceptions of the readers for corrupt bytes; RuntimeError is zipfile's for encryption and (as NotImplementedError) for
# unknown compression, OSError is bz2's
CORRUPT = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    struct.error,
    EOFError,
    MemoryError,
    OSError,
    RuntimeError,
    ValueError,
    ArithmeticError,
)
# errors of a file system for an invalid or existing name
NAMES = (errno.EEXIST, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL, errno.EILSEQ)
MAX_EMPTY, MAX_DEPTH = 10_000, 100  # files without content; nested folders
MAX_DIRECTORY = 1 << 27  # bytes of a zip's directory
MAX_WINDOW = 1 << 28  # bytes of memory for unpacking an xz
ALWAYS_ALLOWED = 1 << 30  # unpacked bytes, at any ratio
DISK_BLOCK = 4096  # bytes, the least size of a file on disk
BLOCK = 1 << 20
ENCRYPTED = 1  # a flag of a zip's member
_LISTED = TypeAdapter(dict[Literal["sizes"], dict[str, int]])

T = TypeVar("T")


class _Member(NamedTuple):
    """A member of an archive; without `open`, it is not a file."""

    name: str
    size: int
    open: Callable[[], IO[bytes] | None] | None


def is_archive(data: object) -> bool:
    """Return whether data is the path of an archive, by its suffix; a plain .tar is a shard."""
    return isinstance(data, str | Path) and str(data).lower().endswith(ARCHIVES)


def unpacked(path: Path, progress: bool = True) -> Path:
    """Return the folder in the cache with the content of an archive, which is unpacked if necessary.

    The folder is chosen by the archive's digest. Links and devices are skipped; nested archives are not unpacked.
    Raises DataError for an archive that is missing, corrupt or encrypted, that unpacks to far more than images do, or
    that has duplicate or invalid names or ones outside its folder; CnnkitError if the disk is full.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such archive")
    place = cache_folder("unpacked") / sha256(path)[:32] / _stem(path)
    listed = place.with_name(f".{place.name}.json")
    with lock(place.parent.with_name(f".{place.parent.name}.lock")):
        if place.is_dir():
            if read_record(listed, _LISTED) == {"sizes": _sizes(place)}:
                return place
            log.warning("%s has changed since it was unpacked: it is unpacked again", place)
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


@dataclass
class _Account:
    """The resources for unpacking an archive, checked before each file is written."""

    path: Path
    packed: int  # bytes of the archive
    free: int  # of the disk
    files: int = 0
    empty: int = 0
    others: int = 0  # links and devices
    archives: int = 0
    unpacked: int = 0
    on_disk: int = 0

    def add(self, member: _Member) -> None:
        """Count a member; raises DataError for a malicious archive, CnnkitError if the disk has too little room."""
        self.unpacked += member.size
        if member.open:
            self.files += 1
            self.empty += not member.size
            self.archives += is_archive(member.name)
            self.on_disk += -(-member.size // DISK_BLOCK) * DISK_BLOCK or DISK_BLOCK
        else:
            self.others += 1
        if self.unpacked > max(ALWAYS_ALLOWED, DEFLATE_RATIO * self.packed):
            raise DataError(
                f"{self.path}: refused: it unpacks to more than {DEFLATE_RATIO:,} times its {self.packed:,} bytes, "
                "unlike images"
            )
        if self.files > MAX_ARCHIVE_FILES or self.empty > MAX_EMPTY:
            what = f"{MAX_EMPTY:,} empty files" if self.empty > MAX_EMPTY else f"{MAX_ARCHIVE_FILES:,} files"
            raise DataError(f"{self.path}: refused: it has more than {what}; unpack it yourself if you trust it")
        if self.on_disk > self.free // 2:
            raise CnnkitError(
                f"{self.path}: unpacking needs more than half of the free disk ({self.free:,} bytes): make room, or "
                "set $CNNKIT_CACHE"
            )

    def warn(self) -> None:
        """Log what is not unpacked."""
        if self.others:
            log.warning("%s: links or devices skipped: %s", self.path, f"{self.others:,}")
        if self.archives:
            log.warning("%s: nested archives not unpacked: %s", self.path, f"{self.archives:,}")


def _unpack(path: Path, folder: Path, progress: bool) -> None:
    size = path.stat().st_size
    account = _Account(path, size, shutil.disk_usage(folder).free)
    with Counter(f"unpacking {path}", size, progress) as counter:
        for member, position in _checked(path, _members(path, account)):
            counter.advance(position - counter.done)
            _copy(path, member, folder)
    account.warn()


def _checked(path: Path, items: Iterator[T]) -> Iterator[T]:
    """Yield the items read from an archive; raises DataError for any exception of its readers."""
    try:
        yield from items
    except CORRUPT as error:
        reason = "it does not fit into memory" if isinstance(error, MemoryError) else error
        raise DataError(f"{path}: the archive is corrupt or of an unknown kind ({reason})") from error


def _copy(path: Path, member: _Member, folder: Path) -> None:
    """Write a file; raises DataError for an invalid or duplicate name."""
    target = folder / _safe(path, member.name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with target.open("xb") as file:
            for block in _checked(path, _blocks(member)):
                file.write(block)
    except OSError as error:
        if error.errno == errno.EEXIST and target.is_file():  # on some disks, also if the case differs
            raise DataError(f"{path}: it has two files named {member.name}") from error
        if error.errno in NAMES:
            raise DataError(f"{path}: invalid file name {member.name!r} ({error.strerror})") from error
        raise


def _blocks(member: _Member) -> Iterator[bytes]:
    """Yield the content of a file; raises ValueError unless its size is the declared one."""
    left = member.size
    source = member.open and member.open()
    if source:
        with source:
            while block := source.read(BLOCK):
                left -= len(block)
                if left < 0:
                    break
                yield block
    if left:
        raise ValueError(f"{member.name} is {'longer' if left < 0 else 'shorter'} than declared")


def _members(path: Path, account: _Account) -> Iterator[tuple[_Member, int]]:
    """Yield the files of an archive after checking the account, and their positions in bytes."""
    with open_file(path) as file:
        if path.name.lower().endswith(ZIP):
            yield from _in_zip(Metered(file, MAX_DIRECTORY), account)
            return
        with _inflated(file) as content, open_tar(metered := Metered(content)) as archive:
            for info in members(archive, metered):
                member = _Member(info.name, info.size, partial(archive.extractfile, info) if info.isreg() else None)
                if not info.isdir():
                    account.add(member)
                if member.open:
                    yield member, file.tell()
            while content.read(BLOCK):
                pass  # corrupt bytes may look like an end, and the checksum comes last


def _in_zip(file: Metered, account: _Account) -> Iterator[tuple[_Member, int]]:
    with zipfile.ZipFile(cast(IO[bytes], file)) as archive:
        file.trust()
        found = []
        for info in archive.infolist():
            if info.flag_bits & ENCRYPTED:
                raise RuntimeError(f"{info.filename} is encrypted; unpack it yourself")
            if info.compress_type == zipfile.ZIP_LZMA:  # its window may take gigabytes, and cannot be limited
                raise NotImplementedError("LZMA within a zip is not supported; pack it as .tar.xz")
            is_file = (info.external_attr >> 16) & 0o170000 in (0, 0o100000)
            member = _Member(info.filename, info.file_size, partial(archive.open, info) if is_file else None)
            if not info.is_dir():
                account.add(member)
            if is_file and not info.is_dir():
                found.append((member, info.header_offset))
        yield from found


def _inflated(file: BinaryIO) -> BinaryIO:
    """Return the decompressed stream of a file, by its first bytes; the file itself if it is not compressed."""
    start = file.read(DISK_BLOCK)
    file.seek(0)
    if start.startswith(b"\x1f\x8b"):
        return cast(BinaryIO, gzip.GzipFile(fileobj=file))
    if start.startswith(b"BZh"):
        return cast(BinaryIO, bz2.BZ2File(file))
    if start.startswith(b"\xfd7zXZ\0"):
        lzma.LZMADecompressor(memlimit=MAX_WINDOW).decompress(start, 1)
        return cast(BinaryIO, lzma.LZMAFile(file))
    return file


def _safe(path: Path, name: str) -> PurePosixPath:
    """Return the path of a file within the archive's folder; raises DataError for one outside of it."""
    inner = PurePosixPath(name.replace("\\", "/"))
    if inner.is_absolute() or ".." in inner.parts or (inner.parts and ":" in inner.parts[0]) or "\0" in name:
        raise DataError(f"{path}: refused: it names a file outside its folder, {name!r}")
    if not 0 < len(inner.parts) <= MAX_DEPTH:
        raise DataError(f"{path}: refused: it nests a file in {len(inner.parts):,} folders, {name[:MAX_DEPTH]!r}")
    return inner


def _stem(path: Path) -> str:
    suffix = next(suffix for suffix in ARCHIVES if path.name.lower().endswith(suffix))
    return path.name[: -len(suffix)] or "archive"
