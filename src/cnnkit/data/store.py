"""The pictures of a folder as images of one size: decoded once into a mapped file, or whenever they are asked for."""

import math
import os
import shutil
import stat
import statistics
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.parallel import ahead, chunks, processors
from cnnkit.core.progress import Counter
from cnnkit.data.cache import Canvas, Entry, PixelCache, digest
from cnnkit.data.images import decode_image, read_file, read_header
from cnnkit.data.reading import Reading
from cnnkit.data.storage import ALL, Rows, Storage
from cnnkit.data.stream import Streamed

__all__ = ["Mapped", "open_images"]

CHUNK, CHUNK_BYTES = 64, 1 << 24  # what a thread decodes at a time
LARGEST = 1 << 30  # bytes of a file
TINY = 4096  # bytes; such files are decoded by one thread: Python's lock passed between two halves the speed


@dataclass(frozen=True)
class Mapped(Storage):
    """Rows of a file of uint8 images N x H x W x C that is mapped into memory: a copy is made of what is asked for."""

    pixels: Tensor
    rows: Tensor
    in_memory = True

    @property
    def shape(self) -> tuple[int, int, int, int]:
        """N, C, H, W."""
        height, width, channels = self.pixels.shape[1:]
        return len(self.rows), channels, height, width

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the images of these rows."""
        return self.pixels[self.rows[rows]].permute(0, 3, 1, 2), ALL

    def subset(self, rows: Tensor) -> "Mapped":
        """Return these rows as images of their own."""
        return Mapped(self.pixels, self.rows[rows])


def open_images(
    root: Path, paths: Sequence[str], options: Reading, table: str = ""
) -> tuple[Mapped | Streamed, dict[str, str]]:
    """Return the files that can be read as images, in the order of `paths`, and why the others cannot.

    If all have one size that fits into `image_size` (H, W) they are kept at it, else fitted into `image_size` with
    padding; with one channel if all are grey, else three, unless `channels` says. They are kept decoded if that takes
    at most `budget` bytes and half of the free disk; else `on_bad_image` says whether an image that turns out to be
    unreadable is left out of its batch. What a `table` lists has a cache of its own. Raises UsageError if `image_size`
    is missing, CnnkitError if the disk does not take them.
    """
    image_size, channels, budget, progress = options.image_size, options.channels, options.budget, options.progress
    skip = options.on_bad_image == "skip"
    workers = options.workers or processors()
    cache = PixelCache(root, table)
    with cache.locked(progress):
        files = dict(_looked_at(root, paths, cache.files, workers, progress))
        canvas = _canvas(root, files, image_size, channels)
        if statistics.median(entry.size for entry in files.values()) <= TINY:
            workers = 1
        missing = cache.begin(canvas, files)
        free = shutil.disk_usage(cache.place).free
        keep = len(files) * math.prod(canvas) <= budget and len(missing) * math.prod(canvas) <= free // 2
        if keep and missing:
            with closing(_decoded(root, missing, cache.files, canvas, workers, progress)) as decoded:
                cache.add(decoded)
        else:
            cache.save()
        good = [path for path in paths if not cache.files[path].problem]
        problems = {path: entry.problem for path, entry in cache.files.items() if entry.problem}
        if keep and good:
            return Mapped(cache.images(), torch.tensor([cache.files[path].row for path in good])), problems
    return Streamed(root, good, canvas, workers, skip, torch.arange(len(good))), problems


def _canvas(root: Path, files: dict[str, Entry], image_size: tuple[int, int] | None, channels: int | None) -> Canvas:
    entries = [entry for entry in files.values() if not entry.problem]
    if not entries:
        return 0, 0, 0
    sizes = {(entry.height, entry.width) for entry in entries}
    if len(sizes) == 1:
        height, width = sizes.pop()
        if image_size is None or (height <= image_size[0] and width <= image_size[1]):
            image_size = height, width
    if image_size is None:
        raise UsageError(f"{root}: the images have {len(sizes)} sizes: say which one they shall have with image_size")
    return *image_size, channels or (1 if all(entry.grey for entry in entries) else 3)


def _looked_at(
    root: Path, paths: Sequence[str], known: dict[str, Entry], workers: int, progress: bool
) -> Iterator[tuple[str, Entry]]:
    """Yield what is known of each file; only those that are new or have changed are opened."""

    def look(chunk: Sequence[str]) -> list[tuple[str, Entry]]:
        return [(path, _look(os.path.join(root, path), known.get(path))) for path in chunk]  # noqa: PTH118  a Path takes longer

    with Counter(f"looking at {root}", len(paths), progress) as counter:
        for entries in ahead(look, chunks(paths, CHUNK), workers, 2 * workers):
            yield from entries
            counter.advance(len(entries))


def _look(path: str, known: Entry | None) -> Entry:
    entry = Entry()
    try:
        found = os.stat(path)  # noqa: PTH116  a Path for each of a million files takes longer
        entry = Entry(found.st_size, found.st_mtime_ns)
        if known and known[:2] == entry[:2] and not known.problem:
            return known
        if not stat.S_ISREG(found.st_mode):
            raise DataError("not a file")
        if found.st_size > LARGEST:
            raise DataError(f"refused: it has {found.st_size:,} bytes")
        with open(path, "rb") as file:  # noqa: PTH123
            if known and known.digest and known.size == entry.size and digest(file.read()) == known.digest:
                return known._replace(modified=entry.modified)
            file.seek(0)
            return Entry(found.st_size, found.st_mtime_ns, *read_header(file))
    except OSError as error:
        return Entry(problem=f"cannot be read ({error.strerror})")
    except DataError as error:
        return entry._replace(problem=str(error))


def _decoded(
    root: Path, paths: Sequence[str], files: dict[str, Entry], canvas: Canvas, workers: int, progress: bool
) -> Generator[tuple[np.ndarray, list[tuple[str, Entry]]], None, None]:
    """Yield the images of some files, and what is then known of these."""
    height, width, channels = canvas

    def decode(chunk: Sequence[str]) -> tuple[np.ndarray, list[tuple[str, Entry]]]:
        images, entries, count = np.empty((len(chunk), *canvas), np.uint8), [], 0
        for path in chunk:
            entry = files[path]
            try:
                content = read_file(os.path.join(root, path))  # noqa: PTH118  a Path takes longer
                entry = entry._replace(digest=digest(content))
                images[count] = decode_image(content, channels, (height, width))
                count += 1
            except DataError as error:
                entry = entry._replace(problem=str(error))
            entries.append((path, entry))
        return images[:count], entries

    at_a_time = max(1, min(CHUNK, CHUNK_BYTES // math.prod(canvas)))
    with Counter(f"decoding {root}", len(paths), progress) as counter:
        for images, entries in ahead(decode, chunks(paths, at_a_time), workers, 2 * workers):
            yield images, entries
            counter.advance(len(entries))
