"""The images to evaluate a network on: a split of its own data, or of other data that it was not trained on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.text import counted, some
from cnnkit.data import Dataset, ImageSet, Reading, is_handed_in, open_dataset, stratified_split
from cnnkit.data.folder.layout import class_name
from cnnkit.deploy import Bundle
from cnnkit.experiment.division import about_missing, own_part, unused
from cnnkit.experiment.record import SPLIT, Record, content_before, has_digests, known_content

__all__ = ["NoImagesError", "SplitImages", "SplitName", "other_images", "own_images", "separate_place"]

SplitName = Literal["train", "validation", "test"]
REDRAWN = "no split.json: the test split is drawn again, and may contain training images"
NAMED = 20  # classes in a remark
UNKNOWN = "the network was made by a version that saved no digests: it may have been trained on these images"


class NoImagesError(DataError):
    """There are no images of the split."""


class SplitImages(NamedTuple):
    """Images of a split with the network's labels, the name of their data, skipped files and remarks."""

    images: ImageSet
    name: str
    own: bool
    """Whether they are of the network's own data."""
    skipped: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def own_images(
    bundle: Bundle, record: Record | None, options: Reading, split: SplitName = "test", given: Any = None
) -> SplitImages:
    """Return a split of the network's own data, by the `record` of it; `given` are data passed from Python.

    Raises NoImagesError if there are none, UsageError if data passed from Python are missing.
    """
    separate = separate_place(bundle, split)
    place = separate or bundle.data
    if given is None and is_handed_in(place):
        raise UsageError(f"the network's {split} images were passed from Python ({place}); pass them again: data=...")
    if not separate and bundle.data_dir and not options.data_dir:
        options = replace(options, data_dir=Path(bundle.data_dir))
    drawn = is_handed_in(place) and not separate  # the record does not list its test images
    options = replace(options, test_fraction=bundle.test_fraction if drawn else 0.0, only=known_content(record))
    try:
        dataset = open_dataset(place if given is None else given, options)
    except DataError as error:
        moved = (
            ""
            if "://" in place or Path(place).exists()
            else "; if the data were moved, move them back, or evaluate with --data PATH"
        )
        raise DataError(f"{error}{moved}") from error
    images, remarks = _recorded(bundle, record, dataset, split)
    return _labelled(bundle, record, dataset, images, place, split, remarks)


def other_images(
    bundle: Bundle,
    record: Record | None,
    data: Any,
    options: Reading,
    split: SplitName = "test",
    allow_class_mismatch: bool = False,
) -> SplitImages:
    """Return a split of other data, without image files that the network was trained on.

    Of data without splits, it is all of them. Raises DataError if no image is left, and, unless allowed, for
    classes that the network does not know or the data lack.
    """
    dataset = open_dataset(data, options)
    place = str(data) if isinstance(data, str | Path) else dataset.name
    if dataset.sha256 and dataset.sha256 == bundle.data_sha256:
        if separate_place(bundle, split):  # all of these were trained on
            return _labelled(bundle, record, dataset, None, place, split, [])
        return own_images(bundle, record, options, split, data)
    images = _part(dataset, split)
    remarks: list[str] = []
    if images and images.digests:
        images, remarks = _not_trained_on(record, images, place, split)
    return _labelled(bundle, record, dataset, images, place, split, remarks, allow_class_mismatch)


def separate_place(bundle: Bundle, split: SplitName) -> str | None:
    """Return the place of a split that has one of its own."""
    return {"train": None, "validation": bundle.validation_data, "test": bundle.test_data}[split]


def _recorded(
    bundle: Bundle, record: Record | None, dataset: Dataset, split: SplitName
) -> tuple[ImageSet | None, Sequence[str]]:
    """Return the images of a split of the network's own data, and remarks on them."""
    pool = dataset.pool  # of image files
    if pool is not None and record and (split in record or split == "train"):
        return own_part(record, split, pool)
    if pool is not None and split == "test" and not (bundle.test_data or dataset.test):
        return pool.subset(stratified_split(pool.labels, bundle.test_fraction, seed=0)[1]), [REDRAWN]
    if separate_place(bundle, split):
        return _part(dataset, split), ()
    if split == "test" and (record is None or pool is not None):
        return dataset.test, ()
    if record is None:
        raise CnnkitError(f"no {SPLIT}: the network's {split} images are unknown")
    training, validation = _divided(bundle, record, dataset)
    # of data with missing shards the digest is unknown
    if not dataset.skipped and record.get("train_sha256") not in (None, training.digest()):
        raise DataError(f"{dataset.name} has changed since the network was trained; to evaluate on it, pass --data")
    return {"train": training, "validation": validation, "test": dataset.test}[split], ()


