"""Download a file once: from several mirrors, resumed after a cut, checked, and whole or not there."""

import gzip
import hashlib
import http.client
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from rich.progress import DownloadColumn, TransferSpeedColumn

from cnnkit.core.console import PatientConsole, progress_bar
from cnnkit.core.errors import DataError
from cnnkit.core.files import atomic_write, lock, make_folder, no_follow, sha256, sweep

__all__ = ["fetch"]

ATTEMPTS, TIMEOUT_SECONDS, PAUSE_SECONDS, BLOCK = 3, 30, 0.2, 1 << 18


def fetch(urls: Sequence[str], path: Path, digest: str) -> Path:
    """Download from the first of `urls` that gives it right, and write it to `path`; what ends in .gz is decompressed.

    `digest` is the SHA-256, or its first digits, of what is written: mirrors compress differently. A file that is
    already right is kept. What a broken connection has brought stays beside `path` and is continued, also by a later
    call; of several processes one downloads and the others wait. A mirror is tried again if it breaks off or answers
    5xx. Raises DataError with each mirror's reason if none works.
    """
    if _is_right(path, digest):
        return path
    make_folder(path.parent)
    with lock(path.with_name(f".{path.name}.lock")):
        if _is_right(path, digest):
            return path
        sweep(path)
        failures = []
        for url in urls:
            try:
                _fetch(url, path, digest)
            except (DataError, OSError, http.client.HTTPException) as error:
                failures.append(f"{url}: {error or type(error).__name__}")
                continue
            return path
    raise DataError("; ".join(failures))


def _is_right(path: Path, digest: str) -> bool:
    return path.exists() and sha256(path).startswith(digest)


def _fetch(url: str, path: Path, digest: str) -> None:
    """Bring the file through a part file that is gone once it has served or proved wrong."""
    partial = path.with_name(f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
    continued = partial.exists()
    _download(url, partial)
    try:
        if url.endswith(".gz"):
            with gzip.open(partial) as packed:
                atomic_write(path, lambda file: _unpack(packed, file, digest))
        else:
            _check(sha256(partial), digest)
            partial.replace(path)
    except DataError:
        partial.unlink()
        if not continued:
            raise
        _fetch(url, path, digest)  # its beginning may have been of another file
    partial.unlink(missing_ok=True)


def _unpack(packed: gzip.GzipFile, file: BinaryIO, digest: str) -> None:
    found = hashlib.sha256()
    try:
        while block := packed.read(BLOCK):
            found.update(block)
            file.write(block)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise DataError(f"sent damaged gzip data ({error})") from error
    _check(found.hexdigest(), digest)


def _check(found: str, digest: str) -> None:
    if not found.startswith(digest):
        raise DataError(f"sent other data: its sha256 is {found}, not {digest}")


def _download(url: str, partial: Path) -> None:
    """Bring the bytes of `url` into `partial`, going on where it ends."""
    for pause in (PAUSE_SECONDS * 2**attempt for attempt in range(ATTEMPTS - 1)):
        try:
            return _continue(url, partial)
        except urllib.error.HTTPError as error:
            if error.code < 500:
                raise
        except (OSError, http.client.HTTPException):
            pass
        time.sleep(pause)
    return _continue(url, partial)


def _continue(url: str, partial: Path) -> None:
    have = partial.stat().st_size if partial.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={have}-"} if have else {})
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code == 416:  # nothing lies behind what we have
            return
        raise
    mode = "ab" if response.status == 206 else "wb"
    with response, open(partial, mode, opener=no_follow) as file:
        expected = response.headers.get("Content-Length")
        received = 0
        with progress_bar(PatientConsole(stderr=True), DownloadColumn(), TransferSpeedColumn()) as progress:
            bar = progress.add_task(url, total=expected and int(expected))
            while block := response.read(BLOCK):
                file.write(block)
                received += len(block)
                progress.advance(bar, len(block))
    if expected is not None and received < int(expected):
        raise ConnectionError(f"the connection broke after {received:,} of {int(expected):,} bytes")
