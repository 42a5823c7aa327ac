"""A folder of pictures packed into tar shards, its files as they are."""

import io
import os
import random
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.files import replace_folder, write_through
from cnnkit.core.parallel import ahead, processors
from cnnkit.core.progress import Counter
from cnnkit.core.text import shell
from cnnkit.data.folder import ImageFolder, Split, scan_folder
from cnnkit.data.images import Header, decode_image, read_file, read_header
from cnnkit.data.reading import BadImage
from cnnkit.data.shard_index import SAMPLE, Shard, ShardIndex, write_index
from cnnkit.data.split import stratified_split
from cnnkit.data.tar import HEADER, read_tar

__all__ = ["pack_folder"]

OVERHEAD = 7 * HEADER // 2  # bytes of a shard for each picture: two headers, a label, padding
GLANCE = (64, 64)  # pixels; a JPEG is read to its end for them, but not decoded in full


class _Picture(NamedTuple):
    path: str
    label: int
    content: bytes = b""
    header: Header | None = None
    problem: str = ""


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
) -> ShardIndex:
    """Write the pictures below `root` into shards of about `megabytes`, at most `images_per_shard`, and their index.

    Each split has shards of its own, over which its pictures are shuffled by `seed`: the same folder gives the same
    bytes. Where there is no train/, the test set is that of `load_folder`. Each picture is decoded to see that it can
    be, each shard is read back, and `output` appears when all is done. `on_bad_image="skip"` leaves out what cannot be
    read; it is among the index's `problems`.

    Raises UsageError for an `output` that is not empty, DataError for a folder that cannot be trained on or a picture
    that cannot be read, CnnkitError if the disk does not take the shards.
    """
    if megabytes < 1 or (images_per_shard is not None and images_per_shard < 1):
        raise UsageError(f"a shard of {megabytes} megabytes and {images_per_shard} images has no room: give it more")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise UsageError(f"{output} is there and not empty: name a new folder")
    if output.resolve().is_relative_to(root.resolve()):
        raise UsageError(f"{output} lies within {root}, where it would be taken for a class: name another folder")
    folder = scan_folder(root)
    if complaints := folder.complaints():
        raise DataError("; ".join(complaints))
    splits = _splits(folder, test_fraction)
    with Counter(f"packing {root}", sum(len(split.paths) for split in splits.values()), progress) as counter:
        packing = _Packing(root, on_bad_image == "skip", workers or processors(), counter)

        def fill(new: Path) -> None:
            for name, split in splits.items():
                for number, part in enumerate(_parts(root, split, megabytes, images_per_shard, seed)):
                    packing.write(new / f"{name}-{number:05}.tar", name, part)
            write_index(new, packing.index(folder.classes, new))

        replace_folder(output, fill)
    return packing.index(folder.classes, output)


class _Packing:
    """Shards being written, and what has been written so far."""

    def __init__(self, root: Path, skip: bool, workers: int, counter: Counter):
        self.root, self.skip, self.workers, self.counter = root, skip, workers, counter
        self.shards: list[Shard] = []
        self.samples = [np.empty(0, SAMPLE)]
        self.headers: set[Header] = set()
        self.problems: list[tuple[str, str]] = []

    def write(self, path: Path, split: str, part: list[tuple[str, int]]) -> None:
        """Write a shard of pictures, by their paths and labels, and read it back."""
        written: list[tuple[int, int, int]] = []
        write_through(path, lambda file: written.extend(self._written(file, part)))
        found = read_tar(str(path))
        if found.damage or list(zip(found.offsets, found.sizes, found.labels, strict=True)) != written:
            raise CnnkitError(f"{path} is not what was written {found.damage}; is the disk sound?")
        self.samples.append(np.array(written, SAMPLE))
        self.shards.append(Shard(path.name, split, len(written), found.bytes))

    def index(self, classes: tuple[str, ...], folder: Path) -> ShardIndex:
        """Return the index of the shards, as files of a folder."""
        sizes = {(header.height, header.width) for header in self.headers}
        return ShardIndex(
            tuple(shard._replace(place=str(folder / shard.place)) for shard in self.shards),
            np.concatenate(self.samples),
            classes,
            sizes.pop() if len(sizes) == 1 else None,
            all(header.grey for header in self.headers),
            tuple(self.problems),
        )

    def _written(self, file: BinaryIO, part: list[tuple[str, int]]) -> Iterator[tuple[int, int, int]]:
        """Write the pictures, and yield where each lies, as SAMPLE."""
        with tarfile.open(fileobj=file, mode="w") as tar:
            pictures = ahead(self._look, part, self.workers, 4 * self.workers)
            for number, picture in enumerate(pictures, self.counter.done):
                self.counter.advance(1)
                if picture.header is None:
                    self._complain(picture)
                    continue
                stem, _, suffix = picture.path.rpartition(".")
                folder, slash, name = stem.rpartition("/")
                key = f"{folder}{slash}{name.replace('.', '_')}-{number:08}"
                offset = _add(tar, f"{key}.{suffix.lower()}", picture.content)
                _add(tar, f"{key}.cls", str(picture.label).encode())
                self.headers.add(picture.header)
                yield offset, len(picture.content), picture.label

    def _look(self, row: tuple[str, int]) -> _Picture:
        try:
            content = read_file(f"{self.root}/{row[0]}")
            decode_image(content, size=GLANCE)
            return _Picture(*row, content, read_header(io.BytesIO(content)))
        except DataError as error:
            return _Picture(*row, problem=str(error))

    def _complain(self, picture: _Picture) -> None:
        if not self.skip:
            raise DataError(
                f"{self.root}/{picture.path}: {picture.problem}; "
                f"look for more with: cnnkit data check {shell(self.root)}, "
                "or leave out what cannot be read with: --on-bad-image skip"
            )
        self.problems.append((picture.path, picture.problem))


def _splits(folder: ImageFolder, test_fraction: float) -> dict[str, Split]:
    if not folder.flat:
        return folder.splits
    paths, labels = folder.splits["train"]
    aside = stratified_split(torch.tensor(labels), test_fraction, seed=0)
    return {
        name: Split(tuple(paths[row] for row in rows), tuple(labels[row] for row in rows))
        for name, rows in zip(("train", "test"), (rows.tolist() for rows in aside), strict=True)
    }


def _parts(
    root: Path, split: Split, megabytes: int, images_per_shard: int | None, seed: int
) -> Iterator[list[tuple[str, int]]]:
    """Yield the pictures of each shard, shuffled, equally many."""
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
        return 0  # whoever reads it will say


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> int:
    """Write a member, and return where its content begins."""
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))
    return tar.offset - -(-len(content) // HEADER) * HEADER