def _divided(bundle: Bundle, record: Record, dataset: Dataset) -> tuple[ImageSet, ImageSet | None]:
    """Return the training and validation images of data without files."""
    if bundle.validation_data or dataset.validation:
        return dataset.train, dataset.validation
    rows = torch.tensor(record["validation"], dtype=torch.int64)
    if len(rows) and int(rows.max()) >= len(dataset.train):
        raise DataError(f"{dataset.name} has {len(dataset.train):,} training images, fewer than when it was split")
    kept = torch.ones(len(dataset.train), dtype=torch.bool)
    kept[rows] = False
    return dataset.train.subset(kept.nonzero().flatten()), dataset.train.subset(rows)


def _not_trained_on(
    record: Record | None, images: ImageSet, place: str, split: SplitName
) -> tuple[ImageSet, list[str]]:
    """Return the images that a run was not trained on, and remarks on the others."""
    if record is None or "test" not in record:
        return images, [UNKNOWN]
    if not has_digests(record):
        if {*record["test"], *record["validation"]}.isdisjoint(images.names):
            return images, [UNKNOWN]
        return own_part(record, "test", images)  # a copy of its own data
    total = len(images)
    images, seen = unused(images, content_before(record).used)
    if not seen:
        return images, []
    if not images:
        raise DataError(f"the network was trained on all images of {place} ({total:,}): choose another --data")
    remarks = [f"skipping {len(seen):,} of {counted(total, 'image')}, which the network was trained or validated on"]
    if split == "test" and 2 * len(seen) > len(record["train"]):  # a copy of its own data
        there = set(images.digests)
        remarks += about_missing([name for name, digest in record["test"].items() if digest not in there])
    return images, remarks


def _part(dataset: Dataset, split: SplitName) -> ImageSet | None:
    """Return a split of the data or, if they have no splits, all of them."""
    part: ImageSet | None = getattr(dataset, split)
    return dataset.train if dataset.test is None and dataset.validation is None else part


def _labelled(
    bundle: Bundle,
    record: Record | None,
    dataset: Dataset,
    images: ImageSet | None,
    place: str,
    split: SplitName,
    remarks: Sequence[str],
    allow_mismatch: bool | None = None,
) -> SplitImages:
    """Return the images with the network's labels; raises NoImagesError if there are none.

    Images of classes that the run left out are skipped; other classes that the network does not know raise DataError,
    unless `allow_mismatch`. If that is False, so do classes without images; it is None for the network's own data.
    """
    if not images:
        others = "" if split == "validation" else ", or evaluate on the validation images: --split validation"
        raise NoImagesError(
            "; ".join([f"{place} has no {split} images", *remarks])
            + f": add some to {place}/{split}/CLASS/, or choose another --data{others}"
        )
    numbers = {class_name(name): number for number, name in enumerate(bundle.classes)}
    labels = torch.tensor([numbers.get(class_name(name), -1) for name in dataset.classes])
    there = [dataset.classes[label] for label in images.labels.unique().tolist()]
    strange = [name for name in there if class_name(name) not in numbers]
    absent = [name for name in bundle.classes if class_name(name) not in set(map(class_name, there))]
    new = sorted(set(strange) - {*(record or {}).get("left_out", ())})
    wrong = [f"it has classes that the network does not know: {some(new)}"] if new else []
    if allow_mismatch is False and absent:
        wrong.append(f"it has no images of {some(absent)}")
    none_left = len(strange) == len(there)
    if (wrong and not allow_mismatch) or none_left:
        skip = "" if allow_mismatch is None or none_left else ", or skip other classes: --allow-class-mismatch"
        what = "; ".join(wrong) or f"it has only classes that the run left out: {some(strange)}"
        raise DataError(f"{dataset.name}: {what}; evaluate on data with the network's classes{skip}")
    images = replace(images, labels=labels[images.labels])
    if strange:
        images = images.subset((images.labels >= 0).nonzero().flatten())
    remarks = [*remarks, *([f"skipping classes that the network does not know: {some(new)}"] if new else [])]
    if absent:
        remarks.append(f"no {split} images of {some(absent, NAMED)}: the metrics skip these classes")
    return SplitImages(images, dataset.name, allow_mismatch is None, dataset.skipped, (*dataset.remarks, *remarks))
