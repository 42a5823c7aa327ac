"""The bytes of a file, here or on a web server, best read forwards; a broken connection is taken up where it broke."""

import http.client
import io
import os
import re
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.data.files import await_tick, stamp

__all__ = [
    "ByteFile",
    "LocalFile",
    "RemoteFile",
    "exists",
    "is_url",
    "open_bytes",
    "read_all",
    "read_range",
    "version_of",
]

TIMEOUT_SECONDS = 30
PAUSES = (0.5, 1.0, 2.0, 4.0)  # seconds before each further attempt
SKIP = 1 << 20  # bytes that are sooner read and dropped than asked around
BUSY = (408, 429)  # answers below 500 that are worth another attempt


class LocalFile(io.FileIO):
    """A file of this machine, open for reading."""

    @property
    def length(self) -> int | None:
        """Bytes."""
        return os.fstat(self.fileno()).st_size


class RemoteFile(io.RawIOBase):
    """A file on a web server, read through one connection, which is kept while reading goes forwards.

    Where the server answers Range requests, reading begins anywhere at once; else what lies before is read and dropped.
    Reading raises DataError, with the reason alone, for what the server refuses or has changed, CnnkitError if it
    cannot be reached in several attempts.
    """

    def __init__(self, url: str):
        super().__init__()
        self.url = url
        self.length: int | None = None  # bytes, once the server has said how many
        self._position = 0
        self._answer: http.client.HTTPResponse | None = None
        self._at = 0  # the byte that the connection gives next

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the byte to be read next."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte, counted from the start or from here; the server is not asked yet."""
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("the end of a remote file is not known yet")
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer as far as bytes come at once, and return how many; 0 at the end."""
        for pause in (*PAUSES, None):
            try:
                return self._receive(buffer)
            except urllib.error.HTTPError as error:
                if error.code < 500 and error.code not in BUSY:
                    raise DataError(f"the server says {error.code} {error.reason}") from error
                reason = f"{error.code} {error.reason}"
            except (OSError, http.client.HTTPException) as error:
                reason = str(getattr(error, "reason", error)) or type(error).__name__
            self._hang_up()
            if pause is not None:
                time.sleep(pause)
        raise CnnkitError(f"cannot read {self.url}: {reason}; tried {len(PAUSES) + 1} times")

    def close(self) -> None:
        """Hang up."""
        self._hang_up()
        super().close()

    def _receive(self, buffer: Any) -> int:
        if self.length is not None and self._position >= self.length:
            return 0
        if self._answer is None or not 0 <= self._position - self._at <= SKIP:
            self._answer = self._ask()
        while self._at < self._position:
            dropped = len(self._answer.read(min(SKIP, self._position - self._at)))
            if not self._goes_on(dropped):
                return 0
        count = self._answer.readinto(buffer)
        self._goes_on(count)
        self._position = self._at
        return count

    def _ask(self) -> http.client.HTTPResponse:
        """Return an answer that begins at the position or, if the server takes no Range, at the start."""
        self._hang_up()
        headers = {"Range": f"bytes={self._position}-"} if self._position else {}
        answer: http.client.HTTPResponse = urllib.request.urlopen(
            urllib.request.Request(self.url, headers=headers), timeout=TIMEOUT_SECONDS
        )
        part = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", answer.headers.get("Content-Range", ""))
        whole = answer.headers.get("Content-Length")
        self._at, length = (int(part[1]), int(part[2])) if part else (0, int(whole) if whole else None)
        if self.length is not None and length != self.length:
            answer.close()
            raise DataError(f"it has changed: it had {self.length:,} bytes and has {length}")
        self.length = length
        return answer

    def _goes_on(self, count: int) -> bool:
        """Count bytes that have come; say whether this is not the end."""
        if not count and self.length is not None:
            raise ConnectionError(f"the connection broke at byte {self._at:,} of {self.length:,}")
        self._at += count
        return count > 0

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


ByteFile = LocalFile | RemoteFile


def is_url(place: str) -> bool:
    """Say whether a place is on a web server."""
    return place.startswith(("http://", "https://"))


def exists(place: str) -> bool:
    """Say whether there is such a file, or a server has it."""
    if not is_url(place):
        return Path(place).is_file()
    try:
        with RemoteFile(place) as file:
            return file.readinto(bytearray(1)) > 0
    except DataError:
        return False


def version_of(place: str) -> list[int | str] | None:
    """Return what tells a file from a later one of its name: its stamp here, its headers on a server.

    None if the server does not say. Raises OSError for a file that is not here.
    """
    if not is_url(place):
        found = stamp(Path(place).stat())
        await_tick(found)
        return list(found)
    try:
        with urllib.request.urlopen(urllib.request.Request(place, method="HEAD"), timeout=TIMEOUT_SECONDS) as answer:
            return [answer.headers.get(name, "") for name in ("Content-Length", "Last-Modified", "ETag")]
    except (OSError, http.client.HTTPException):
        return None


def open_bytes(place: str) -> ByteFile:
    """Open a file by its path or URL; raises DataError, with the reason alone, if there is no such file here."""
    if is_url(place):
        return RemoteFile(place)
    try:
        return LocalFile(place)
    except OSError as error:
        raise DataError(f"cannot be read ({error.strerror})") from error


def read_range(file: ByteFile, start: int, stop: int) -> memoryview:
    """Return the bytes from `start` to `stop`; raises DataError, with the reason alone, if there are fewer."""
    content = memoryview(bytearray(stop - start))
    file.seek(start)
    done = 0
    while done < len(content):
        count = file.readinto(content[done:])
        if not count:
            raise DataError(f"it ends at byte {start + done:,}")
        done += count
    return content


def read_all(place: str) -> bytes:
    """Return all bytes of a file; raises DataError, with the reason alone."""
    with open_bytes(place) as file:
        return file.readall() or b""
