"""Decoded pictures on the disk: a file of pixels, and an index that knows each picture's file.

Rows are only ever added behind those of the index, and the index is written after them: who is interrupted goes on
from there, and who has the file mapped keeps what he sees. Another size of image starts a new file.
"""

import hashlib
import json
import logging
import math
import os
import shutil
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from filelock import FileLock, Timeout
from torch import Tensor

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write, cache_dir, make_folder

__all__ = ["Canvas", "Entry", "PixelCache", "digest"]

Canvas = tuple[int, int, int]  # H, W, C of each stored image

log = logging.getLogger(__name__)

COMMIT_SECONDS = 30
INDEX, PIXELS, FOLDER, VERSION = "index.json", "pixels.u8", "folder.txt", 1


class Entry(NamedTuple):
    """What is known of a picture's file."""

    size: int = -1  # bytes
    modified: int = -1  # nanoseconds
    height: int = 0
    width: int = 0
    grey: bool = False
    digest: str = ""  # of its content, once it has been decoded
    row: int = -1  # where its pixels are, if they are
    problem: str = ""  # why they are not; believed as long as the content is the same


def digest(content: bytes) -> str:
    """Return a checksum, in hex, that no other content has."""
    return hashlib.blake2b(content, digest_size=16).hexdigest()


class PixelCache:
    """The decoded images of the folder `root`, or those that a `table` in it lists; to be used while it is `locked`."""

    def __init__(self, root: Path, table: str = ""):
        self.root = root.resolve()
        key = digest(os.fsencode(self.root / table))[:16]
        self.place = make_folder(cache_dir() / "images" / f"{self.root.name}-{key}")
        self.index, self.pixels = self.place / INDEX, self.place / PIXELS
        self.canvas: Canvas = (0, 0, 0)
        self.rows = 0  # of the file of pixels; some may belong to no file any more
        self.files: dict[str, Entry] = {}

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

    def begin(self, canvas: Canvas, files: dict[str, Entry]) -> list[str]:
        """Take what is known of the files, by path, and return those that are yet to be decoded.

        All are, if the images get another size, the pixels are damaged, or most of them belong to no file any more.
        """
        live = sum(entry.row >= 0 for entry in files.values())
        size = self.pixels.stat().st_size if self.pixels.exists() else 0
        if canvas != self.canvas or size < self.rows * math.prod(canvas) or live < self.rows // 2:
            self._drop()
            files = {path: entry._replace(row=-1) for path, entry in files.items()}
        self.changed = (canvas, files) != (self.canvas, self.files)
        self.canvas, self.files = canvas, files
        return [path for path, entry in files.items() if entry.row < 0 and not entry.problem]

    def add(self, decoded: Iterable[tuple[np.ndarray, list[tuple[str, Entry]]]]) -> None:
        """Write images, N x H x W x C, as they come; each belongs to the next path whose entry has no problem.

        Raises CnnkitError, and gives the room back, if the disk does not take them.
        """
        self._forget_lost_folders()
        try:
            with self.pixels.open("ab") as file:
                file.truncate(self.rows * math.prod(self.canvas))  # what came after the last index
                try:
                    self._append(file, decoded)
                finally:
                    self._commit(file)
        except (OSError, CnnkitError) as error:
            self._drop()
            reason = error.strerror if isinstance(error, OSError) else error
            raise CnnkitError(f"cannot write {self.pixels}: {reason}; make room, or set $CNNKIT_CACHE") from error

    def save(self) -> None:
        """Keep what `begin` was told."""
        if self.changed:
            self._write_index()

    def images(self) -> Tensor:
        """Return all rows, N x H x W x C, mapped into memory."""
        return torch.from_numpy(np.memmap(self.pixels, np.uint8, "c", shape=(self.rows, *self.canvas)))

    def _append(self, file: BinaryIO, decoded: Iterable[tuple[np.ndarray, list[tuple[str, Entry]]]]) -> None:
        committed = time.monotonic()
        for images, entries in decoded:
            file.write(images.data)
            for path, entry in entries:
                row = -1 if entry.problem else self.rows
                self.rows += not entry.problem  # before it is noted: an interrupt may waste a row, but not share it
                self.files[path] = entry._replace(row=row)
            if time.monotonic() - committed > COMMIT_SECONDS:
                self._commit(file)
                committed = time.monotonic()

    def _commit(self, file: BinaryIO) -> None:
        file.flush()
        os.fsync(file.fileno())
        self._write_index()

    def _write_index(self) -> None:
        content = {"version": VERSION, "canvas": self.canvas, "rows": self.rows, "files": self.files}
        atomic_write(self.index, json.dumps(content))

    def _read(self) -> None:
        self.canvas, self.rows, self.files = (0, 0, 0), 0, {}
        with suppress(OSError, ValueError, KeyError, TypeError):  # none, damaged, or of another version
            content = json.loads(self.index.read_bytes())
            if content["version"] == VERSION:
                files = {path: Entry(*values) for path, values in content["files"].items()}
                self.canvas, self.rows, self.files = tuple(content["canvas"]), content["rows"], files

    def _drop(self) -> None:
        self.index.unlink(missing_ok=True)  # first: no index may speak of rows that are not there
        self.pixels.unlink(missing_ok=True)
        self.canvas, self.rows, self.files = (0, 0, 0), 0, {}

    def _forget_lost_folders(self) -> None:
        """Remove the caches of folders that are not there any more, and note which folder this one is of."""
        for note in self.place.parent.glob(f"*/{FOLDER}"):
            with suppress(OSError):
                if not os.path.exists(note.read_bytes()):  # noqa: PTH110  bytes
                    shutil.rmtree(note.parent, ignore_errors=True)
        atomic_write(self.place / FOLDER, os.fsencode(self.root))
