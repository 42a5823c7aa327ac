"""The image files of a folder at one size: decoded once into a mapped file, or on each access."""

import math
import os
import shutil
import statistics
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.files import require_regular
from cnnkit.core.limits import MAX_IMAGE_BYTES
from cnnkit.core.parallel import ahead, chunks, processors
from cnnkit.core.progress import Counter
from cnnkit.data.files import await_tick, read_with_stamp, stamp
from cnnkit.data.folder.cache import Canvas, Decoded, Entry, PixelCache, digest
from cnnkit.data.folder.stream import Streamed
from cnnkit.data.images.decode import decode_image, decode_with_thumb, read_header, thumbnail
from cnnkit.data.images.formats import TooManyPixelsError
from cnnkit.data.imageset import FileFacts
from cnnkit.data.reading import Reading
from cnnkit.data.storage import ALL, Rows, Selection

__all__ = ["Mapped", "Opened", "open_images"]

CHUNK, CHUNK_BYTES = 64, 1 << 24  # what a thread decodes at a time
ATTEMPTS = 3  # at reading a file that changes
TINY = 4096  # bytes; one thread decodes such files, as contention for Python's lock halves the speed of two


@dataclass(frozen=True)
class Mapped(Selection):
    """Rows of a memory-mapped file of uint8 images N x H x W x C; reading copies them."""

    pixels: Tensor
    in_memory = True

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        """Return the images of these rows."""
        return self.pixels[self.rows[rows]].permute(0, 3, 1, 2), ALL


@dataclass(frozen=True)
class Opened:
    """The readable image files of a folder, in the requested order, and the `problems` of the others.

    `digests` are checksums of their contents, in hex, the same on every machine; `facts` are read from the cache.
    """

    paths: tuple[str, ...]
    images: Mapped | Streamed
    digests: tuple[str, ...]
    problems: dict[str, str]
    facts: FileFacts


def open_images(root: Path, paths: Sequence[str], options: Reading, table: str = "") -> Opened:
    """Open the image files below a folder; those that are new to the cache, or have changed, are decoded once.

    If all have one size that fits into `image_size` (H, W) they keep it, else they are fitted into `image_size` with
    padding; `channels` defaults to one if all are grey, else three. The decoded images are cached if that takes at most
    `budget` bytes and half of the free disk, else decoded on each access; `on_bad_image` then says whether an image
    that has become unreadable is skipped. With `only`, images with other digests are ignored. Images listed in a
    `table` have a cache of their own. Raises UsageError if `image_size` is missing, CnnkitError if the disk is full.
    """
    progress, skip = options.progress, options.on_bad_image == "skip"
    workers = options.workers or processors()
    cache = PixelCache(root, table)
    with cache.locked(progress):
        files = dict(_inspect_all(root, paths, _Known(cache.files), workers, progress, options.only is not None))
        wanted = [path for path in paths if options.only is None or files[path].digest in options.only]
        canvas = _canvas(root, [files[path] for path in wanted], options.image_size, options.channels)
        fits = len(wanted) * math.prod(canvas) <= options.budget
        files = cache.sound(files, wanted, canvas if fits else None, workers)
        if statistics.median(entry.size for entry in files.values()) <= TINY:
            workers = 1
        sound = [path for path in wanted if not files[path].problem]
        lacking = sum(files[path].row < 0 for path in sound) if canvas == cache.canvas else len(sound)
        free = shutil.disk_usage(cache.place).free
        keep = fits and lacking * math.prod(canvas) <= free // 2
        cache.begin(canvas if keep else cache.canvas, files)
        if missing := [path for path in sound if cache.files[path].lacks(keep)]:
            decoded = _decoded(root, missing, cache.files, canvas if keep else None, workers, options)
            with closing(decoded):
                cache.add(decoded)
        cache.save()
        good = {path: entry for path in wanted if not (entry := cache.files[path]).problem}
        problems = {path: entry.problem for path in wanted if (entry := cache.files[path]).problem}
        images: Mapped | Streamed = Streamed(
            torch.arange(len(good)), canvas, workers, skip, root, tuple(good), max_pixels=options.max_pixels
        )
        if keep and good:
            pixels = torch.from_numpy(cache.pixels.read())
            images = Mapped(torch.tensor([entry.row for entry in good.values()]), canvas, pixels)
        thumb_rows = np.array([entry.thumb for entry in good.values()], np.int64)
        digests = tuple(entry.digest for entry in good.values())
        sizes = torch.tensor([(entry.height, entry.width) for entry in good.values()], dtype=torch.int32).view(-1, 2)
        facts = FileFacts(sizes, cache.thumbs.read(), thumb_rows)
        return Opened(tuple(good), images, digests, problems, facts)


