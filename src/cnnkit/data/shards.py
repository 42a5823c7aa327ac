"""Tar shards of pictures as a data set, for sets beyond one disk, and its batches."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import DataError, UsageError
from cnnkit.data.ahead import processors
from cnnkit.data.batches import Batches, Rows
from cnnkit.data.folder import BadImage
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.remote import is_url
from cnnkit.data.shard_images import ShardImages
from cnnkit.data.shard_index import Shard, ShardIndex, open_index

__all__ = ["ShardBatches", "load_shards", "set_aside"]

NAMED = 5  # problems in an error


def load_shards(
    spec: str,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    progress: bool = True,
) -> Dataset:
    """Open tar shards as sets of images, all of one size, that are read when they are asked for.

    `spec` is a folder of shards, the path or URL of their shards.json, or paths or URLs with braces, such as
    shards/train-{000..015}.tar. The other arguments are `load_folder`'s. Shards without an index are read through once,
    and belong to the split that their names tell, else to the training set.

    Raises DataError for shards that are missing, damaged or cannot be trained on, and for pictures known to be
    unreadable, UsageError for sizes that differ without an `image_size`.
    """
    workers = workers or processors()
    index = open_index(spec, workers, progress)
    lost = {number: reason for number, shard in enumerate(index.shards) if (reason := _lost(shard))}
    problems = index.problems + tuple((index.shards[number].place, reason) for number, reason in lost.items())
    if problems and on_bad_image == "error":
        raise _unusable(spec, problems)
    canvas = _canvas(spec, index, image_size, channels)
    sets = {}
    for split in ("train", "validation", "test"):
        rows = index.rows(split, without=lost)
        images = ShardImages(index, torch.from_numpy(rows), canvas, workers, on_bad_image == "skip")
        sets[split] = ImageSet(images, torch.from_numpy(index.samples["label"][rows]).long())
    _require_classes(spec, index, sets["train"])
    validation, test = (sets[name] if len(sets[name]) else None for name in ("validation", "test"))
    return Dataset(_name(spec), index.classes, sets["train"], test, validation, problems)


class ShardBatches(Batches):
    """Batches of images from shards, shuffled as `ShardImages.order` says.

    If the batch size is a multiple of the number of processes, each reads shards of its own, else all of them.
    Iteration is in the order of the shards; each process takes a stretch of it.
    """

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        start, stop = (self.num_images * rank // self.world for rank in (self.rank, self.rank + 1))
        parts = torch.arange(start, stop).split(-(-self.batch_size // self.world)) if start < stop else ()
        for images, labels, _ in self._read(iter(parts)):
            if len(labels):
                yield self.preprocess(images), labels

    def _order(self, seed: int, epoch: int) -> Tensor:
        return self._shards.order(seed, epoch, self.world)

    @property
    def _shards(self) -> ShardImages:
        assert isinstance(self.images, ShardImages)
        return self.images

    def _read(self, parts: Iterator[Rows]) -> Iterator[tuple[Tensor, Tensor, Rows]]:
        numbers = torch.arange(self.num_images)
        rows = [numbers[part] for part in parts]
        for part, (images, kept) in zip(rows, self._shards.stream(rows), strict=True):
            labels = self.labels[part]
            if not kept.all():
                images, labels = images[kept], labels[kept]
            if self.device.type == "cuda":
                images, labels = images.pin_memory(), labels.pin_memory()  # so that the copy need not be waited for
            yield images.to(self.device, non_blocking=True), labels.to(self.device, non_blocking=True), kept


def set_aside(data: ImageSet, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return sorted rows (training, set aside), as `stratified_split` does, but in stretches that are quickly read.

    The shards are put in an order drawn by `seed`, and what lies at the end of it, a `fraction` of all images, is set
    aside: shards whose images are mixed are taken for granted. Raises UsageError unless 0 <= fraction < 1.
    """
    if not 0 <= fraction < 1:
        raise UsageError(f"the fraction to set aside must be at least 0 and below 1, not {fraction!r}")
    assert isinstance(data.images, ShardImages)
    tape = data.images.tape(torch.Generator().manual_seed(mix_seed(seed)))
    kept = len(tape) - round(len(tape) * fraction)
    return tape[:kept].sort().values, tape[kept:].sort().values


def _lost(shard: Shard) -> str:
    """Say what is wrong with a shard, as far as a glance shows; those on a server are not looked at."""
    if is_url(shard.place):
        return ""
    try:
        size = Path(shard.place).stat().st_size
    except OSError as error:
        return f"cannot be read ({error.strerror})"
    return "" if size == shard.bytes else f"it has {size:,} bytes, and its index says {shard.bytes:,}: cut short?"


def _unusable(spec: str, problems: Sequence[tuple[str, str]]) -> DataError:
    first = ", ".join(f"{name} ({reason})" for name, reason in problems[:NAMED])
    more = f", and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
    return DataError(
        f"{spec}: {len(problems):,} shards or pictures cannot be used: {first}{more}; "
        f"leave them out with: --on-bad-image skip"
    )


def _canvas(
    spec: str, index: ShardIndex, image_size: tuple[int, int] | None, channels: int | None
) -> tuple[int, int, int]:
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3, not {channels}")
    size = index.size
    if size is None or (image_size and (size[0] > image_size[0] or size[1] > image_size[1])):
        size = image_size
    if size is None:
        raise UsageError(f"{spec}: the pictures have several sizes: say which one they shall have with image_size")
    return *size, channels or (1 if index.grey else 3)


def _require_classes(spec: str, index: ShardIndex, train: ImageSet) -> None:
    """Raise DataError for classes that cannot be learnt; shards that are there for a test only are not asked."""
    if len(index.classes) < 2:
        raise DataError(f"{spec} has the classes {index.classes}: a classifier needs two or more")
    counts = torch.bincount(train.labels, minlength=len(index.classes)).tolist()
    if len(train) and 0 in counts:
        raise DataError(f"{spec}: no picture of class {index.classes[counts.index(0)]!r} is there to train on")


def _name(spec: str) -> str:
    """Return the name of the shards' folder."""
    place = Path(spec) if is_url(spec) else Path(spec).expanduser().absolute()
    return place.parent.name if place.suffix in (".tar", ".json") else place.name
