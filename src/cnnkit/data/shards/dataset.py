"""Tar shards of images as a data set, for sets larger than a disk."""

from pathlib import Path
from urllib.parse import urlsplit

import torch

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.parallel import processors
from cnnkit.core.places import expanded
from cnnkit.core.text import is_url, some
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.reading import BadImage
from cnnkit.data.shards.images import ShardImages
from cnnkit.data.shards.index import Shard, ShardIndex, open_index

__all__ = ["load_shards"]

NAMED = 5  # problems in an error


def load_shards(
    spec: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    progress: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Open tar shards as sets of images of one size, which are read on access.

    `spec` is a folder of shards, the path or URL of their shards.json, or paths or URLs with braces, such as
    shards/train-{000..015}.tar. The other arguments are `load_folder`'s. Shards without an index are read once to make
    one, and belong to the split in their names, else to the training set.

    Raises DataError for shards that are missing, corrupt or cannot be trained on, and for images known to be
    unreadable, UsageError for several sizes without an `image_size`.
    """
    workers = workers or processors()
    index = open_index(spec, workers, progress)
    lost = {number: reason for number, shard in enumerate(index.shards) if (reason := _lost(shard))}
    problems = index.problems + tuple((index.shards[number].place, reason) for number, reason in lost.items())
    if problems and on_bad_image == "error":
        names = some([f"{name} ({reason})" for name, reason in problems], NAMED)
        raise DataError(
            f"{spec}: {len(problems):,} shards or images cannot be used: {names}; skip them with: --on-bad-image skip"
        )
    canvas = _canvas(spec, index, image_size, channels)
    sets = {}
    for split in ("train", "validation", "test"):
        rows = index.rows(split, without=lost)
        skip = on_bad_image == "skip"
        images = ShardImages(torch.from_numpy(rows), canvas, workers, skip, index, max_pixels=max_pixels)
        sets[split] = ImageSet(images, torch.from_numpy(index.samples["label"][rows]).long())
    _require_classes(spec, index, sets["train"])
    validation, test = (sets[name] if len(sets[name]) else None for name in ("validation", "test"))
    return Dataset(_name(spec), index.classes, sets["train"], test, validation, problems)


def _lost(shard: Shard) -> str:
    """Return why a local shard cannot be used, by its size; "" if it can; remote shards are not checked."""
    if is_url(shard.place):
        return ""
    try:
        size = Path(shard.place).stat().st_size
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if size == shard.bytes else f"it has {size:,} bytes, but {shard.bytes:,} in its index: truncated?"


def _canvas(
    spec: str, index: ShardIndex, image_size: tuple[int, int] | None, channels: int | None
) -> tuple[int, int, int]:
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3, not {channels}")
    size = index.size
    if size is None or (image_size and (size[0] > image_size[0] or size[1] > image_size[1])):
        size = image_size
    if size is None:
        raise UsageError(f"{spec}: the images have several sizes: set a common one with image_size")
    return *size, channels or (1 if index.grey else 3)


def _require_classes(spec: str, index: ShardIndex, train: ImageSet) -> None:
    """Raise DataError for classes that cannot be trained on; shards for evaluation only are not checked."""
    if len(index.classes) < 2:
        raise DataError(f"{spec} has the classes {index.classes}: a classifier needs at least two")
    counts = torch.bincount(train.labels, minlength=len(index.classes)).tolist()
    if len(train) and 0 in counts:
        raise DataError(f"{spec}: class {index.classes[counts.index(0)]!r} has no training images")


def _name(spec: str) -> str:
    """Return the name of the shards' folder; of a URL without folders, the host."""
    if is_url(spec):
        url = urlsplit(spec)  # the user, the password and the query are not part of the name
        place = Path(url.hostname or "", url.path.lstrip("/"))
    else:
        place = expanded(spec).absolute()
    return place.parent.name if place.suffix in (".tar", ".json") else place.name