def _canvas(root: Path, entries: Sequence[Entry], image_size: tuple[int, int] | None, channels: int | None) -> Canvas:
    entries = [entry for entry in entries if not entry.problem]
    if not entries:
        return 0, 0, 0
    sizes = {(entry.height, entry.width) for entry in entries}
    if len(sizes) == 1:
        height, width = sizes.pop()
        if image_size is None or (height <= image_size[0] and width <= image_size[1]):
            image_size = height, width
    if image_size is None:
        raise UsageError(f"{root}: the images have {len(sizes)} sizes: set a common one with image_size")
    return *image_size, channels or (1 if all(entry.grey for entry in entries) else 3)


class _Known:
    """The entries of the cache by path, and by content, for files that were renamed or copied."""

    def __init__(self, files: dict[str, Entry]):
        self.files = files

    @cached_property
    def contents(self) -> dict[int, dict[str, Entry]]:
        """The entries by size in bytes and digest."""
        found: dict[int, dict[str, Entry]] = {}
        for entry in self.files.values():
            if entry.digest:
                found.setdefault(entry.size, {})[entry.digest] = entry
        return found


def _inspect_all(
    root: Path, paths: Sequence[str], known: _Known, workers: int, progress: bool, digested: bool
) -> Iterator[tuple[str, Entry]]:
    """Yield the entry of each file, with its digest if requested; only new and changed files are opened."""

    def inspect(chunk: Sequence[str]) -> list[tuple[str, Entry]]:
        return [(path, _inspect(os.path.join(root, path), path, known, digested)) for path in chunk]  # noqa: PTH118  a Path takes longer

    with Counter(f"inspecting {root}", len(paths), progress) as counter:
        for entries in ahead(inspect, chunks(paths, CHUNK), workers, 2 * workers):
            yield from entries
            counter.advance(len(entries))


def _inspect(place: str, path: str, known: _Known, digested: bool) -> Entry:
    entry = Entry()
    try:
        status = os.stat(place)  # noqa: PTH116  a Path for each of a million files takes longer
        entry = Entry(*stamp(status))
        before = known.files.get(path)
        if before and before[:4] == entry[:4] and not before.problem and (before.digest or not digested):
            return before
        require_regular(status, place)
        if status.st_size > MAX_IMAGE_BYTES:
            raise DataError(f"refused: it has {status.st_size:,} bytes")
        await_tick(entry[:4])
        with open(place, "rb") as file:  # noqa: PTH123  as above
            alike = known.contents.get(entry.size, {})
            found = digest(file.read()) if alike or digested else ""
            if same := alike.get(found):
                return same.stamped(entry[:4])
            file.seek(0)
            return Entry(*entry[:4], *read_header(file), found)
    except OSError as error:
        return Entry(problem=f"cannot be read ({error.strerror})")
    except DataError as error:
        return entry._replace(problem=str(error))


def _decoded(
    root: Path, paths: Sequence[str], files: dict[str, Entry], canvas: Canvas | None, workers: int, options: Reading
) -> Generator[list[Decoded], None, None]:
    """Yield the decoded files; without a canvas, thumbnails only."""

    def decode(chunk: Sequence[str]) -> list[Decoded]:
        return [_decode(root, path, files[path], canvas, options.max_pixels) for path in chunk]

    at_a_time = max(1, min(CHUNK, CHUNK_BYTES // math.prod(canvas or (1,))))
    with Counter(f"decoding {root}", len(paths), options.progress) as counter:
        for found in ahead(decode, chunks(paths, at_a_time), workers, 2 * workers):
            yield found
            counter.advance(len(found))


def _decode(root: Path, path: str, entry: Entry, canvas: Canvas | None, max_pixels: int) -> Decoded:
    pixels = thumb = None
    try:
        content, entry = _settled(os.path.join(root, path), entry)  # noqa: PTH118  a Path takes longer
        entry = entry._replace(digest=digest(content))
        if canvas is None:
            thumb = thumbnail(content, max_pixels)
        elif entry.thumb < 0:
            pixels, thumb = decode_with_thumb(content, canvas[2], canvas[:2], max_pixels=max_pixels)
        else:
            pixels = decode_image(content, canvas[2], canvas[:2], max_pixels=max_pixels)
    except TooManyPixelsError as error:  # without a digest, as another limit may allow this content
        entry = entry._replace(problem=str(error), digest="")
    except DataError as error:
        entry = entry._replace(problem=str(error))
    return Decoded(path, entry, pixels, thumb)


def _settled(place: str, entry: Entry) -> tuple[bytes, Entry]:
    """Return the content of a file and its entry, which is renewed if the file has changed since it was inspected."""
    for _ in range(ATTEMPTS):
        content, found = read_with_stamp(place)
        if found == entry[:4]:
            return content, entry if entry.height else Entry(*found, *read_header(BytesIO(content)))
        await_tick(found)
        entry = Entry(*found)
    raise DataError("the file changes while it is read")
