"""The index of the images in tar shards, written with them, or made once by reading them."""

import re
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urljoin

import numpy as np

from cnnkit.core.cache import cached_file
from cnnkit.core.errors import DataError, about
from cnnkit.core.fetch import fetch
from cnnkit.core.files import atomic_write, sha256
from cnnkit.core.http import checked_url
from cnnkit.core.limits import MAX_SHARDS
from cnnkit.core.places import expanded
from cnnkit.core.text import from_json, is_url, to_json
from cnnkit.data.shards.remote import exists, read_all
from cnnkit.data.shards.tar import read_tars
from cnnkit.data.split_names import SPLITS, split_of

__all__ = ["INDEX", "SAMPLE", "Shard", "ShardIndex", "expand", "is_shards", "open_index", "write_index"]

INDEX, SAMPLES, VERSION = "shards.json", "samples.npy", 1
MAX_BRACES, DIGITS = 16, 18  # in a name; of a number in braces
NPY = 1 << 12  # bytes of an array file's header, at most
SAMPLE = np.dtype([("offset", "<i8"), ("size", "<i4"), ("label", "<i4")])  # of an image's bytes in its shard


class Shard(NamedTuple):
    """A tar file: its path or URL, its split, and its numbers of images and bytes."""

    place: str
    split: str
    images: int
    bytes: int | None  # None if a server does not send it


