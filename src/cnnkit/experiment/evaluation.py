"""What a trained network is worth on images that it has not seen."""

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from cnnkit.core.console import as_text, table
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.text import html
from cnnkit.data import Batches, Dataset, ImageSet, Reading, is_handed_in, load_dataset, renumbered
from cnnkit.data.reading import BadImage
from cnnkit.deploy import Bundle, Classifier, load
from cnnkit.experiment.build import looking_batch
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.figures.html import html_table
from cnnkit.train import Metrics
from cnnkit.train import evaluate as measure

__all__ = ["Evaluation", "evaluate"]

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
        }

    def tables(self) -> list[Table | str]:
        """Return what people read: figures of each class, the confusion matrix, and a line for the whole."""
        per_class, confusion = table(COLUMNS), table(self._confusion_columns())
        for row in self._class_rows():
            per_class.add_row(*row)
        for row in self._confusion_rows():
            confusion.add_row(*row)
        return [per_class, confusion, self._line()]

    def __repr__(self) -> str:
        return as_text(*self.tables())

    def _repr_html_(self) -> str:
        return "".join(
            [
                f"<p>{html(self._line())}</p>",
                html_table(COLUMNS, self._class_rows()),
                html_table(self._confusion_columns(), self._confusion_rows()),
            ]
        )

    def _line(self) -> str:
        return (
            f"{self.net} on the test set of {self.data}: accuracy {self.accuracy:.4f}, "
            f"loss {self.loss:.4f}, {self.num_images:,} images"
        )

    def _class_rows(self) -> list[list[str]]:
        return [
            [row["class"], *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['support']:,}"]
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
    path = None if isinstance(model, Classifier) else Path(model)
    classifier = model if isinstance(model, Classifier) else load(model, net, device)
    bundle = classifier.bundle
    options = Reading(
        data_dir=Path(data_dir) if data_dir else None,
        image_size=bundle.image_size,
        channels=bundle.in_channels,
        on_bad_image=on_bad_image,
        workers=workers,
        test_fraction=bundle.test_fraction,
        progress=progress,
    )
    dataset, images = _own(bundle, options) if data is None else _others(bundle, data, options)
    if bundle.test_data is not None:  # which may lack some classes
        dataset, images = renumbered(dataset, images, bundle.classes)
    if dataset.classes != bundle.classes:
        raise DataError(f"{dataset.name} has the classes {dataset.classes}, the network knows {bundle.classes}")
    if images.storage.shape[1] != bundle.in_channels:
        channels = images.storage.shape[1]
        raise DataError(f"{dataset.name} has {channels} channels, the network takes {bundle.in_channels}")
    batches = Batches(images, looking_batch(max(bundle.image_size)), bundle.preprocess, device=classifier.device)
    found = Evaluation(bundle.net, dataset.name, bundle.classes, measure(classifier.net, batches), dataset.skipped)
    if path and data is None and (path / "config.toml").is_file():
        RunFolder.open(path).write_json("test.json", found.to_dict())
    return found


def _own(bundle: Bundle, options: Reading) -> tuple[Dataset, ImageSet]:
    """Return the data set that the network was trained on, and its test images."""
    place = bundle.test_data or bundle.data
    if is_handed_in(place):
        raise UsageError(
            f"the network was tested on data handed in from Python ({place}); hand them in again: data=..."
        )
    if bundle.test_data:
        return _all_of(load_dataset(place, **vars(_whole(options))), place)
    data_dir = options.data_dir or (Path(bundle.data_dir) if bundle.data_dir else None)
    dataset = load_dataset(place, **(vars(options) | {"data_dir": data_dir}))
    return dataset, _require_test(dataset, place)


def _others(bundle: Bundle, data: Any, options: Reading) -> tuple[Dataset, ImageSet]:
    """Return other data and their test images; all, where they have no parts."""
    whole = load_dataset(data, **vars(_whole(options)))
    if whole.sha256 and whole.sha256 == bundle.data_sha256:  # the network's own: all but the test part was trained on
        own = load_dataset(data, **vars(options))
        return own, _require_test(own, own.name)
    return _all_of(whole, str(data) if isinstance(data, str | Path) else whole.name)


def _whole(options: Reading) -> Reading:
    """Return the options to read data of which no part is set aside."""
    return replace(options, test_fraction=0.0)


def _all_of(dataset: Dataset, place: str) -> tuple[Dataset, ImageSet]:
    """Return the data set's test part or, if it has no parts, all of it."""
    whole = dataset.test is None and dataset.validation is None
    return dataset, dataset.train if whole else _require_test(dataset, place)


def _require_test(dataset: Dataset, place: str) -> ImageSet:
    if dataset.test is None or not len(dataset.test):
        raise DataError(f"{place} has no test images: put some into {place}/test/CLASS/, or name others with --data")
    return dataset.test
