"""Download a file once: from several mirrors, resumed, verified, and written atomically."""

import errno
import gzip
import hashlib
import logging
import os
import re
import shutil
import zlib
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NoReturn

from rich.progress import DownloadColumn, TransferSpeedColumn

from cnnkit.core.console import PatientConsole, progress_bar
from cnnkit.core.errors import DataError
from cnnkit.core.files import atomic_write, cannot_write, lock, make_folder, no_follow, read_bytes, sha256, sweep
from cnnkit.core.http import Stream, TransientError
from cnnkit.core.limits import MAX_DOWNLOAD_BYTES
from cnnkit.core.text import encode, printable

__all__ = ["fetch", "forget"]

log = logging.getLogger(__name__)

BLOCK, DIGITS = 1 << 18, 64


def fetch(urls: Sequence[str], path: Path, digest: str = "", most: int = MAX_DOWNLOAD_BYTES) -> Path:
    """Download from the first of `urls` that serves the right file to `path`, decompressing URLs that end in .gz.

    `digest` is the SHA-256 of the written file (mirrors compress differently), or its first digits. If it is not
    complete, the first file is trusted, a log line says so, and its digest is saved in NAME.sha256 beside `path` and
    compared by all later calls. A correct file is not downloaded again, a wrong one is replaced. At most `most` bytes
    are written. A partial download stays beside `path` and is resumed, by a later call only if the file can be
    verified. Of several processes, one downloads and the others wait.

    Raises DataError with each mirror's reason if none works, CnnkitError if the file cannot be written.
    """
    wanted = _Wanted(path, digest, most)
    with _writing(path):
        if path.exists() and wanted.is_known() and not wanted.mismatch(sha256(path)):
            return path
        make_folder(path.parent)
        with lock(path.with_name(f".{path.name}.lock")):
            sweep(path)
            return _fetched(urls, wanted)


def forget(path: Path) -> None:
    """Delete an unusable file that `fetch` wrote to `path`; raises CnnkitError if it cannot be deleted."""
    with _writing(path):
        for file in (path, _Wanted(path, "", 0).pin):
            file.unlink(missing_ok=True)


def _fetched(urls: Sequence[str], wanted: "_Wanted") -> Path:
    path, wrong = wanted.path, None
    if path.exists() and not (wrong := wanted.mismatch(found := sha256(path))):
        wanted.trust(found, f"as found at {path}")
        return path
    failures = []
    for url in urls:
        try:
            found = _fetch(url, wanted)
        except (DataError, TransientError) as error:
            failures.append(f"{url}: {error}")
            continue
        wanted.trust(found, f"as downloaded from {url}")
        if wrong:
            log.warning("%s was corrupt and has been downloaded again: %s", printable(path), wrong)
        return path
    reasons = "; ".join(failures)
    if wrong:
        accept = wanted.how_to_accept(found)
        raise DataError(f"{path} is another file: {wrong}{accept}; replace it, as the download failed ({reasons})")
    raise DataError(reasons)


@dataclass(frozen=True)
class _Wanted:
    """The file to download, with the digests that are known of it."""

    path: Path
    digest: str
    most: int

    @property
    def pin(self) -> Path:
        return self.path.with_name(f"{self.path.name}.sha256")

    @property
    def pinned(self) -> str:
        """The digest of the first download, "" if there is none; raises DataError for a corrupt NAME.sha256."""
        if len(self.digest) == DIGITS:
            return ""
        try:
            found = read_bytes(self.pin, 1000).decode("ascii", "replace").strip()
        except FileNotFoundError:
            return ""
        except OSError as error:
            raise DataError(f"{self.pin}: cannot be read ({error.strerror}); delete it") from error
        if not re.fullmatch(f"[0-9a-f]{{{DIGITS}}}", found):
            raise DataError(f"{self.pin}: not a SHA-256; delete it to trust the present {self.path.name}")
        return found

    def is_known(self) -> bool:
        """Return whether all digits are known."""
        return len(self.digest) == DIGITS or bool(self.pinned)

    def mismatch(self, found: str) -> str | None:
        """Return how a file of this digest differs, None if it does not."""
        if not found.startswith(self.digest):
            return f"its SHA-256 is {found}, not {self.digest}{'...' * (len(self.digest) < DIGITS)}"
        if (pinned := self.pinned) not in ("", found):
            return f"its SHA-256 is {found}, not {pinned} as at the first download"
        return None

    def how_to_accept(self, found: str) -> str:
        """Return how to accept a file that differs only from the first download."""
        return f" (delete {self.pin} to accept it)" if found.startswith(self.digest) else ""

    def trust(self, found: str, how: str) -> None:
        """Save the digest of a file of which not all digits were known."""
        if self.is_known():
            return
        atomic_write(self.pin, f"{found}\n")
        digits = len(self.digest)
        known = f"only {digits} digits of its SHA-256 are known" if digits else "its SHA-256 is not known"
        words = f"{self.path.name}: {known}, so it is trusted {how}; {self.pin.name} saves {found} for later runs"
        log.warning("%s", printable(words))


