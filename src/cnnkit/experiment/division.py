"""Which images a run trains on, chooses by and is tested on: drawn once, kept as split.json, and found again by it.

Of image files it keeps the content's digest beside each name, so that files may be renamed, moved, deleted and added.
What has no files is kept by its rows, or drawn again.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from pydantic import BaseModel, ValidationError, model_validator
from torch import Tensor

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.files import read_bytes
from cnnkit.core.schema import Count, Word, first_error
from cnnkit.core.text import from_json
from cnnkit.data import Dataset, ImageSet
from cnnkit.experiment.config import RunConfig

__all__ = [
    "NEVER",
    "SPLIT",
    "Before",
    "Division",
    "Record",
    "about_missing",
    "content_before",
    "divide",
    "divided_as",
    "has_digests",
    "known_content",
    "own_test",
    "read_record",
    "unused",
]

SPLIT = "split.json"
PARTS = ("train", "validation", "test")
NAMED = 5  # images in a line
BY_NAME = "the run is of an earlier version, which kept no digests: its test images are found by their names"
Record = dict[str, Any]


class _Kept(BaseModel):
    """What split.json holds: each part's names with their digests, or the names or rows that are not trained on."""

    split_seed: Count = 0
    seed: Count = 0  # of earlier versions
    train: dict[Word, Word] | None = None
    validation: dict[Word, Word] | list[Word] | list[Count]
    test: dict[Word, Word] | list[Word] | None = None
    trained_before: list[Word] = []
    chosen_before: list[Word] = []
    train_sha256: Word = ""
    data_sha256: list[Word] = []

    @model_validator(mode="after")
    def _alike(self) -> "_Kept":
        digests = self.train is not None
        if isinstance(self.validation, dict) != digests or (digests and not isinstance(self.test, dict)):
            raise ValueError("train, validation and test must all have digests, or none")
        if not digests and isinstance(self.test, dict):
            raise ValueError("test has digests, and train has none")
        return self


class Before(NamedTuple):
    """The digests of images that weights were trained on, and of those that they were chosen by."""

    trained: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()

    @property
    def used(self) -> frozenset[str]:
        """Both: what is no test image any more."""
        return self.trained | self.chosen


NEVER: Before = Before()


@dataclass(frozen=True)
class Division:
    """The images of a run, and what split.json says of them."""

    training: ImageSet
    validation: ImageSet
    test: ImageSet | None
    record: Record
    remarks: tuple[str, ...] = ()


def divide(dataset: Dataset, config: RunConfig, before: Before = NEVER) -> Division:
    """Draw the validation images of a new run out of its training images, unless the data have some.

    What the weights that it starts from were trained on `before` is not measured by, nor what they were chosen by
    tested on. Raises DataError and UsageError if nothing is left to train on.
    """
    training, validation, rows = dataset.train, dataset.validation, torch.empty(0, dtype=torch.int64)
    if validation is None:
        kept, rows = training.hold_out(config.validation, config.split_seed, before.trained)
        training, validation = training.subset(kept), training.subset(rows)
    if not len(dataset.train):
        raise DataError(f"{config.data} has no images to train on, only others")
    if not len(training):
        raise UsageError(f"validation {config.validation} leaves no image to train on")
    test, remarks = dataset.test, []
    if config.validation and not len(validation):
        why = "the weights were trained on all" if before.trained else "the classes are too small"
        remarks.append(f"no images are set aside to choose the best epoch by: {why}; name some with --validation-data")
    elif dataset.validation and (copies := unused(validation, {*before.trained, *training.digests})[1]):
        remarks.append(f"{len(copies):,} validation images are trained on too: {_some(copies)}")
    if test is None:
        remarks.append("the data have no images for testing: name some with --test-data, or measure by others later")
    elif test.digests:
        test, left_out = unused(test, {*before.used, *training.digests})
        if left_out:
            remarks.append(f"{len(left_out):,} test images are left out, being trained on: {_some(left_out)}")
    record: Record = {"split_seed": config.split_seed}
    if training.digests:
        parts = {"train": training, "validation": validation, "test": test}
        record |= {name: _content(part) for name, part in parts.items()}
        record |= {f"{name}_before": sorted(digests) for name, digests in before._asdict().items() if digests}
        record |= {"left_out": dataset.left_out} if dataset.left_out else {}
    else:
        record["validation"] = list(validation.names) or rows.tolist()
        record |= {"train_sha256": digest} if (digest := training.digest()) else {}
    record |= {"data_sha256": digests} if (digests := _handed_in(dataset)) else {}
    told: Record = json.loads(json.dumps(record))  # as it will be read
    return Division(training, validation, test, told, tuple(remarks))


def divided_as(record: Record, dataset: Dataset, config: RunConfig) -> Division:
    """Find the images of an earlier run again, by what its split.json says.

    Raises DataError if images that it trains on or chooses by are gone, or the data are others.
    """
    pool = dataset.pool
    if pool is None:
        return _drawn_again(record, dataset, config)
    pools = {"train": pool, "validation": pool, "test": pool}
    given = {"validation": config.validation_data, "test": config.test_data}
    pools |= {part: getattr(dataset, part) for part, place in given.items() if place is not None}
    listed = {part: _listed(record, part, pool) for part in PARTS}
    found = {part: _found(pools[part], listed[part]) for part in PARTS}  # what has no names is listed nowhere
    if gone := found["train"][1] + found["validation"][1]:
        raise DataError(
            f"{config.data} lacks {len(gone):,} images that the run trains on or chooses by: {_some(gone)}; put them "
            "back, or begin anew from its weights with --weights"
        )
    training, validation, test = (
        pools[part].subset(found[part][0]) if pools[part].names else pools[part] for part in PARTS
    )
    now = {"train_sha256": training.digest(), "data_sha256": _handed_in(dataset)}
    if any(record.get(name, value) != value for name, value in now.items()):
        raise _other_data(config)
    remarks = tuple(about_missing(found["test"][1]))
    return Division(training, validation, test if len(test) else None, record, remarks)


