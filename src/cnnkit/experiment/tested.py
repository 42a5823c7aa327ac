"""The test images of an evaluation: the network's own, or others that it was not trained on."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import torch

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.text import counted, shell, some
from cnnkit.data import Dataset, ImageSet, Reading, is_handed_in, open_dataset, stratified_split
from cnnkit.data.folder.layout import class_name
from cnnkit.deploy import Bundle
from cnnkit.experiment.division import about_missing, own_test, unused
from cnnkit.experiment.record import Record, content_before, has_digests, known_content

__all__ = ["Tested", "other_images", "own_images"]

REDRAWN = "no split.json: the test split is drawn again, and may contain training images"
UNKNOWN = "the network was made by a version that saved no digests: it may have been trained on these images"


class Tested(NamedTuple):
    """Test images with the network's labels, the name of the data, skipped files and remarks."""

    images: ImageSet
    name: str
    skipped: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def own_images(bundle: Bundle, record: Record | None, options: Reading) -> Tested:
    """Return the test images of the network's own data, by the `record` of its split.

    Raises DataError if there are none, UsageError if the data were passed from Python.
    """
    place = bundle.test_data or bundle.data
    if is_handed_in(place):
        raise UsageError(f"the network was tested on data passed from Python ({place}); pass them again: data=...")
    if not bundle.test_data and bundle.data_dir and not options.data_dir:
        options = replace(options, data_dir=Path(bundle.data_dir))
    try:
        dataset = open_dataset(place, replace(options, only=known_content(record)))
    except DataError as error:
        moved = "" if "://" in place or Path(place).exists() else "; if the data were moved, pass their path: --data"
        raise DataError(f"{error}{moved}") from error
    if dataset.pool is None:
        return _tested(bundle, record, dataset, _part(dataset) if bundle.test_data else dataset.test, place)
    if record is None or "test" not in record:
        if bundle.test_data or dataset.test:
            return _tested(bundle, record, dataset, _part(dataset), place)
        drawn = stratified_split(dataset.pool.labels, bundle.test_fraction, seed=0)[1]
        return _tested(bundle, record, dataset, dataset.pool.subset(drawn), place, [REDRAWN])
    images, remarks = own_test(record, dataset.pool)
    return _tested(bundle, record, dataset, images, place, remarks)


def other_images(bundle: Bundle, record: Record | None, data: Any, options: Reading) -> Tested:
    """Return the test split of other data, or all of it, without image files that the network was trained on.

    Raises DataError if no image is left.
    """
    dataset = open_dataset(data, options)
    place = str(data) if isinstance(data, str | Path) else dataset.name
    if dataset.sha256 and dataset.sha256 == bundle.data_sha256:  # the network's own data
        own = open_dataset(data, replace(options, test_fraction=bundle.test_fraction))
        return _tested(bundle, record, own, own.test, place)
    images = _part(dataset)
    remarks: list[str] = []
    if images and images.digests:
        images, remarks = _not_trained_on(record, images, place)
    return _tested(bundle, record, dataset, images, place, remarks)


def _not_trained_on(record: Record | None, images: ImageSet, place: str) -> tuple[ImageSet, list[str]]:
    """Return the images that a run was not trained on, and remarks on the others."""
    if record is None or "test" not in record:
        return images, [UNKNOWN]
    if not has_digests(record):
        if {*record["test"], *record["validation"]}.isdisjoint(images.names):
            return images, [UNKNOWN]
        return own_test(record, images)  # a copy of its own data
    total = len(images)
    images, seen = unused(images, content_before(record).used)
    if not seen:
        return images, []
    if not images:
        raise DataError(f"the network was trained on all images of {place} ({total:,}): choose another --data")
    remarks = [f"skipping {len(seen):,} of {counted(total, 'image')}, which the network was trained or validated on"]
    if 2 * len(seen) > len(record["train"]):  # a copy of its own data
        there = set(images.digests)
        remarks += about_missing([name for name, digest in record["test"].items() if digest not in there])
    return images, remarks


def _part(dataset: Dataset) -> ImageSet | None:
    """Return the data set's test split or, if it has no splits, all of it."""
    return dataset.train if dataset.test is None and dataset.validation is None else dataset.test


def _tested(
    bundle: Bundle,
    record: Record | None,
    dataset: Dataset,
    images: ImageSet | None,
    place: str,
    remarks: Sequence[str] = (),
) -> Tested:
    """Return the images with the network's labels; raises DataError if there are none.

    Images of classes that the run skipped are skipped; those of other classes raise DataError.
    """
    if not images:
        raise DataError(
            "; ".join([f"{place} has no test images", *remarks])
            + f": add some to {place}/test/CLASS/, or choose another --data"
        )
    numbers = {class_name(name): number for number, name in enumerate(bundle.classes)}
    labels = torch.tensor([numbers.get(name, -1) for name in dataset.classes])
    images = replace(images, labels=labels[images.labels])
    there = set(images.labels.tolist())
    left_out = (record or {}).get("left_out", ())
    if there == {-1} or (-1 in there and not left_out):
        others = some(sorted(set(dataset.classes) - set(bundle.classes)))
        raise DataError(
            f"{dataset.name} contains classes that the network does not know: {others}; evaluate on data with its "
            f"classes, or fine-tune it: cnnkit train {bundle.net} --weights RUN --data {shell(place)}"
        )
    if -1 in there:
        images = images.subset((images.labels >= 0).nonzero().flatten())
    if absent := [name for name, label in numbers.items() if label not in there]:
        remarks = [*remarks, f"no test images of {', '.join(absent)}: the metrics skip these classes"]
    return Tested(images, dataset.name, dataset.skipped, (*dataset.remarks, *remarks))
