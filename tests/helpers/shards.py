"""Images that hold a number, in folders, in shards and on a server."""

import io
import tarfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from cnnkit.data import Batches, Dataset, Preprocess
from cnnkit.data.shards.dataset import load_shards
from helpers.images import encoded

RAW = Preprocess((6, 6), std=(1 / 255,))
COUNT = {"train": 203, "val": 31, "test": 17}
FIRST = {"train": 0, "val": 300, "test": 400}


def picture(number: int) -> bytes:
    """A grey PNG of 6 x 6 that holds a number."""
    pixels = np.full((6, 6), 7, np.uint8)
    pixels[0, :2] = divmod(number, 256)
    return encoded("PNG", Image.fromarray(pixels))


def png(height: int, width: int) -> bytes:
    return encoded("PNG", Image.new("L", (width, height)))


def numbers(x: Tensor) -> list[int]:
    high, low = x[:, 0, 0, :2].round().int().unbind(1)
    return (high * 256 + low).tolist()


def label(number: int) -> int:
    return number % 3


def write_folder(root: Path) -> Path:
    for split, count in COUNT.items():
        for number in range(FIRST[split], FIRST[split] + count):
            path = root / split / "abc"[label(number)] / f"n.{number}.PNG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    return root


def load(spec: object, **options: object) -> Dataset:
    return load_shards(str(spec), progress=False, workers=2, **options)


def batches(data: Dataset, batch_size: int = 16, rank: int = 0, world: int = 1, **options: object) -> Batches:
    return Batches(data.train, batch_size, RAW, **{"seed": 5, "shard": (rank, world)} | options)


def seen(parts: Iterator[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """The numbers of the pictures in each batch; their labels must be right."""
    result = []
    for x, y in parts:
        result.append(numbers(x))
        assert y.tolist() == [label(number) for number in result[-1]]
    return result


def flat(parts: Sequence[Sequence[int]]) -> list[int]:
    return [number for part in parts for number in part]


def tar_file(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int, word: Callable[[int], str] = lambda number: str(label(number))) -> dict[str, bytes]:
    return {
        name: content
        for number in range(first, first + count)
        for name, content in ((f"{number:05}.png", picture(number)), (f"{number:05}.cls", word(number).encode()))
    }


def spoil(path: Path, number: int) -> str:
    """Overwrite a picture within a shard, and return its name."""
    with tarfile.open(path) as shard:
        member = shard.getmembers()[2 * number]
    with path.open("r+b") as file:
        file.seek(member.offset_data + 20)
        file.write(b"\xff" * 30)
    return member.name
