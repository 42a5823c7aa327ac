"""Which images a run trains on, chooses by and is tested on: drawn once, kept as split.json, and found again by it.

Of image files it keeps the content's digest beside each name, so that files may be renamed, moved, deleted and added.
What has no files is kept by its rows, or drawn again.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.text import some
from cnnkit.data import Dataset, ImageSet
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.record import NEVER, PARTS, SPLIT, Before, Record, content_before, has_digests

__all__ = ["Division", "about_missing", "divide", "divided_as", "own_test", "unused"]

NAMED = 5  # images in a line
BY_NAME = "the run is of an earlier version, which kept no digests: its test images are found by their names"
PUT_BACK = (
    "put them back, begin anew from its weights with --weights, or go on with what is there: --allow-changed-data"
)
Found = tuple[Tensor, list[str]]  # rows, and the names of what is gone


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
        remarks.append(f"{len(copies):,} validation images are trained on too: {some(copies, NAMED)}")
    if test is None:
        remarks.append("the data have no images for testing: name some with --test-data, or measure by others later")
    elif test.digests:
        test, left_out = unused(test, {*before.used, *training.digests})
        if left_out:
            remarks.append(f"{len(left_out):,} test images are left out, being trained on: {some(left_out, NAMED)}")
    record: Record = {"split_seed": config.split_seed}
    if training.digests:
        parts = {"train": training, "validation": validation, "test": test}
        record |= {name: _content(part) for name, part in parts.items()}
        record |= {f"{name}_before": sorted(digests) for name, digests in before._asdict().items() if digests}
        record |= {"left_out": dataset.left_out} if dataset.left_out else {}
        record["labels"] = _labels(parts)
    else:
        record["validation"] = list(validation.names) or rows.tolist()
        record |= {} if dataset.sha256 else {"train_sha256": training.digest()}
    record |= {"data_sha256": digests} if (digests := _handed_in(dataset)) else {}
    told: Record = json.loads(json.dumps(record))  # as it will be read
    return Division(training, validation, test, told, tuple(remarks))


def divided_as(record: Record, dataset: Dataset, config: RunConfig, allow_changed: bool = False) -> Division:
    """Find the images of an earlier run again, by what its split.json says.

    Raises DataError if images that it trains on or chooses by are gone or have another class, or the data are others.
    With `allow_changed` the run takes what is there: images that are gone are left out, others under their names are
    taken instead, and the record is a new one, in which both contents count as trained on.
    """
    pool = dataset.pool
    if pool is None:
        return _drawn_again(record, dataset, config, allow_changed)
    pools = {"train": pool, "validation": pool, "test": pool}
    given = {"validation": config.validation_data, "test": config.test_data}
    pools |= {part: getattr(dataset, part) for part, place in given.items() if place is not None}
    listed = {part: _listed(record, part, pool) for part in PARTS}
    found = {part: _found(pools[part], listed[part]) for part in PARTS}  # what has no names is listed nowhere
    gone = found["train"][1] + found["validation"][1]
    others = _of_other_classes(record, pools, found)
    changes = [
        f"images that the run trains on or chooses by are {what} ({len(names):,}): {some(names, NAMED)}"
        for what, names in (("gone or replaced", gone), ("of another class now", others))
        if names
    ]
    handed = _handed_in(dataset)
    if record.get("data_sha256", handed) != handed:
        changes.append("what was handed in from Python is not what the run was split from")
    if changes and not allow_changed:
        raise DataError(f"{config.data}: {'; '.join(changes)}; {PUT_BACK}")
    if gone:
        tested = {*listed["test"].values()}
        found |= {part: _with_replaced(pools[part], listed[part], tested) for part in ("train", "validation")}
    training, validation, test = (
        pools[part].subset(found[part][0]) if pools[part].names else pools[part] for part in PARTS
    )
    remarks = (*changes, *about_missing(found["test"][1]))
    if changes:
        record = _amended(record, training, validation, handed)
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


def _found(pool: ImageSet, listed: Mapping[str, str | None]) -> Found:
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


def _with_replaced(pool: ImageSet, listed: Mapping[str, str | None], tested: Set[str | None]) -> Found:
    """Return what `_found` does, and other images under the names of those that are gone, if they are not `tested`."""
    rows, gone = _found(pool, listed)
    taken = set(rows.tolist())
    at = {name: row for row, name in enumerate(pool.names)}
    new = [at[name] for name in gone if name in at and at[name] not in taken and pool.digests[at[name]] not in tested]
    return torch.cat([rows, torch.tensor(new, dtype=torch.int64)]), gone


def _labels(parts: Mapping[str, ImageSet | None]) -> dict[str, list[int]]:
    """Return the classes of the images that a run trains on and chooses by, by number."""
    return {name: part.labels.tolist() for name in ("train", "validation") if (part := parts[name]) and part.digests}


def _of_other_classes(record: Record, pools: Mapping[str, ImageSet], found: Mapping[str, Found]) -> list[str]:
    """Return the names of the images whose class is not what the record says, if it says any."""
    names: list[str] = []
    for part, labels in record.get("labels", {}).items():
        rows, gone = found[part]
        there = [label for name, label in zip(record[part], labels, strict=True) if name not in set(gone)]
        pairs = zip(rows.tolist(), there, strict=True)
        names += [pools[part].names[row] for row, label in pairs if pools[part].labels[row] != label]
    return names


def _amended(record: Record, training: ImageSet, validation: ImageSet, handed_in: list[str]) -> Record:
    """Return the record of a run that goes on with other images; what it has seen stays trained on and chosen by."""
    before = content_before(record)
    parts: dict[str, ImageSet | None] = {"train": training, "validation": validation}
    new: Record = {name: _content(part) for name, part in parts.items()} | {"labels": _labels(parts)}
    new |= {f"{name}_before": sorted(digests) for name, digests in before._asdict().items() if digests}
    new |= {"data_sha256": handed_in} if handed_in else {}
    told: Record = json.loads(json.dumps(record | new))
    return told


def _drawn_again(record: Record, dataset: Dataset, config: RunConfig, allow_changed: bool) -> Division:
    """Draw the images of a run once more, where no files name them; raises DataError if they come out as others."""
    seed = record.get("seed", record.get("split_seed", 0))  # "seed" is what earlier versions wrote
    division = divide(dataset, config.model_copy(update={"split_seed": seed}))
    told = {name: value for name, value in record.items() if name not in ("seed", "split_seed")}
    if all(division.record.get(name) == value for name, value in told.items()):
        return replace(division, record=record)
    if allow_changed:
        return division
    raise _other_data(config)


def _other_data(config: RunConfig) -> DataError:
    return DataError(f"{config.data} is not the data that the run was split from ({SPLIT}); {PUT_BACK}")


def about_missing(names: list[str]) -> list[str]:
    """Return a line that names the test images that are gone, if some are."""
    return [f"{len(names):,} test images of the run are gone, and left out: {some(names, NAMED)}"] if names else []
