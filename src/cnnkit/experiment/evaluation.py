"""What a trained network is worth on images that it has not seen."""

import os
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from rich.table import Table
from torch import Tensor, nn

from cnnkit.core.console import as_text, table
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.text import html
from cnnkit.data import Batches, Dataset, ImageSet, Reading, is_handed_in, open_dataset, stratified_split
from cnnkit.data.layout import class_name
from cnnkit.data.reading import BadImage
from cnnkit.deploy import Bundle, Classifier, load
from cnnkit.experiment.build import looking_batch
from cnnkit.experiment.division import (
    Record,
    has_digests,
    known_content,
    own_test,
    read_record,
    unused,
    used_content,
)
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.figures.html import html_table
from cnnkit.train import Metrics
from cnnkit.train import evaluate as measure

__all__ = ["Evaluation", "evaluate"]

DRAWN = "the bundle is of an earlier version: its test images are drawn from all that its data hold now"
COLUMNS = ("class", "precision", "recall", "F1", "images")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The figures of a network on the test images of some data."""

    net: str
    data: str
    classes: tuple[str, ...]
    metrics: Metrics
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that could not be read, and why."""
    remarks: tuple[str, ...] = ()
    """What is left out of the figures, and what else may surprise."""

    @property
    def accuracy(self) -> float:
        """Share of the images whose class was predicted."""
        return self.metrics.accuracy

    @property
    def loss(self) -> float:
        """Mean cross entropy over the images, in nats."""
        return self.metrics.loss

    @property
    def num_images(self) -> int:
        """How many images were seen."""
        return self.metrics.num_images

    @property
    def confusion(self) -> Tensor:
        """How many images of each class (rows) were predicted as each class (columns); int64."""
        return self.metrics.confusion

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class: class, precision, recall, f1, support (its images)."""
        return [{"class": name, **row} for name, row in zip(self.classes, self.metrics.per_class(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return all figures as plain data."""
        return {
            "net": self.net,
            "data": self.data,
            "images": self.num_images,
            "loss": self.loss,
            "accuracy": self.accuracy,
            "classes": self.per_class,
            "confusion": self.confusion.tolist(),
            "remarks": list(self.remarks),
        }

    def tables(self) -> list[Table | str]:
        """Return what people read: figures of each class, the confusion matrix, remarks, and a line for the whole."""
        per_class, confusion = table(COLUMNS), table(self._confusion_columns())
        for row in self._class_rows():
            per_class.add_row(*row)
        for row in self._confusion_rows():
            confusion.add_row(*row)
        return [per_class, confusion, *self.remarks, self._line()]

    def __repr__(self) -> str:
        return as_text(*self.tables())

    def _repr_html_(self) -> str:
        return "".join(
            [
                f"<p>{html(self._line())}</p>",
                html_table(COLUMNS, self._class_rows()),
                html_table(self._confusion_columns(), self._confusion_rows()),
                *(f"<p>{html(remark)}</p>" for remark in self.remarks),
            ]
        )

    def _line(self) -> str:
        return (
            f"{self.net} on the test set of {self.data}: accuracy {self.accuracy:.4f}, "
            f"loss {self.loss:.4f}, {self.num_images:,} images"
        )

    def _class_rows(self) -> list[list[str]]:
        return [
            [row["class"], *map(_figure, (row["precision"], row["recall"], row["f1"])), f"{row['support']:,}"]
            for row in self.per_class
        ]

    def _confusion_columns(self) -> list[str]:
        return ["true / predicted", *map(str, range(len(self.classes)))]

    def _confusion_rows(self) -> list[list[str]]:
        rows = zip(self.classes, self.confusion.tolist(), strict=True)
        return [
            [f"{index} {name}", *(str(count) if count else "." for count in counts)]
            for index, (name, counts) in enumerate(rows)
        ]


def evaluate(
    model: Classifier | str | os.PathLike[str],
    data: Any = None,
    *,
    net: nn.Module | None = None,
    data_dir: Path | str | None = None,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    device: torch.device | str = "auto",
    progress: bool = True,
) -> Evaluation:
    """Measure a classifier, a run folder or a bundle on the test images of the data that it was trained on.

    `data` is other data of the same classes: its test part, or all of it where it has no parts; or the data that the
    run was trained on, handed in from Python again. A run folder keeps the figures of its own data as test.json. `net`
    is `cnnkit.load`'s, the other arguments are `cnnkit.data.load_dataset`'s.

    Raises UsageError and DataError for what cannot be measured: other classes or channels, no test images, images that
    cannot be read.
    """
    if isinstance(model, Classifier) and net is not None:
        raise UsageError("a Classifier has its network: leave out net")
    path = None if isinstance(model, Classifier) else Path(model).expanduser()
    classifier = model if isinstance(model, Classifier) else load(model, net, device)
    bundle = classifier.bundle
    record = read_record(classifier.folder) if classifier.folder else None
    options = Reading(
        data_dir=Path(data_dir) if data_dir else None,
        image_size=bundle.image_size,
        channels=bundle.in_channels,
        on_bad_image=on_bad_image,
        workers=workers,
        test_fraction=0.0,  # what is tested is not drawn here
        trainable=False,
        progress=progress,
    )
    found = _own(bundle, record, options) if data is None else _others(bundle, record, data, options)
    images = _of_known_classes(found, bundle, (record or {}).get("left_out", ()))
    channels = images.storage.shape[1]
    if bundle.preprocess.channels(channels) != bundle.in_channels:
        raise DataError(f"{found.name} has {channels} channels, the network takes {bundle.in_channels}")
    remarks = (*found.remarks, *_about_absent(images, bundle))
    batches = Batches(images, looking_batch(max(bundle.image_size)), bundle.preprocess, device=classifier.device)
    metrics = measure(classifier.net, batches)
    report = Evaluation(bundle.net, found.name, bundle.classes, metrics, found.skipped, remarks)
    if path and data is None and (path / "config.toml").is_file():
        RunFolder.open(path).write_json("test.json", report.to_dict())
    return report


