"""The training, validation and test split of a run: drawn once, saved as split.json, and restored from it.

Image files are saved by name and digest of their content, so that files may be renamed, moved, deleted and added.
Data without files are saved by row, or drawn again.
"""

import json
from collections import defaultdict
from collections.abc import Mapping, Set
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.text import counted, some
from cnnkit.data import Dataset, ImageSet
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.record import PARTS, SPLIT, UNUSED, EarlierUse, Record, content_before, has_digests

__all__ = ["Division", "about_missing", "draw_split", "own_part", "restore_split", "unused"]

NAMED = 5  # images in a line
BY_NAME = "the run was made by a version that saved no digests: its {} images are identified by name"
REMEDY = "restore them, start a new run from its weights with --weights, or continue without them: --allow-changed-data"
Found = tuple[Tensor, list[str]]  # rows, and the names of missing images


@dataclass(frozen=True)
class Division:
    """The images of a run, and the content of its split.json."""

    training: ImageSet
    validation: ImageSet
    test: ImageSet | None
    record: Record
    remarks: tuple[str, ...] = ()


def draw_split(dataset: Dataset, config: RunConfig, before: EarlierUse = UNUSED) -> Division:
    """Draw the validation images of a new run from its training images, unless the data have a validation split.

    Images that its initial weights were trained on (`before.trained`) are used neither for validation nor for testing,
    and images that chose those weights not for testing. Raises DataError or UsageError if no training image is left.
    """
    training, validation, rows = dataset.train, dataset.validation, torch.empty(0, dtype=torch.int64)
    if validation is None:
        kept, rows = training.hold_out(config.validation, config.split_seed, before.trained)
        training, validation = training.subset(kept), training.subset(rows)
    if not len(dataset.train):
        raise DataError(f"{config.data} has no training images, only validation or test images")
    if not len(training):
        raise UsageError(f"validation {config.validation} leaves no training images: lower --validation")
    test, remarks = dataset.test, []
    if config.validation and not len(validation):
        why = "the weights were trained on all images" if before.trained else "the classes are too small"
        remarks.append(f"no validation images to choose the best epoch by: {why}; pass some with --validation-data")
    elif dataset.validation and (copies := unused(validation, {*before.trained, *training.digests})[1]):
        remarks.append(f"{counted(len(copies), 'validation image')} also used for training: {some(copies, NAMED)}")
    if test is None:
        remarks.append("the data have no test images: pass some with --test-data, or evaluate on other data later")
    elif test.digests:
        test, seen = unused(test, {*before.used, *training.digests})
        if seen:
            remarks.append(f"skipping {counted(len(seen), 'test image')} used for training: {some(seen, NAMED)}")
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
    record |= {"data_sha256": digests} if (digests := _python_digests(dataset)) else {}
    saved: Record = json.loads(json.dumps(record))  # as it will be read
    return Division(training, validation, test, saved, tuple(remarks))


def restore_split(record: Record, dataset: Dataset, config: RunConfig, allow_changed: bool = False) -> Division:
    """Restore the split of an earlier run from its split.json.

    Raises DataError if training or validation images are missing or have another class, or if the data differ. With
    `allow_changed` missing images are skipped, new content under their names is used instead, and the record is
    updated: both contents count as trained on.
    """
    pool = dataset.pool
    if pool is None:
        return _drawn_again(record, dataset, config, allow_changed)
    pools = {"train": pool, "validation": pool, "test": pool}
    given = {"validation": config.validation_data, "test": config.test_data}
    pools |= {part: getattr(dataset, part) for part, place in given.items() if place is not None}
    listed = {part: _listed(record, part, pool) for part in PARTS}
    found = {part: _found(pools[part], listed[part]) for part in PARTS}  # data without names are not listed
    gone = found["train"][1] + found["validation"][1]
    others = _of_other_classes(record, pools, found)
    changes = [
        f"{counted(len(names), 'training or validation image')} {what}: {some(names, NAMED)}"
        for what, names in (("missing or replaced", gone), ("moved to another class", others))
        if names
    ]
    digests = _python_digests(dataset)
    if record.get("data_sha256", digests) != digests:
        changes.append("the data passed from Python differ from those that the run was split from")
    if changes and not allow_changed:
        raise DataError(f"{config.data}: {'; '.join(changes)}; {REMEDY}")
    if gone:
        tested = {*listed["test"].values()}
        found |= {part: _with_replaced(pools[part], listed[part], tested) for part in ("train", "validation")}
    training, validation, test = (
        pools[part].subset(found[part][0]) if pools[part].names else pools[part] for part in PARTS
    )
    remarks = (*changes, *about_missing(found["test"][1]))
    if changes:
        record = _amended(record, training, validation, digests)
    return Division(training, validation, test if len(test) else None, record, remarks)


