"""What is known of image files, on the disk: their decoded pixels, their thumbnails, and an index of the files.

Rows are only ever added behind those of the index, and the index is written after them: who is interrupted goes on
from there. Another size of image starts a new file of pixels; thumbnails follow from the content of a file alone.
"""

import hashlib
import json
import logging
import os
import shutil
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from filelock import FileLock, Timeout

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write, cache_dir, make_folder
from cnnkit.data.files import Stamp
from cnnkit.data.images import THUMB
from cnnkit.data.rows import Rows

__all__ = ["Canvas", "Decoded", "Entry", "PixelCache", "digest"]

Canvas = tuple[int, int, int]  # H, W, C of each stored image

log = logging.getLogger(__name__)

COMMIT_SECONDS = 30
INDEX, PIXELS, THUMBS, FOLDER, VERSION = "index.json", "pixels.u8", "thumbs.u8", "folder.txt", 2


class Entry(NamedTuple):
    """What is known of an image file."""

    size: int = -1  # this and the next three are its stamp
    modified: int = -1
    changed: int = -1
    inode: int = -1
    height: int = 0
    width: int = 0
    grey: bool = False
    digest: str = ""  # of its content, once it has been decoded
    thumb: int = -1  # the row of its thumbnail, if there is one
    row: int = -1  # the row of its pixels, if they are kept
    problem: str = ""  # why it cannot be decoded; believed as long as the content is the same

    def stamped(self, stamp: Stamp) -> "Entry":
        """Return the same of a file with another stamp."""
        size, modified, changed, inode = stamp
        return self._replace(size=size, modified=modified, changed=changed, inode=inode)

    def lacks(self, pixels: bool) -> bool:
        """Return whether it has yet to be decoded for its thumbnail or, if these are wanted, its pixels."""
        return self.thumb < 0 or (pixels and self.row < 0)


class Decoded(NamedTuple):
    """What a file has been decoded to, as far as it is to be kept: pixels H x W x C, and a thumbnail."""

    path: str
    entry: Entry
    pixels: np.ndarray | None = None
    thumb: np.ndarray | None = None


def digest(content: bytes) -> str:
    """Return a checksum, in hex, that no other content has."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class PixelCache:
    """The decoded images of the folder `root`, or those that a `table` in it lists; to be used while it is `locked`."""

    def __init__(self, root: Path, table: str = ""):
        self.root = root.resolve()
        key = digest(os.fsencode(self.root / table))[:16]
        self.place = make_folder(cache_dir() / "images" / f"{self.root.name}-{key}")
        self.index = self.place / INDEX
        self.files: dict[str, Entry] = {}
        self.pixels, self.thumbs = self._rows()

    @contextmanager
    def locked(self, progress: bool) -> Iterator[None]:
        """Keep other processes out, wait for one that is in, and read the index."""
        lock = FileLock(self.place.with_name(f".{self.place.name}.lock"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            if progress:
                log.warning("waiting for another process that decodes %s", self.root)
            lock.acquire()
        try:
            self._read()
            yield
        finally:
            lock.release()

    @property
    def canvas(self) -> Canvas:
        """H, W, C of the images that are kept."""
        height, width, channels = self.pixels.shape
        return height, width, channels

    def begin(self, canvas: Canvas, files: dict[str, Entry]) -> None:
        """Take what is known of the files, by path.

        Their pixels are forgotten if the images get another size; pixels and thumbnails are if their file is corrupt or
        most of its rows belong to no file any more.
        """
        pixels = self.pixels.shape == canvas and self.pixels.holds(len({entry.row for entry in files.values()} - {-1}))
        thumbs = self.thumbs.holds(len({entry.thumb for entry in files.values()} - {-1}))
        if not pixels:
            files = {path: entry._replace(row=-1) for path, entry in files.items()}
        if not thumbs:
            files = {path: entry._replace(thumb=-1) for path, entry in files.items()}
        self.changed = (canvas, files) != (self.pixels.shape, self.files)
        self.files = files
        self.pixels, self.thumbs = self._rows(canvas, self.pixels.count * pixels, self.thumbs.count * thumbs)
        if self.index.exists() and not (pixels and thumbs):
            self.save()  # first: no index may speak of rows that are not there
        for rows in (self.pixels, self.thumbs):
            if not rows.count:
                rows.drop()

    def add(self, decoded: Iterable[Sequence[Decoded]]) -> None:
        """Write what files have been decoded to, as it comes.

        Raises CnnkitError, and gives the room back, if the disk does not take it.
        """
        self._forget_lost_folders()
        try:
            with self.pixels, self.thumbs:
                try:
                    self._append(decoded)
                finally:
                    self._commit()
        except (OSError, CnnkitError) as error:
            self._drop()
            reason = error.strerror if isinstance(error, OSError) else error
            raise CnnkitError(f"cannot write into {self.place}: {reason}; make room, or set $CNNKIT_CACHE") from error

    def save(self) -> None:
        """Keep what `begin` was told; raises CnnkitError."""
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
        content = {
            "version": VERSION,
            "canvas": self.pixels.shape,
            "rows": self.pixels.count,
            "thumbs": self.thumbs.count,
            "files": self.files,
        }
        atomic_write(self.index, json.dumps(content))
        self.changed = False

    def _read(self) -> None:
        self.files, (self.pixels, self.thumbs) = {}, self._rows()
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, corrupt, or of another version
            content = json.loads(self.index.read_bytes())
            if content["version"] == VERSION:
                files = {path: Entry(*values) for path, values in content["files"].items()}
                rows = self._rows(tuple(content["canvas"]), content["rows"], content["thumbs"])
                self.files, (self.pixels, self.thumbs) = files, rows

    def _rows(self, canvas: tuple[int, ...] = (0, 0, 0), pixels: int = 0, thumbs: int = 0) -> tuple[Rows, Rows]:
        """Return the files of pixels and of thumbnails, which have so many rows."""
        return Rows(self.place / PIXELS, canvas, pixels), Rows(self.place / THUMBS, (THUMB * THUMB * 3,), thumbs)

    def _drop(self) -> None:
        self.index.unlink(missing_ok=True)  # first: no index may speak of rows that are not there
        self.pixels.drop()
        self.thumbs.drop()
        self.files = {}

    def _forget_lost_folders(self) -> None:
        """Remove the caches of folders that are not there any more, and note which folder this one is of."""
        for note in self.place.parent.glob(f"*/{FOLDER}"):
            with suppress(OSError):
                if not os.path.exists(note.read_bytes()):  # noqa: PTH110  bytes
                    shutil.rmtree(note.parent, ignore_errors=True)
        atomic_write(self.place / FOLDER, os.fsencode(self.root))
