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

from filelock import FileLock
from rich.console import Console
from rich.progress import DownloadColumn, Progress, TransferSpeedColumn

from cnnkit.core.errors import DataError
from cnnkit.core.files import atomic_write, make_folder, sha256

__all__ = ["fetch"]

ATTEMPTS, TIMEOUT_SECONDS, PAUSE_SECONDS, BLOCK = 3, 30, 0.2, 1 << 18


def fetch(urls: Sequence[str], path: Path, digest: str) -> Path:
    """Download gzip data from the first of `urls` that gives it right, and write it decompressed to `path`.

    `digest` is the SHA-256 of the decompressed payload: mirrors compress differently. A file that is already right is
    kept. What a broken connection has brought stays beside `path` and is continued, also by a later call; of several
    processes one downloads and the others wait. A mirror is tried again if it breaks off or answers 5xx.
    Raises DataError with each mirror's reason if none works.
    """
    make_folder(path.parent)
    with FileLock(path.with_name(f".{path.name}.lock")):
        if path.exists() and sha256(path) == digest:
            return path
        failures = []
        for url in urls:
            try:
                atomic_write(path, _payload(url, path, digest))
            except (DataError, OSError, http.client.HTTPException) as error:
                failures.append(f"{url}: {error or type(error).__name__}")
                continue
            return path
    raise DataError("; ".join(failures))


def _payload(url: str, path: Path, digest: str) -> bytes:
    """Return the decompressed file, through a part file that is gone once it has served or proved wrong."""
    partial = path.with_name(f"{path.name}.{hashlib.sha256(url.encode()).hexdigest()[:8]}.part")
    continued = partial.exists()
    _download(url, partial)
    try:
        payload = gzip.decompress(partial.read_bytes())
        if (found := hashlib.sha256(payload).hexdigest()) != digest:
            raise DataError(f"sent other data: the payload's sha256 is {found}, not {digest}")
        return payload
    except (DataError, OSError, EOFError, zlib.error) as error:
        if continued:  # its beginning may be of another file
            partial.unlink()
            return _payload(url, path, digest)
        raise error if isinstance(error, DataError) else DataError(f"sent damaged gzip data ({error})") from error
    finally:
        partial.unlink(missing_ok=True)


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
    with response, partial.open("ab" if response.status == 206 else "wb") as file:
        expected = response.headers.get("Content-Length")
        received = 0
        with _progress() as progress:
            bar = progress.add_task(url, total=expected and int(expected))
            while block := response.read(BLOCK):
                file.write(block)
                received += len(block)
                progress.advance(bar, len(block))
    if expected is not None and received < int(expected):
        raise ConnectionError(f"the connection broke after {received:,} of {int(expected):,} bytes")


def _progress() -> Progress:
    console = Console(stderr=True)
    columns = (*Progress.get_default_columns(), DownloadColumn(), TransferSpeedColumn())
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