@dataclass(frozen=True)
class ShardIndex:
    """Shards and their `samples`, an array of SAMPLE in the order of the shards; a row is an index of it.

    `size` is (H, W) if all images have that size, `grey` whether all are; `problems` lists unusable files with reasons.
    """

    shards: tuple[Shard, ...]
    samples: np.ndarray
    classes: tuple[str, ...]
    size: tuple[int, int] | None
    grey: bool
    problems: tuple[tuple[str, str], ...] = ()

    @cached_property
    def starts(self) -> np.ndarray:
        """The first row of each shard, followed by the number of rows."""
        return np.cumsum([0, *(shard.images for shard in self.shards)])

    def shard_of(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of each row's shard."""
        return np.searchsorted(self.starts, rows, "right") - 1

    def rows(self, split: str, without: Container[int] = ()) -> np.ndarray:
        """Return the rows of a split, without those of some shards (by number)."""
        chosen = [shard.split == split and number not in without for number, shard in enumerate(self.shards)]
        return np.flatnonzero(np.repeat(chosen, np.diff(self.starts)))

    def select(self, places: Sequence[str]) -> "ShardIndex":
        """Return the index of some of its shards."""
        numbers = {shard.place: number for number, shard in enumerate(self.shards)}
        chosen = [numbers[place] for place in places]
        samples = [self.samples[self.starts[number] : self.starts[number + 1]] for number in chosen]
        return replace(self, shards=tuple(self.shards[number] for number in chosen), samples=np.concatenate(samples))


def is_shards(spec: str) -> bool:
    """Return whether `spec` names shards: by URL, names of tar files, shards.json, or their folder."""
    if is_url(spec) or spec.endswith((".tar", INDEX)):
        return True
    folder = expanded(spec)
    return folder.is_dir() and ((folder / INDEX).is_file() or next(folder.glob("*.tar"), None) is not None)


def open_index(spec: str, workers: int, progress: bool) -> ShardIndex:
    """Return the index of the shards that `spec` names; if they have none, make and cache it.

    Raises DataError if a shard or the index is missing or corrupt.
    """
    place = spec
    if is_url(spec):
        with about(spec):
            checked_url(spec)
    else:
        place = str(expanded(spec).absolute())
    if not is_url(spec) and Path(place).is_dir():
        if (Path(place) / INDEX).is_file():
            return _read_index(f"{place}/{INDEX}")
        return _made_index(spec, [str(path) for path in sorted(Path(place).glob("*.tar"))], workers, progress)
    if place.endswith(".json"):
        return _read_index(place)
    places = expand(place)
    if not is_url(place) and (missing := [path for path in places if not Path(path).is_file()]):
        raise DataError(f"{missing[0]}: no such shard ({len(missing):,} of {len(places):,} are missing)")
    if places and exists(beside := _beside(places[0], INDEX)):
        index = _read_index(beside)
        if {shard.place for shard in index.shards}.issuperset(places):
            return index.select(places)
    return _made_index(spec, places, workers, progress)


def expand(spec: str) -> list[str]:
    """Return the names that braces expand to; raises DataError for more than MAX_SHARDS.

    >>> expand("x-{08..10}.tar"), expand("{train,val}.tar")
    (['x-08.tar', 'x-09.tar', 'x-10.tar'], ['train.tar', 'val.tar'])
    """
    if spec.count("{") > MAX_BRACES:
        raise DataError(f"{spec}: more than {MAX_BRACES} braces")
    if not (braces := re.search(r"\{([^{}]*)\}", spec)):
        return [spec]
    words = braces[1].split(",")
    if numbers := re.fullmatch(r"(\d+)\.\.(\d+)", braces[1]):
        first, last = numbers.groups()
        if max(len(first), len(last)) > DIGITS or int(last) - int(first) >= MAX_SHARDS:
            raise _too_many(spec)
        words = [f"{number:0{len(first)}}" for number in range(int(first), int(last) + 1)]
    start, end = spec[: braces.start()], spec[braces.end() :]
    names: dict[str, None] = {}
    for word in words:
        names |= dict.fromkeys(expand(start + word + end))
        if len(names) > MAX_SHARDS:
            raise _too_many(spec)
    return list(names)


def _too_many(spec: str) -> DataError:
    return DataError(f"{spec}: the braces expand to more than {MAX_SHARDS:,} shards")


def write_index(folder: Path, index: ShardIndex) -> None:
    """Write the index beside its shards."""
    atomic_write(folder / SAMPLES, lambda file: np.save(file, index.samples))
    content = {
        "version": VERSION,
        "classes": index.classes,
        "size": index.size,
        "grey": index.grey,
        "samples_sha256": sha256(folder / SAMPLES),
        "shards": [
            {"file": Path(shard.place).name, "split": shard.split, "images": shard.images, "bytes": shard.bytes}
            for shard in index.shards
        ],
    }
    atomic_write(folder / INDEX, to_json(content))


def _read_index(place: str) -> ShardIndex:
    try:
        content = from_json(read_all(place))
        if content["version"] != VERSION:
            raise DataError(f"this cnnkit reads indices of version {VERSION}, not {content['version']}")
        shards = tuple(
            Shard(_beside(place, row["file"]), row["split"], row["images"], row["bytes"]) for row in content["shards"]
        )
        samples = _samples(_beside(place, SAMPLES), content["samples_sha256"], sum(shard.images for shard in shards))
        height_width = content["size"] and (content["size"][0], content["size"][1])
        index = ShardIndex(shards, samples, tuple(content["classes"]), height_width, content["grey"])
        if samples.dtype != SAMPLE or len(samples) != index.starts[-1]:
            raise ValueError(f"it lists {index.starts[-1]:,} images, {SAMPLES} {len(samples):,}")
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{place}: not an index of shards, or a corrupt one ({error})") from error
    except (DataError, OSError) as error:
        raise DataError(f"{place}: {error}") from error
    return index


def _beside(place: str, name: str) -> str:
    return urljoin(place, name) if is_url(place) else str(Path(place).parent / name)


def _samples(place: str, digest: str, count: int) -> np.ndarray:
    path = Path(place)
    if is_url(place):
        if not re.fullmatch("[0-9a-f]{64}", digest):
            raise ValueError(f"{digest!r} is not a SHA-256")
        path = fetch([place], cached_file("shards", f"{digest}.npy"), digest, NPY + count * SAMPLE.itemsize)
    elif sha256(path) != digest:
        raise DataError(f"{SAMPLES} beside it belongs to other shards, or is corrupt")
    samples: np.ndarray = np.load(path, mmap_mode="r")
    return samples


def _made_index(spec: str, places: list[str], workers: int, progress: bool) -> ShardIndex:
    if not places:
        raise DataError(f"{spec}: there are no shards (*.tar)")
    contents = read_tars(places, workers, progress)
    labels = {label for content in contents for label in content.labels}
    names = sorted(map(str, labels))
    if all(isinstance(label, int) for label in labels):
        names.sort(key=int)
    number = {name: label for label, name in enumerate(names)}
    shards, problems = [], []
    samples = np.empty(sum(len(content.labels) for content in contents), SAMPLE)
    row = 0
    for place, content in zip(places, contents, strict=True):
        shards.append(Shard(place, _split(place), len(content.labels), content.bytes))
        own = samples[row : row + len(content.labels)]
        own["offset"], own["size"] = content.offsets, content.sizes
        own["label"] = [number[str(label)] for label in content.labels]
        row += len(own)
        problems += [(f"{place}: {name}", reason) for name, reason in content.problems]
        problems += [(place, content.error)] if content.error else []
    sizes = {content.size and (content.size[0], content.size[1]) for content in contents if content.labels}
    return ShardIndex(
        tuple(shards),
        samples,
        tuple(names),
        sizes.pop() if len(sizes) == 1 else None,
        all(content.grey for content in contents),
        tuple(problems),
    )


def _split(place: str) -> str:
    """Return the split in the file's name: imagenet-val-0001.tar."""
    words = re.split(r"[^a-z]+", Path(place).name.lower())
    return next((split for word in words if (split := split_of(word)) in SPLITS), "train")