def own_part(record: Record, part: str, pool: ImageSet) -> tuple[ImageSet, list[str]]:
    """Return a run's train, validation or test images among the images of its data, and remarks on them."""
    rows, gone = _found(pool, _listed(record, part, pool))
    by_name = [] if has_digests(record) else [BY_NAME.format(part)]
    return pool.subset(rows), [*by_name, *about_missing(gone, part)]


def unused(images: ImageSet, used: Set[str]) -> tuple[ImageSet, list[str]]:
    """Return the images whose digests are not in `used`, and the names of the others; without digests, all images."""
    if not images.digests:
        return images, []
    fresh = [row for row, digest in enumerate(images.digests) if digest not in used]
    if len(fresh) == len(images):
        return images, []
    seen = set(range(len(images))).difference(fresh)
    return images.subset(torch.tensor(fresh, dtype=torch.int64)), [images.names[row] for row in sorted(seen)]


def _content(part: ImageSet | None) -> dict[str, str]:
    return dict(zip(part.names, part.digests, strict=True)) if part and part.digests else {}


def _python_digests(dataset: Dataset) -> list[str]:
    """Return the digests of data passed from Python."""
    return [digest for digest in (dataset.sha256, *dataset.parts_sha256) if digest]


def _listed(record: Record, part: str, pool: ImageSet) -> Mapping[str, str | None]:
    """Return the names of a part with their digests, which are None in records of earlier versions."""
    if has_digests(record):
        return dict(record[part])
    if part == "train":  # all others
        rest = {*record["validation"], *record.get("test", ())}
        return {name: None for name in pool.names if name not in rest}
    return dict.fromkeys(record.get(part, ()))


def _found(pool: ImageSet, listed: Mapping[str, str | None]) -> Found:
    """Return the rows of the listed images in that order, found by content, and the names of those that are missing.

    Of several images with the same content, the one with the listed name is taken first; each is taken once.
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
    """Return what `_found` does, plus new content under the names of missing images, if it is not in `tested`."""
    rows, gone = _found(pool, listed)
    taken = set(rows.tolist())
    at = {name: row for row, name in enumerate(pool.names)}
    new = [at[name] for name in gone if name in at and at[name] not in taken and pool.digests[at[name]] not in tested]
    return torch.cat([rows, torch.tensor(new, dtype=torch.int64)]), gone


def _labels(parts: Mapping[str, ImageSet | None]) -> dict[str, list[int]]:
    """Return the class indices of the training and validation images."""
    return {name: part.labels.tolist() for name in ("train", "validation") if (part := parts[name]) and part.digests}


def _of_other_classes(record: Record, pools: Mapping[str, ImageSet], found: Mapping[str, Found]) -> list[str]:
    """Return the names of the images whose class differs from the record's, if it has classes."""
    names: list[str] = []
    for part, labels in record.get("labels", {}).items():
        rows, gone = found[part]
        there = [label for name, label in zip(record[part], labels, strict=True) if name not in set(gone)]
        pairs = zip(rows.tolist(), there, strict=True)
        names += [pools[part].names[row] for row, label in pairs if pools[part].labels[row] != label]
    return names


def _amended(record: Record, training: ImageSet, validation: ImageSet, data_sha256: list[str]) -> Record:
    """Return the record of a run that resumes with changed images; those it has already used stay recorded as used."""
    before = content_before(record)
    parts: dict[str, ImageSet | None] = {"train": training, "validation": validation}
    new: Record = {name: _content(part) for name, part in parts.items()} | {"labels": _labels(parts)}
    new |= {f"{name}_before": sorted(digests) for name, digests in before._asdict().items() if digests}
    new |= {"data_sha256": data_sha256} if data_sha256 else {}
    saved: Record = json.loads(json.dumps(record | new))
    return saved


def _drawn_again(record: Record, dataset: Dataset, config: RunConfig, allow_changed: bool) -> Division:
    """Draw the split of data without files again; raises DataError if it differs from the record."""
    seed = record.get("seed", record.get("split_seed", 0))  # earlier versions wrote "seed"
    division = draw_split(dataset, config.model_copy(update={"split_seed": seed}))
    content = {name: value for name, value in record.items() if name not in ("seed", "split_seed")}
    if all(division.record.get(name) == value for name, value in content.items()):
        return replace(division, record=record)
    if allow_changed:
        return division
    raise DataError(f"{config.data} differs from the data that the run was split from ({SPLIT}); {REMEDY}")


def about_missing(names: list[str], part: str = "test") -> list[str]:
    """Return a line that names the missing images of a part, if there are any."""
    what = counted(len(names), f"missing {part} image")
    return [f"skipping {what} of the run: {some(names, NAMED)}"] if names else []