def own_test(record: Record, pool: ImageSet) -> tuple[ImageSet, list[str]]:
    """Return a run's test images among the images of its data; and what to say of them."""
    listed = _listed(record, "test", pool)
    rows, gone = _found(pool, listed)
    by_name = [] if has_digests(record) else [BY_NAME]
    return pool.subset(rows), [*by_name, *about_missing(gone)]


def unused(images: ImageSet, used: Set[str]) -> tuple[ImageSet, list[str]]:
    """Return the images whose content is not `used`, and the names of the others; all, if they come from no files."""
    if not images.digests:
        return images, []
    fresh = [row for row, digest in enumerate(images.digests) if digest not in used]
    if len(fresh) == len(images):
        return images, []
    seen = set(range(len(images))).difference(fresh)
    return images.subset(torch.tensor(fresh, dtype=torch.int64)), [images.names[row] for row in sorted(seen)]


def has_digests(record: Record) -> bool:
    """Say whether a run knows its images by what they hold."""
    return isinstance(record.get("train"), dict)


def content_before(record: Record | None) -> Before:
    """Return the digests of all images that a run, and those that it started from, were trained on and chosen by."""
    if record is None or not has_digests(record):
        return NEVER
    trained = {*record["train"].values(), *record.get("trained_before", ())}
    return Before(frozenset(trained), frozenset([*record["validation"].values(), *record.get("chosen_before", ())]))


def known_content(record: Record | None) -> frozenset[str] | None:
    """Return the digests of all images of a run; None for one that keeps none."""
    if record is None or not has_digests(record):
        return None
    return frozenset(digest for part in PARTS for digest in record[part].values())


def read_record(path: Path) -> Record | None:
    """Return the split.json of a run folder or a bundle, if there is one; raises CnnkitError if it is corrupt."""
    places = [path / SPLIT, *([path.parent / SPLIT] if path.name == "best" else [])]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        return None
    try:
        record: Record = from_json(read_bytes(place))
        _Kept.model_validate(record)
        return record
    except OSError as error:
        raise CnnkitError(f"{place}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        reason = first_error(error) if isinstance(error, ValidationError) else str(error)
        raise CnnkitError(f"{place}: corrupt ({reason})") from error


def _content(part: ImageSet | None) -> dict[str, str]:
    return dict(zip(part.names, part.digests, strict=True)) if part and part.digests else {}


def _handed_in(dataset: Dataset) -> list[str]:
    """Return the digests of data that only Python had."""
    return [digest for digest in (dataset.sha256, *dataset.parts_sha256) if digest]


def _listed(record: Record, part: str, pool: ImageSet) -> Mapping[str, str | None]:
    """Return the names of a part with their digests; of an earlier version's record, None for each."""
    if has_digests(record):
        return dict(record[part])
    if part == "train":  # all others
        rest = {*record["validation"], *record.get("test", ())}
        return {name: None for name in pool.names if name not in rest}
    return dict.fromkeys(record.get(part, ()))


def _found(pool: ImageSet, listed: Mapping[str, str | None]) -> tuple[Tensor, list[str]]:
    """Return the rows of the images that hold what is listed, in its order, and the names of those that are gone.

    Of several images with one content, the one of the listed name counts, else each counts once.
    """
    at = {name: row for row, name in enumerate(pool.names)}
    same = {name for name, digest in listed.items() if name in at and digest in (None, pool.digests[at[name]])}
    taken = {at[name] for name in same}
    spare: dict[str, list[int]] = defaultdict(list)
    for row, digest in enumerate(pool.digests):
        if row not in taken:
            spare[digest].append(row)
    rows, gone = [], []
    for name, wanted in listed.items():
        if name in same:
            rows.append(at[name])
        elif wanted and spare[wanted]:
            rows.append(spare[wanted].pop(0))
        else:
            gone.append(name)
    return torch.tensor(rows, dtype=torch.int64), gone


def _drawn_again(record: Record, dataset: Dataset, config: RunConfig) -> Division:
    """Draw the images of a run once more, where no files name them; raises DataError if they come out as others."""
    seed = record.get("seed", record.get("split_seed", 0))  # "seed" is what earlier versions wrote
    division = divide(dataset, config.model_copy(update={"split_seed": seed}))
    if {**division.record, "split_seed": seed} != {"split_seed": seed, **_without(record, "seed")}:
        raise _other_data(config)
    return replace(division, record=record)


def _without(record: Record, key: str) -> Record:
    return {name: value for name, value in record.items() if name != key}


def _other_data(config: RunConfig) -> DataError:
    return DataError(f"{config.data} is not the data that the run was split from ({SPLIT})")


def about_missing(names: list[str]) -> list[str]:
    """Return a line that names the test images that are gone, if some are."""
    return [f"{len(names):,} test images of the run are gone, and left out: {_some(names)}"] if names else []


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED:,} more" if len(names) > NAMED else "")
