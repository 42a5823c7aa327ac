"""Byte ranges of local and remote files, fastest when read forwards."""

import io
import os
from pathlib import Path
from typing import Any

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.core.files import open_file
from cnnkit.core.http import Stream, TransientError, open_url
from cnnkit.core.limits import MAX_TEXT_BYTES
from cnnkit.core.text import is_url
from cnnkit.data.files import await_tick, stamp

__all__ = ["ByteFile", "RemoteFile", "exists", "open_bytes", "read_all", "read_range", "version_of"]

SKIP = 1 << 20  # bytes that are faster read and dropped than skipped by another request


class LocalFile(io.FileIO):
    """A local file, open for reading."""

    @property
    def length(self) -> int | None:
        """The size in bytes."""
        return os.fstat(self.fileno()).st_size


class RemoteFile(io.RawIOBase):
    """A file on a web server, read through one connection as long as reading goes forwards.

    Without Range support of the server, all bytes before the position are read and dropped. Reading raises DataError,
    with the reason alone, for what the server refuses and for a file that has changed, CnnkitError if all attempts
    fail.
    """

    def __init__(self, url: str):
        super().__init__()
        self.url = url
        self.length: int | None = None  # bytes, once the server has sent it
        self._position = 0
        self._stream = Stream(url)

    def readable(self) -> bool:
        """Return True."""
        return True

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position, from the start or from the current one; no request is made yet."""
        if whence == os.SEEK_END:
            raise io.UnsupportedOperation("the end of a remote file is not known yet")
        self._position = offset + (self._position if whence == os.SEEK_CUR else 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer with the bytes that have arrived, and return their number; 0 at the end."""
        if self.length is not None and self._position >= self.length:
            return 0
        if not (self._stream.is_open and 0 <= self._position - self._stream.position <= SKIP):
            self._stream.seek(self._position)
        while block := self._receive(min(SKIP, self._position - self._stream.position) or len(buffer)):
            found = block[self._position - (self._stream.position - len(block)) :]
            if found:
                buffer[: len(found)] = found
                self._position += len(found)
                return len(found)
        return 0

    def close(self) -> None:
        """Close the connection."""
        self._stream.close()
        super().close()

    def _receive(self, most: int) -> bytes:
        try:
            block = self._stream.read(most)
        except TransientError as error:
            raise CnnkitError(f"cannot read {self.url}: {error}") from error
        length = self._stream.length
        if None not in (self.length, length) and length != self.length:
            raise DataError(f"the file has changed: it had {self.length:,} bytes and has {length:,}")
        self.length = self.length if length is None else length
        return block


ByteFile = LocalFile | RemoteFile


def exists(place: str) -> bool:
    """Return whether a file exists, here or on a server."""
    if not is_url(place):
        return Path(place).is_file()
    try:
        with RemoteFile(place) as file:
            return file.readinto(bytearray(1)) > 0
    except DataError:
        return False


def version_of(place: str) -> list[int | str] | None:
    """Return what changes when a file is replaced: its stamp or, on a server, its headers; None if it sends none.

    Raises OSError for a local file that does not exist.
    """
    if not is_url(place):
        found = stamp(Path(place).stat())
        await_tick(found)
        return list(found)
    try:
        with open_url(place, method="HEAD") as answer:
            return [answer.headers.get(name, "") for name in ("Content-Length", "Last-Modified", "ETag")]
    except (DataError, TransientError):
        return None


def open_bytes(place: str) -> ByteFile:
    """Open a file by its path or URL; raises DataError, with the reason alone, for a local file that cannot be read."""
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


def read_all(place: str, most: int = MAX_TEXT_BYTES) -> bytes:
    """Return all bytes of a file; raises DataError, with the reason alone, also for one of more than `most` bytes."""
    content = bytearray()
    with open_bytes(place) as file:
        while block := file.read(1 << 16):
            content += block
            if len(content) > most:
                raise DataError(f"it has more than {most:,} bytes")
    return bytes(content)
