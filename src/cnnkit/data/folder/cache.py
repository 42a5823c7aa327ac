"""The cache of image files on disk: their decoded pixels, their thumbnails, and an index of the files.

Rows are only appended after those of the index, and the index is written after them, so that an interrupted process
resumes there. Another image size starts a new file of pixels; thumbnails depend only on the content of a file.
"""

import hashlib
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, Self

import numpy as np
from filelock import Timeout
from pydantic import BaseModel, Field, StrictBool, StrictInt, TypeAdapter, model_validator

from cnnkit.core.cache import cache_folder, read_record, to_record
from cnnkit.core.files import CannotWrite, atomic_write, cannot_write, lock, read_bytes, sweep
from cnnkit.data.files import Stamp, stamp
from cnnkit.data.folder.rows import Rows
from cnnkit.data.images.decode import THUMB

__all__ = ["Canvas", "Decoded", "Entry", "PixelCache", "digest"]

Canvas = tuple[int, int, int]  # H, W, C of each stored image

log = logging.getLogger(__name__)

COMMIT_SECONDS = 30
INDEX, PIXELS, THUMBS, FOLDER, VERSION = "index.json", "pixels.u8", "thumbs.u8", "folder.txt", 3
ALWAYS_CHECKED = 1 << 32  # bytes of pixels; larger files are verified only if they have been touched since

LARGEST_SIDE = 2**31 - 1
Size = Annotated[StrictInt, Field(ge=0, le=LARGEST_SIDE)]
Number = Annotated[StrictInt, Field(ge=-1)]  # of a row, if it is not negative


class Entry(NamedTuple):
    """The entry of an image file."""

    size: StrictInt = -1  # this and the next three are its stamp
    modified: StrictInt = -1
    changed: StrictInt = -1
    inode: StrictInt = -1
    height: Size = 0
    width: Size = 0
    grey: StrictBool = False
    digest: str = ""  # of its content, once it has been decoded
    thumb: Number = -1  # the row of its thumbnail, if there is one
    row: Number = -1  # the row of its pixels, if they are cached
    problem: str = ""  # why it cannot be decoded; valid as long as the content is the same

    def stamped(self, stamp: Stamp) -> "Entry":
        """Return the entry of a file with the same content and another stamp."""
        size, modified, changed, inode = stamp
        return self._replace(size=size, modified=modified, changed=changed, inode=inode)

    def lacks(self, pixels: bool) -> bool:
        """Return whether it must be decoded for its thumbnail or, if requested, its pixels."""
        return self.thumb < 0 or (pixels and self.row < 0)


class Decoded(NamedTuple):
    """The parts of a decoded file to cache: pixels H x W x C, and a thumbnail."""

    path: str
    entry: Entry
    pixels: np.ndarray | None = None
    thumb: np.ndarray | None = None


