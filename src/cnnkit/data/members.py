"""The members of a tar file, one after the other, in little memory whatever their headers say."""

import io
import os
import struct
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO

__all__ = ["Metered", "members", "open_tar"]

UNTOLD = 1 << 62  # bytes, which no file has
MAX_HEADERS = 1 << 20  # bytes before the content of a member: its header, a long name, attributes


class Metered(io.RawIOBase):
    """A file for a reader that believes the lengths written in it: more than `left` bytes raise ValueError."""

    def __init__(self, file: BinaryIO, left: int = MAX_HEADERS):
        super().__init__()
        self.file, self.left = file, left

    def seekable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """Return the byte to be read next."""
        return self.file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Go to a byte."""
        return self.file.seek(offset, whence)

    def read(self, size: int | None = -1) -> bytes:
        """Return so many bytes, or fewer at the end; all of them if `size` is negative."""
        wanted = self.left + 1 if size is None or size < 0 else size
        if wanted > self.left + 1 or len(content := self.file.read(wanted)) > self.left:
            raise ValueError(f"at byte {self.tell():,}: a header of more than {self.left:,} bytes")
        self.left -= len(content)
        return content

    def trust(self) -> None:
        """Have no limit any more: what is read is known to be no more than the reader asks for."""
        self.left = UNTOLD


def open_tar(file: Metered) -> tarfile.TarFile:
    """Open a tar file that is not compressed; raises tarfile.TarError and ValueError as `members` does."""
    with _plain_errors():
        return tarfile.open(fileobj=file, mode="r:")


def members(tar: tarfile.TarFile, file: Metered) -> Iterator[tarfile.TarInfo]:
    """Yield the members of a tar file, and forget them; `file` is what it is read from.

    Raises tarfile.TarError and ValueError for one that is corrupt, or whose headers take more than MAX_HEADERS.
    """
    while True:
        file.left = MAX_HEADERS
        with _plain_errors():
            member = tar.next()
        if member is None:
            return
        if member.size < 0 or tar.offset <= member.offset:
            raise ValueError(f"at byte {member.offset:,}: a member of {member.size:,} bytes")
        if sum(map(len, tar.pax_headers.values())) > MAX_HEADERS:  # those for all members to come
            raise ValueError(f"at byte {member.offset:,}: headers of more than {MAX_HEADERS:,} bytes")
        tar.members.clear()  # type: ignore[attr-defined]  # a gap in typeshed
        file.trust()
        yield member


@contextmanager
def _plain_errors() -> Iterator[None]:
    """Raise ValueError for what else tarfile raises for corrupt headers."""
    try:
        yield
    except (ArithmeticError, LookupError, RecursionError, struct.error) as error:
        raise ValueError(f"a corrupt header: {error}") from error
