"""The members of a tar file, read in turn with little memory, even for malicious headers."""

import io
import os
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["Metered", "members", "open_tar"]

UNLIMITED = 1 << 62  # bytes
MAX_HEADERS = 1 << 20  # bytes before the content of a member: header, long name, attributes


class Metered(io.RawIOBase):
    """A file for a reader that trusts the lengths in it: reading more than `left` bytes raises ValueError."""

    def __init__(self, file: BinaryIO, left: int = MAX_HEADERS):
        super().__init__()
        self.file, self.left = file, left

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the position of the next byte."""
        return self.file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Set the position."""
        return self.file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """Return `size` bytes, or fewer at the end; all of them if it is negative."""
        wanted = self.left + 1 if size is None or size < 0 else size
        if wanted > self.left + 1 or len(content := self.file.read(wanted)) > self.left:
            raise ValueError(f"at byte {self.tell():,}: a header of more than {self.left:,} bytes")
        self.left -= len(content)
        return content

    def trust(self) -> None:
        """Remove the limit, as the reader is known to request no more than it needs."""
        self.left = UNLIMITED


def open_tar(file: Metered) -> tarfile.TarFile:
    """Open an uncompressed tar file; raises tarfile.TarError and ValueError as `members` does."""
    with _plain_errors():
        return tarfile.open(fileobj=file, mode="r:")


def members(tar: tarfile.TarFile, file: Metered) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file, which is read from `file`, without keeping them in memory.

    Raises tarfile.TarError and ValueError if it is corrupt, or a member's headers exceed MAX_HEADERS.
    """
    while True:
        file.left = MAX_HEADERS
        with _plain_errors():
            member = tar.next()
        if member is None:
            return
        if member.size < 0 or tar.offset <= member.offset:
            raise ValueError(f"at byte {member.offset:,}: a member of {member.size:,} bytes")
        if sum(map(len, tar.pax_headers.values())) > MAX_HEADERS:  # global ones
            raise ValueError(f"at byte {member.offset:,}: headers of more than {MAX_HEADERS:,} bytes")
        tar.members.clear()  # type: ignore[attr-defined]  # a gap in typeshed
        file.trust()
        yield member


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise ValueError for the other exceptions of tarfile for corrupt headers."""
    try:
        yield
    except (ArithmeticError, LookupError, RecursionError, struct.error) as error:
        raise ValueError(f"a corrupt header: {error}") from error
