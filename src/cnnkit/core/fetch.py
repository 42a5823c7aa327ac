"""Download a file once: from several mirrors, resumed after a cut, checked, and whole or not there."""

import errno
import gzip
import hashlib
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from rich.progress import DownloadColumn, TransferSpeedColumn

from cnnkit.core.console import PatientConsole, progress_bar
from cnnkit.core.errors import DataError
from cnnkit.core.files import atomic_write, cannot_write, lock, make_folder, no_follow, read_bytes, sha256, sweep
from cnnkit.core.http import Attempts, Broken, open_url
from cnnkit.core.text import encode, printable

__all__ = ["MAX_BYTES", "fetch", "forget"]

log = logging.getLogger(__name__)

MAX_BYTES = 1 << 32  # of a file
BLOCK, DIGITS = 1 << 18, 64


def fetch(urls: Sequence[str], path: Path, digest: str = "", most: int = MAX_BYTES) -> Path:
    """Download from the first of `urls` that gives it right, and write it to `path`; what ends in .gz is decompressed.

    `digest` is the SHA-256, or its first digits, of what is written: mirrors compress differently. If it is not whole,
    what comes first is trusted, a log line says so, and its digest is kept beside `path`, in NAME.sha256, for all later
    calls to compare. A file that is already right is kept; another one in its place is fetched anew. More than `most`
    bytes are never written. What a broken connection has brought stays beside `path` and is continued, also by a later
    call if it can be checked; of several processes one downloads and the others wait.

    Raises DataError with each mirror's reason if none works, CnnkitError if the file cannot be written.
    """
    wanted = _Wanted(path, digest, most)
    with _writing(path):
        if path.exists() and wanted.is_kept() and not wanted.wrong(sha256(path)):
            return path
        make_folder(path.parent)
        with lock(path.with_name(f".{path.name}.lock")):
            sweep(path)
            return _fetched(urls, wanted)


def forget(path: Path) -> None:
    """Delete what `fetch` wrote to `path`, as it is of no use; raises CnnkitError if that cannot be done."""
    with _writing(path):
        for file in (path, _Wanted(path, "", 0).pin):
            file.unlink(missing_ok=True)


def _fetched(urls: Sequence[str], wanted: "_Wanted") -> Path:
    path, wrong = wanted.path, None
    if path.exists() and not (wrong := wanted.wrong(found := sha256(path))):
        wanted.keep(found, f"as it lies at {path}")
        return path
    failures = []
    for url in urls:
        try:
            found = _fetch(url, wanted)
        except (DataError, Broken) as error:
            failures.append(f"{url}: {error}")
            continue
        wanted.keep(found, f"as it came from {url}")
        if wrong:
            log.warning("%s was corrupt, and has been fetched anew: %s", printable(path), wrong)
        return path
    reasons = "; ".join(failures)
    if wrong:
        accept = wanted.accept(found)
        raise DataError(f"{path} is another file: {wrong}{accept}; put the right one there, as none came ({reasons})")
    raise DataError(reasons)