def _fetch(url: str, wanted: _Wanted) -> str:
    """Download the file by way of a part file, which is deleted when it is complete or wrong; return its digest."""
    path = wanted.path
    partial = path.with_name(f"{path.name}.{hashlib.sha256(encode(url)).hexdigest()[:8]}.part")
    packed = url.endswith(".gz")
    if not (wanted.digest or wanted.pinned):
        partial.unlink(missing_ok=True)  # it cannot be verified to be of the same file
    resumed = partial.exists()
    _download(url, partial, wanted, packed)
    try:
        if packed:
            with gzip.open(partial) as content:
                atomic_write(path, lambda file: _unpack(content, file, wanted))
        else:
            _verify(sha256(partial), wanted)
            partial.replace(path)
    except DataError:
        partial.unlink(missing_ok=True)
        if not resumed:
            raise
        return _fetch(url, wanted)  # its start may be of another file
    partial.unlink(missing_ok=True)
    return sha256(path)


def _unpack(packed: gzip.GzipFile, file: BinaryIO, wanted: _Wanted) -> None:
    found, size = hashlib.sha256(), 0
    try:
        while block := packed.read(BLOCK):
            size += len(block)
            if size > wanted.most:
                raise DataError(f"sent gzip data that inflates to more than the {wanted.most:,} bytes of the file")
            found.update(block)
            file.write(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"sent corrupt gzip data ({error})") from error
    _verify(found.hexdigest(), wanted)


def _verify(found: str, wanted: _Wanted) -> None:
    if reason := wanted.mismatch(found):
        raise DataError(f"sent another file: {reason}{wanted.how_to_accept(found)}")


def _download(url: str, partial: Path, wanted: _Wanted, packed: bool) -> None:
    """Download `url` into `partial`, resuming where it ends."""
    most = wanted.most + (wanted.most >> 10) + BLOCK if packed else wanted.most

    def refuse(what: str) -> NoReturn:
        partial.unlink(missing_ok=True)
        raise DataError(f"{what}; at most {most:,} are allowed")

    with closing(Stream(url, partial.stat().st_size if partial.exists() else 0)) as stream:
        stream.read(0)
        if (stream.length or 0) > most:
            refuse(f"has {stream.length:,} bytes")
        needed = (stream.length or stream.position) - stream.position
        needed += wanted.most if packed else 0  # for what is unpacked beside it
        if needed > (free := shutil.disk_usage(partial.parent).free):
            raise OSError(errno.ENOSPC, f"it needs {needed:,} more bytes, and the disk has {free:,} left")
        bar = progress_bar(PatientConsole(stderr=True), DownloadColumn(), TransferSpeedColumn())
        with open(partial, "ab", opener=no_follow) as file, bar:
            task = bar.add_task(url, total=stream.length, completed=stream.position)
            while block := stream.read(BLOCK):
                if stream.position > most:
                    refuse("sent more bytes")
                file.truncate(stream.position - len(block))  # to 0, if the server cannot resume
                file.write(block)
                bar.update(task, completed=stream.position)
            file.truncate(stream.position)
            file.flush()
            os.fsync(file.fileno())


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Raise CannotWrite for an OSError of the file or its part."""
    try:
        yield
    except (OSError, NotImplementedError) as error:
        raise cannot_write(path, error) from error