def digest(content: bytes) -> str:
    """Return a digest of the content, in hex."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class _Index(BaseModel):
    """The index: the entry of each file by its path, and the checksum of each row."""

    version: Literal[3]
    canvas: tuple[Size, Size, Literal[0, 1, 3]]
    rows: StrictInt
    thumbs: StrictInt
    row_sums: list[StrictInt]
    thumb_sums: list[StrictInt]
    row_stamp: tuple[StrictInt, StrictInt, StrictInt, StrictInt] | None
    files: dict[str, Entry]

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        if self.rows != len(self.row_sums) or self.thumbs != len(self.thumb_sums):
            raise ValueError("the numbers of rows and checksums differ")
        if any(entry.row >= self.rows or entry.thumb >= self.thumbs for entry in self.files.values()):
            raise ValueError("a row is missing")
        return self


_INDEX = TypeAdapter(_Index)


class PixelCache:
    """The decoded images of the folder `root`, or those that a `table` in it lists; use it only while `locked`."""

    def __init__(self, root: Path, table: str = ""):
        self.root = root.resolve()
        key = digest(os.fsencode(self.root / table))[:16]
        self.place = cache_folder("images", f"{self.root.name}-{key}")
        self.index = self.place / INDEX
        self.files: dict[str, Entry] = {}
        self.pixels, self.thumbs = self._rows()
        self._checked: Stamp | None = None  # the stamp of the file of pixels when all rows were verified

    @contextmanager
    def locked(self, progress: bool) -> Iterator[None]:
        """Lock the cache, waiting for other processes, and read the index; raises CannotWrite."""
        path = self.place.with_name(f".{self.place.name}.lock")
        with ExitStack() as held:
            try:
                held.enter_context(lock(path, timeout=0))
            except Timeout:
                if progress:
                    log.warning("waiting for another process that decodes %s", self.root)
                held.enter_context(lock(path))
            sweep(self.index)
            sweep(self.place / FOLDER)
            self._read()
            yield

    @property
    def canvas(self) -> Canvas:
        """H, W, C of the cached images."""
        height, width, channels = self.pixels.shape
        return height, width, channels

    def sound(
        self, files: dict[str, Entry], wanted: Iterable[str], canvas: Canvas | None, workers: int
    ) -> dict[str, Entry]:
        """Return the entries without their corrupt rows, which are logged.

        Verifies the thumbnails of the `wanted` files and, if they have the size `canvas`, their pixels; a large file of
        pixels is verified as a whole, and only if it has been touched since.
        """
        used = [files[path] for path in wanted]
        thumbs = self.thumbs.corrupt({entry.thumb for entry in used} - {-1}, workers)
        large = self.pixels.count * self.pixels.bytes > ALWAYS_CHECKED
        untouched = large and self._checked == self._pixels_stamp()
        rows = {entry.row for entry in (files.values() if large else used)} - {-1}
        pixels = set() if untouched or canvas != self.canvas else self.pixels.corrupt(rows, workers)
        if wrong := sum(entry.row in pixels or entry.thumb in thumbs for entry in used):
            log.warning("%s: %s of %s images are corrupt and will be decoded again", self.place, wrong, len(used))
            for path, entry in files.items():
                row, thumb = (-1 if one in bad else one for one, bad in ((entry.row, pixels), (entry.thumb, thumbs)))
                files[path] = entry._replace(row=row, thumb=thumb)
        return files

    def begin(self, canvas: Canvas, files: dict[str, Entry]) -> None:
        """Set the entries, by path.

        Pixels of another size are dropped, and so are pixels or thumbnails if their file is corrupt or most of its rows
        are unused.
        """
        pixels = self.pixels.shape == canvas and self.pixels.holds(len({entry.row for entry in files.values()} - {-1}))
        thumbs = self.thumbs.holds(len({entry.thumb for entry in files.values()} - {-1}))
        if not pixels:
            files = {path: entry._replace(row=-1) for path, entry in files.items()}
        if not thumbs:
            files = {path: entry._replace(thumb=-1) for path, entry in files.items()}
        self.changed = (canvas, files) != (self.pixels.shape, self.files)
        self.files = files
        self.pixels, self.thumbs = self._rows(
            canvas, self.pixels.sums if pixels else (), self.thumbs.sums if thumbs else ()
        )
        self.changed |= self._checked != self._pixels_stamp()
        if self.index.exists() and not (pixels and thumbs):
            self.save()  # first, so that the index never refers to missing rows
        try:
            for rows in (self.pixels, self.thumbs):
                if not rows.count:
                    rows.drop()
        except OSError as error:
            raise cannot_write(rows.path, error) from error

    def add(self, decoded: Iterable[Sequence[Decoded]]) -> None:
        """Append decoded files as they arrive.

        Raises CnnkitError, and frees the space, if they cannot be written.
        """
        self._forget_lost_folders()
        try:
            with self.pixels, self.thumbs:
                try:
                    self._append(decoded)
                finally:
                    self._commit()
        except CannotWrite:
            self._drop()
            raise
        except OSError as error:
            self._drop()
            raise cannot_write(self.place, error) from error

    def save(self) -> None:
        """Save the entries that `begin` set; raises CnnkitError."""
        if self.changed:
            self._write_index()

    def _append(self, decoded: Iterable[Sequence[Decoded]]) -> None:
        committed = time.monotonic()
        for chunk in decoded:
            for path, entry, pixels, thumb in chunk:
                row = entry.row if pixels is None else self.pixels.add(pixels)
                small = entry.thumb if thumb is None else self.thumbs.add(thumb)
                self.files[path] = entry._replace(row=row, thumb=small)
            if time.monotonic() - committed > COMMIT_SECONDS:
                self._commit()
                committed = time.monotonic()

    def _commit(self) -> None:
        self.pixels.flush()
        self.thumbs.flush()
        self._write_index()

    def _write_index(self) -> None:
        self._checked = self._pixels_stamp()
        content = {
            "version": VERSION,
            "canvas": self.pixels.shape,
            "rows": self.pixels.count,
            "thumbs": self.thumbs.count,
            "row_sums": self.pixels.sums,
            "thumb_sums": self.thumbs.sums,
            "row_stamp": self._checked,
            "files": self.files,
        }
        atomic_write(self.index, to_record(content))
        self.changed = False

    def _read(self) -> None:
        self.files, (self.pixels, self.thumbs), self._checked = {}, self._rows(), None
        if index := read_record(self.index, _INDEX):
            self.files, self._checked = index.files, index.row_stamp
            self.pixels, self.thumbs = self._rows(index.canvas, index.row_sums, index.thumb_sums)

    def _rows(
        self, canvas: tuple[int, ...] = (0, 0, 0), pixels: Sequence[int] = (), thumbs: Sequence[int] = ()
    ) -> tuple[Rows, Rows]:
        """Return the files of pixels and of thumbnails, with these checksums of their rows."""
        return Rows(self.place / PIXELS, canvas, pixels), Rows(self.place / THUMBS, (THUMB * THUMB * 3,), thumbs)

    def _pixels_stamp(self) -> Stamp | None:
        with suppress(OSError):
            return stamp(self.pixels.path.stat())
        return None

    def _drop(self) -> None:
        with suppress(OSError):
            self.index.unlink(missing_ok=True)  # first, so that the index never refers to missing rows
            self.pixels.drop()
            self.thumbs.drop()
        self.files = {}

    def _forget_lost_folders(self) -> None:
        """Remove the caches of deleted folders, and save the path of this one's folder."""
        for note in self.place.parent.glob(f"*/{FOLDER}"):
            with suppress(OSError):
                if not os.path.exists(read_bytes(note)):  # noqa: PTH110  bytes
                    shutil.rmtree(note.parent, ignore_errors=True)
        atomic_write(self.place / FOLDER, os.fsencode(self.root))