@dataclass(frozen=True)
class _Wanted:
    """A file, and what is known of it."""

    path: Path
    digest: str
    most: int

    @property
    def pin(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def pinned(self) -> str:
        """The digest of the file that came first; raises DataError if there is something else in its place."""
        if len(self.digest) == DIGITS:
            return ""
        try:
            said = read_bytes(self.pin, 1000).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise DataError(f"{self.pin}: cannot be read ({error.strerror}); delete it") from error
        if not re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", said):
            raise DataError(f"{self.pin}: no SHA-256; delete it to trust {self.path.name} as it is")
        return said

    def is_kept(self) -> bool:
        """Say whether all digits are known."""
        return len(self.digest) == DIGITS or bool(self.pinned)

    def wrong(self, found: str) -> str | None:
        """Return what is wrong with a file of this digest, if anything is."""
        if not found.startswith(self.digest):
            return f"its SHA-256 is {found}, not {self.digest}{'...' * (len(self.digest) < DIGITS)}"
        if (pinned := self.pinned) not in ("", found):
            return f"its SHA-256 is {found}, not {pinned} as when it came first"
        return None

    def accept(self, found: str) -> str:
        """Return what to do to accept a file of this digest, if only that of the first one speaks against it."""
        return f" (delete {self.pin} to accept it)" if found.startswith(self.digest) else ""

    def keep(self, found: str, how: str) -> None:
        """Trust the file, if not all digits of its digest are known, and write them down."""
        if self.is_kept():
            return
        atomic_write(self.pin, f"{found}\n")
        digits = len(self.digest)
        known = f"only {digits} digits of its SHA-256 are known" if digits else "its SHA-256 is not known"
        words = f"{self.path.name}: {known}, so it is trusted {how}; {self.pin.name} keeps {found} for later uses"
        log.warning("%s", printable(words))


def _fetch(url: str, wanted: _Wanted) -> str:
    """Bring the file through a part file that is gone once it has served or proved wrong; return its digest."""
    path = wanted.path
    partial = path.with_name(f"{path.name}.{hashlib.sha256(encode(url)).hexdigest()[:8]}.part")
    packed = url.endswith(".gz")
    if not (wanted.digest or wanted.pinned):
        partial.unlink(missing_ok=True)  # nobody could say whether it is of the same file
    continued = partial.exists()
    _download(url, partial, wanted, packed)
    try:
        if packed:
            with gzip.open(partial) as content:
                atomic_write(path, lambda file: _unpack(content, file, wanted))
        else:
            _check(sha256(partial), wanted)
            partial.replace(path)
    except DataError:
        partial.unlink(missing_ok=True)
        if not continued:
            raise
        return _fetch(url, wanted)  # its beginning may have been of another file
    partial.unlink(missing_ok=True)
    return sha256(path)


def _unpack(packed: gzip.GzipFile, file: BinaryIO, wanted: _Wanted) -> None:
    found, size = hashlib.sha256(), 0
    try:
        while block := packed.read(BLOCK):
            size += len(block)
            if size > wanted.most:
                raise DataError(f"sent gzip data that inflate to more than the {wanted.most:,} bytes of the file")
            found.update(block)
            file.write(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"sent corrupt gzip data ({error})") from error
    _check(found.hexdigest(), wanted)


def _check(found: str, wanted: _Wanted) -> None:
    if reason := wanted.wrong(found):
        raise DataError(f"sent other data: {reason}{wanted.accept(found)}")


def _download(url: str, partial: Path, wanted: _Wanted, packed: bool) -> None:
    """Bring the bytes of `url` into `partial`, going on where it ends."""
    room = wanted.most if packed else 0  # what is unpacked lies beside it
    part = _Part(url, partial, wanted.most + (wanted.most >> 10) + BLOCK if packed else wanted.most)
    attempts, tries, best = Attempts(), 0, 0
    while True:
        tries, best = tries + 1, max(best, part.size())
        try:
            return part.go_on(room)
        except Broken as error:
            if not attempts.go_on(part.size() - best):
                of = "" if part.length is None else f" of {part.length:,}"
                raise Broken(f"{error}; {part.size():,}{of} bytes received; tried {tries} times") from error


class _Part:
    """What has come of a file so far."""

    def __init__(self, url: str, path: Path, most: int):
        self.url, self.path, self.most = url, path, most
        self.length: int | None = None
        self.version: str | None = None

    def size(self) -> int:
        return self.path.stat().st_size if self.path.exists() else 0

    def refused(self, words: str) -> DataError:
        """Forget what has come of a file that is too large."""
        self.path.unlink(missing_ok=True)
        return DataError(f"{words}, and may have no more than {self.most:,} bytes")

    def go_on(self, room: int) -> None:
        """Append what is missing, and leave `room` on the disk; start over if the server cannot go on."""
        with open_url(self.url, self.size(), version=self.version) as answer:
            self.length, self.version = answer.length, answer.version
            size = answer.start
            if (self.length or 0) > self.most:
                raise self.refused(f"has {self.length:,} bytes")
            needed, free = (self.length or size) - size + room, shutil.disk_usage(self.path.parent).free
            if needed > free:
                raise OSError(errno.ENOSPC, f"{needed:,} bytes more are needed, and the disk has {free:,} left")
            bar = progress_bar(PatientConsole(stderr=True), DownloadColumn(), TransferSpeedColumn())
            with open(self.path, "ab" if size else "wb", opener=no_follow) as file, bar:
                task = bar.add_task(self.url, total=self.length, completed=size)
                while block := answer.read(BLOCK):
                    size += len(block)
                    if size > self.most:
                        raise self.refused("sent more")
                    file.write(block)
                    bar.advance(task, len(block))
                file.flush()
                os.fsync(file.fileno())
            if size < (self.length or 0):
                raise Broken("the server sent less than it had said")


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Say what to do about a file that cannot be written."""
    try:
        yield
    except (OSError, NotImplementedError) as error:  # of the file or its part
        raise cannot_write(path, error) from error
