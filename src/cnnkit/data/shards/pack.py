"""Packing a folder of images, its files unchanged, into tar shards."""

import io
import logging
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np

from cnnkit.core.errors import CnnkitError, UsageError, about
from cnnkit.core.files import replace_folder, write_through
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_SHARD_MEGABYTES
from cnnkit.core.parallel import ahead, processors
from cnnkit.core.progress import Counter
from cnnkit.core.shape import count
from cnnkit.data.files import read_file
from cnnkit.data.folder.dataset import Split, open_folder, scan_folder
from cnnkit.data.images.decode import Header, read_header
from cnnkit.data.reading import BadImage, Reading
from cnnkit.data.shards.index import SAMPLE, Shard, ShardIndex, write_index
from cnnkit.data.shards.tar import HEADER, read_tar

__all__ = ["pack_folder"]

log = logging.getLogger(__name__)

OVERHEAD = 7 * HEADER // 2  # bytes of a shard for each image: two headers, a label, padding
TRIAL_SIZE = (64, 64)  # pixels, at which a JPEG is read to its end, but not decoded in full


class _Image(NamedTuple):
    path: str
    label: int
    content: bytes
    header: Header


def pack_folder(
    root: Path,
    output: Path,
    *,
    megabytes: int = 100,
    images_per_shard: int | None = None,
    test_fraction: float = 0.1,
    seed: int = 0,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    progress: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> ShardIndex:
    """Write the images below `root` into shards of about `megabytes`, at most `images_per_shard`, and their index.

    Each split has its own shards, over which its images are shuffled by `seed`: the same folder results in the same
    bytes. Without a test/, the test set is that of `load_folder`. Each image is decoded as a check, each shard is read
    back, and `output` is created atomically. `on_bad_image="skip"` skips unreadable images, which are then listed in
    the index's `problems`.

    Raises UsageError for sizes out of range and an `output` that is not empty, DataError for a folder that cannot be
    trained on or an unreadable image, CnnkitError if the shards cannot be written.
    """
    count(megabytes, "megabytes", MAX_SHARD_MEGABYTES)
    if images_per_shard is not None:
        count(images_per_shard, "images_per_shard")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} exists and is not empty: name a new folder")
    if output.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{output} is inside {root}, where it would be read as a class: name another folder")
    options = Reading(
        image_size=TRIAL_SIZE,
        on_bad_image=on_bad_image,
        workers=workers,
        budget=0,
        test_fraction=test_fraction,
        progress=progress,
        max_pixels=max_pixels,
    )
    dataset = open_folder(scan_folder(root), options)
    for remark in dataset.remarks:
        log.warning("%s", remark)
    parts = {"train": dataset.train, "validation": dataset.validation, "test": dataset.test}
    splits = {name: Split(tuple(part.names), tuple(part.labels.tolist())) for name, part in parts.items() if part}
    with Counter(f"packing {root}", sum(len(split.paths) for split in splits.values()), progress) as counter:
        packing = _Packing(root, workers or processors(), counter, dataset.skipped)

        def fill(new: Path) -> None:
            for name, split in splits.items():
                for number, part in enumerate(_parts(root, split, megabytes, images_per_shard, seed)):
                    packing.write(new / f"{name}-{number:05}.tar", name, part)
            write_index(new, packing.index(dataset.classes, new))

        replace_folder(Path(os.path.realpath(output)), fill)
    return packing.index(dataset.classes, output)


class _Packing:
    """The state of packing: the shards written so far."""

    def __init__(self, root: Path, workers: int, counter: Counter, problems: tuple[tuple[str, str], ...]):
        self.root, self.workers, self.counter, self.problems = root, workers, counter, problems
        self.shards: list[Shard] = []
        self.samples = [np.empty(0, SAMPLE)]
        self.headers: set[Header] = set()

    def write(self, path: Path, split: str, part: list[tuple[str, int]]) -> None:
        """Write a shard of images, by their paths and labels, and read it back."""
        written: list[tuple[int, int, int]] = []
        write_through(path, lambda file: written.extend(self._written(file, part)))
        found = read_tar(str(path))
        if found.error or list(zip(found.offsets, found.sizes, found.labels, strict=True)) != written:
            raise CnnkitError(
                f"{path} was not written correctly ({found.error or 'its contents differ'}); check the disk"
            )
        self.samples.append(np.array(written, SAMPLE))
        self.shards.append(Shard(path.name, split, len(written), found.bytes))

    def index(self, classes: tuple[str, ...], folder: Path) -> ShardIndex:
        """Return the index of the shards in a folder."""
        sizes = {(header.height, header.width) for header in self.headers}
        return ShardIndex(
            tuple(shard._replace(place=str(folder / shard.place)) for shard in self.shards),
            np.concatenate(self.samples),
            classes,
            sizes.pop() if len(sizes) == 1 else None,
            all(header.grey for header in self.headers),
            self.problems,
        )

    def _written(self, file: BinaryIO, part: list[tuple[str, int]]) -> Iterator[tuple[int, int, int]]:
        """Write the images, and yield the place of each, as SAMPLE."""
        with tarfile.open(fileobj=file, mode="w") as tar:
            images = ahead(self._read, part, self.workers, 4 * self.workers)
            for number, image in enumerate(images, self.counter.done):
                self.counter.advance(1)
                stem, _, suffix = image.path.rpartition(".")
                folder, slash, name = stem.rpartition("/")
                key = f"{folder}{slash}{name.replace('.', '_')}-{number:08}"
                offset = _add(tar, f"{key}.{suffix.lower()}", image.content)
                _add(tar, f"{key}.cls", str(image.label).encode())
                self.headers.add(image.header)
                yield offset, len(image.content), image.label

    def _read(self, row: tuple[str, int]) -> _Image:
        path = f"{self.root}/{row[0]}"
        with about(path):
            content = read_file(path)
            return _Image(*row, content, read_header(io.BytesIO(content)))


def _parts(
    root: Path, split: Split, megabytes: int, images_per_shard: int | None, seed: int
) -> Iterator[list[tuple[str, int]]]:
    """Yield the images of each shard, shuffled, in equal numbers."""
    rows = list(zip(split.paths, split.labels, strict=True))
    random.Random(seed).shuffle(rows)
    total = sum(_bytes(f"{root}/{path}") + OVERHEAD for path in split.paths)
    count = max(-(-total // (megabytes * 10**6)), -(-len(rows) // (images_per_shard or len(rows) or 1)))
    for number in range(count):
        yield rows[len(rows) * number // count : len(rows) * (number + 1) // count]


def _bytes(path: str) -> int:
    try:
        return os.stat(path).st_size  # noqa: PTH116  a Path for each of a million files takes longer
    except OSError:
        return 0  # reading it raises the error


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Write a member, and return the offset of its content."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return tar.offset - -(-len(content) // HEADER) * HEADER
