"""Evaluation of a trained network on test images."""

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.table import Table
from torch import Tensor, nn

from cnnkit.core.console import as_text, table
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.files import CannotWrite
from cnnkit.core.finite import require_finite
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.places import expanded
from cnnkit.core.text import counted, html
from cnnkit.data import Batches, ImageSet, Reading
from cnnkit.data.reading import BadImage
from cnnkit.deploy import Classifier, load
from cnnkit.experiment.build import eval_batch_size
from cnnkit.experiment.record import digest_of, read_record
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.tested import other_images, own_images
from cnnkit.figures.html import html_table
from cnnkit.train import Metrics
from cnnkit.train import evaluate as measure

__all__ = ["Evaluation", "evaluate", "save_evaluation"]

log = logging.getLogger(__name__)

COLUMNS = ("class", "precision", "recall", "F1", "images")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """The metrics of a network on the test images of a data set."""

    net: str
    data: str
    classes: tuple[str, ...]
    metrics: Metrics
    skipped: tuple[tuple[str, str], ...] = ()
    """Files that could not be read, and why."""
    remarks: tuple[str, ...] = ()
    """Notes on the test images, such as skipped ones."""

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return self.metrics.accuracy

    @property
    def loss(self) -> float:
        """Mean cross entropy over the images, in nats."""
        return self.metrics.loss

    @property
    def num_images(self) -> int:
        """Number of images."""
        return self.metrics.num_images

    @property
    def confusion(self) -> Tensor:
        """Number of images by true class (row) and predicted class (column); int64."""
        return self.metrics.confusion

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class: class, precision, recall, f1 and support (its number of images)."""
        return [{"class": name, **row} for name, row in zip(self.classes, self.metrics.per_class(), strict=True)]

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics as plain data."""
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
        """Return the metrics for display: a table of the classes, the confusion matrix, remarks and a summary line."""
        return [*(table(*listing) for listing in self._listings()), *self.remarks, self._line()]

    def __repr__(self) -> str:
        return as_text(*self.tables())

    def _repr_html_(self) -> str:
        line, *remarks = (f"<p>{html(words)}</p>" for words in (self._line(), *self.remarks))
        return "".join([line, *(html_table(*listing) for listing in self._listings()), *remarks])

    def _line(self) -> str:
        return (
            f"{self.net} on the test set of {self.data}: accuracy {self.accuracy:.4f}, "
            f"loss {self.loss:.4f}, {counted(self.num_images, 'image')}"
        )

    def _listings(self) -> Iterator[tuple[Sequence[str], list[list[str]]]]:
        """Yield the columns and the rows of two tables: the metrics of each class, and the confusion matrix."""
        metrics = [
            [row["class"], *map(_figure, (row["precision"], row["recall"], row["f1"])), f"{row['support']:,}"]
            for row in self.per_class
        ]
        rows = enumerate(zip(self.classes, self.confusion.tolist(), strict=True))
        confusion = [
            [name if name == str(index) else f"{index} {name}", *(f"{count or '.'}" for count in counts)]
            for index, (name, counts) in rows
        ]
        yield COLUMNS, metrics
        yield ["true / predicted", *map(str, range(len(self.classes)))], confusion


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
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Evaluation:
    """Evaluate a classifier, a run folder or a bundle on the test images of the data that it was trained on.

    `data` is another data set of the same classes, whose test split is used (all of it if it has no splits), or the
    training data of the run, if they were passed from Python. The metrics of a run folder on its own data are written
    to its test.json. `net` is as in `cnnkit.load`, the other arguments as in `cnnkit.data.load_dataset`.

    Raises UsageError or DataError if the classes or channels differ, or if images are missing or cannot be read;
    CnnkitError if the network outputs NaN or Inf.
    """
    if isinstance(model, Classifier) and net is not None:
        raise UsageError("a Classifier contains its network: remove net")
    path = None if isinstance(model, Classifier) else expanded(model)
    classifier = model if isinstance(model, Classifier) else load(model, net, device)
    bundle = classifier.bundle
    record = read_record(classifier.folder) if classifier.folder else None
    if record and "labels" in record and digest_of(record) != bundle.split_sha256:
        raise CnnkitError(f"{classifier.folder}: split.json is not the one that the network was trained with")
    options = Reading(
        data_dir=Path(data_dir) if data_dir else None,
        image_size=bundle.image_size,
        channels=bundle.in_channels,
        on_bad_image=on_bad_image,
        workers=workers,
        test_fraction=0.0,  # own_images draws the test split
        trainable=False,
        progress=progress,
        max_pixels=max_pixels,
    )
    found = own_images(bundle, record, options) if data is None else other_images(bundle, record, data, options)
    images = found.images
    channels = images.storage.shape[1]
    if bundle.preprocess.channels(channels) != bundle.in_channels:
        raise DataError(f"{found.name} has {channels} channels, the network takes {bundle.in_channels}")
    batches = Batches(images, eval_batch_size(max(bundle.image_size)), bundle.preprocess, device=classifier.device)
    net = classifier.net
    metrics = measure(net, batches, predict=_FiniteNet(net, found.images))
    if not math.isfinite(metrics.loss):
        raise CnnkitError(f"the loss on {found.name} is {metrics.loss}: the network's outputs are too large")
    report = Evaluation(bundle.net, found.name, bundle.classes, metrics, found.skipped, found.remarks)
    if path and data is None and (path / "config.toml").is_file():
        save_evaluation(RunFolder.open(path), report)
    return report


class _FiniteNet:
    """A network whose outputs must be finite; batches are passed in the order of the images."""

    def __init__(self, net: nn.Module, images: ImageSet):
        self.net, self.images, self.seen = net, images, 0

    def __call__(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        rows = range(self.seen, self.seen + len(x))
        require_finite(self.net, x, logits, self.images.names[rows.start : rows.stop] or [f"image {r}" for r in rows])
        self.seen = rows.stop
        return logits


def save_evaluation(folder: RunFolder, report: Evaluation) -> None:
    """Write a run's test metrics to test.json; log a warning if that fails."""
    try:
        folder.write_json("test.json", report.to_dict())
    except CannotWrite as error:
        log.warning("%s; the test metrics are not saved", error)


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
