"""The bytes of a file, here or on a web server, best read forwards; a broken connection is taken up where it broke."""

import io
import os
from pathlib import Path
from typing import Any

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.core.files import MAX_BYTES, open_file
from cnnkit.core.http import Answer, Attempts, Broken, open_url
from cnnkit.core.text import is_url
from cnnkit.data.files import await_tick, stamp

__all__ = [
    "ByteFile",
    "LocalFile",
    "RemoteFile",
    "exists",
    "open_bytes",
    "read_all",
    "read_range",
    "version_of",
]

SKIP = 1 << 20  # bytes that are sooner read and dropped than asked around


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
        self._answer: Answer | None = None
        self._attempts, self._fresh = Attempts(), 0  # failures, and bytes read since the last one
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
        while True:
            try:
                count = self._receive(buffer)
            except Broken as error:
                self._hang_up()
                fresh, self._fresh = self._fresh, 0
                if not self._attempts.go_on(fresh):
                    where = f"byte {self._at:,}" + ("" if self.length is None else f" of {self.length:,}")
                    tried = f"tried {self._attempts.failed} times"
                    raise CnnkitError(f"cannot read {self.url}: {error} (at {where}); {tried}") from error
            else:
                self._fresh += count
                return count

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
            if not dropped:
                return 0
            self._at += dropped
        block = self._answer.read(len(buffer))
        if not block and self.length is not None:
            raise Broken("the server sent less than it had said")
        buffer[: len(block)] = block
        self._at += len(block)
        self._position = self._at
        return len(block)

    def _ask(self) -> Answer:
        """Return an answer that begins at the position or, if the server takes no Range, at the start."""
        self._hang_up()
        answer = open_url(self.url, self._position)
        self._at = answer.start
        if None not in (self.length, answer.length) and answer.length != self.length:
            answer.close()
            raise DataError(f"it has changed: it had {self.length:,} bytes and has {answer.length:,}")
        self.length = self.length if answer.length is None else answer.length
        return answer

    def _hang_up(self) -> None:
        if self._answer is not None:
            self._answer.close()
            self._answer = None


ByteFile = LocalFile | RemoteFile


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
        with open_url(place, method="HEAD") as answer:
            return [answer.headers.get(name, "") for name in ("Content-Length", "Last-Modified", "ETag")]
    except (DataError, Broken):
        return None


def open_bytes(place: str) -> ByteFile:
    """Open a file by its path or URL; raises DataError, with the reason alone, if there is no such file here."""
    if is_url(place):
        return RemoteFile(place)
    try:
        with open_file(place) as file:
            return LocalFile(os.dup(file.fileno()))
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


def read_all(place: str, most: int = MAX_BYTES) -> bytes:
    """Return all bytes of a file; raises DataError, with the reason alone, also for one of more than `most` bytes."""
    content = bytearray()
    with open_bytes(place) as file:
        while block := file.read(1 << 16):
            content += block
            if len(content) > most:
                raise DataError(f"it has more than {most:,} bytes")
    return bytes(content)