class _Found(NamedTuple):
    """The images to measure by, the classes that their labels mean, and what is told of them."""

    images: ImageSet
    name: str
    classes: tuple[str, ...]
    skipped: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]


def _found(dataset: Dataset, images: ImageSet | None, place: str, remarks: Sequence[str] = ()) -> _Found:
    """Return what was found; raises DataError if that is no image."""
    if not images:
        raise DataError(
            "; ".join([f"{place} has no test images", *remarks])
            + f": put some into {place}/test/CLASS/, or name others with --data"
        )
    return _Found(images, dataset.name, dataset.classes, dataset.skipped, (*dataset.remarks, *remarks))


def _own(bundle: Bundle, record: Record | None, options: Reading) -> _Found:
    """Return the test images of what the network was trained on."""
    place = bundle.test_data or bundle.data
    if is_handed_in(place):
        raise UsageError(
            f"the network was tested on data handed in from Python ({place}); hand them in again: data=..."
        )
    if not bundle.test_data and bundle.data_dir and not options.data_dir:
        options = replace(options, data_dir=Path(bundle.data_dir))
    dataset = open_dataset(place, replace(options, only=known_content(record)))
    if dataset.pool is None:
        return _found(dataset, _tested(dataset) if bundle.test_data else dataset.test, place)
    if record is None or "test" not in record:
        if bundle.test_data or dataset.test:
            return _found(dataset, _tested(dataset), place)
        drawn = stratified_split(dataset.pool.labels, bundle.test_fraction, seed=0)[1]
        return _found(dataset, dataset.pool.subset(drawn), place, [DRAWN])
    images, remarks = own_test(record, dataset.pool)
    return _found(dataset, images, place, remarks)


def _others(bundle: Bundle, record: Record | None, data: Any, options: Reading) -> _Found:
    """Return other data's test images, or all where they have no parts; of files, those that were not trained on."""
    whole = open_dataset(data, options)
    place = str(data) if isinstance(data, str | Path) else whole.name
    if whole.sha256 and whole.sha256 == bundle.data_sha256:  # the network's own: all but the test part was trained on
        own = open_dataset(data, replace(options, test_fraction=bundle.test_fraction))
        return _found(own, own.test, place)
    images, remarks = _tested(whole), []
    if images and images.digests and record:
        total = len(images)
        images, seen = unused(images, used_content(record))
        if seen and not images:
            raise DataError(f"the network was trained on all of the {total:,} images of {place}: name others")
        if seen:
            remarks.append(f"{len(seen):,} of {total:,} images are left out: the network was trained on them")
        if not has_digests(record):
            remarks.append(
                "the run is of an earlier version, which kept no digests: it may have trained on these images"
            )
    return _found(whole, images, place, remarks)


def _tested(dataset: Dataset) -> ImageSet | None:
    """Return the data set's test part or, if it has no parts, all of it."""
    return dataset.train if dataset.test is None and dataset.validation is None else dataset.test


def _of_known_classes(found: _Found, bundle: Bundle, left_out: Collection[str]) -> ImageSet:
    """Return the images with the network's labels, without those of classes that it left out.

    Raises DataError for images of other classes.
    """
    numbers = {class_name(name): number for number, name in enumerate(bundle.classes)}
    labels = [numbers.get(name, -1) for name in found.classes]
    if not set(numbers).intersection(found.classes) or any(
        labels[label] < 0 and found.classes[label] not in left_out for label in found.images.labels.unique().tolist()
    ):
        raise DataError(f"{found.name} has the classes {found.classes}, the network knows {bundle.classes}")
    images = replace(found.images, labels=torch.tensor(labels)[found.images.labels])
    known = (images.labels >= 0).nonzero().flatten()
    return images if len(known) == len(images) else images.subset(known)


def _about_absent(images: ImageSet, bundle: Bundle) -> list[str]:
    """Return a line that names the classes without a test image."""
    there = set(images.labels.tolist())
    absent = [name for label, name in enumerate(bundle.classes) if label not in there]
    return (
        [f"no test images of {len(absent):,} classes, which the figures leave out: {', '.join(absent)}"]
        if absent
        else []
    )


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
