"""What the predictions of a network for a split show: metrics, tables, files."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table

from cnnkit.core.console import as_text, table
from cnnkit.core.files import write_output
from cnnkit.core.places import expanded
from cnnkit.core.text import counted, encode, html
from cnnkit.experiment.predictions import SplitPredictions
from cnnkit.experiment.split_images import SplitName
from cnnkit.figures.html import html_table
from cnnkit.metrics import Calibration, Estimate, Scores, calibration, score

__all__ = ["Evaluation"]

COLUMNS = ("class", "precision", "recall", "F1", "ROC-AUC", "images")
MAX_CLASSES = 30  # of a confusion matrix in a terminal
WORST = 30  # pairs shown for more
SEEN = "the weights were chosen by the validation images, so that these figures are somewhat too good"
TRAINED = "the network was trained on these images, so that these figures are too good"
SPLIT_REMARKS: dict[SplitName, str] = {"train": TRAINED, "validation": SEEN}


@dataclass(frozen=True, eq=False)
class Evaluation:
    """What the predictions of a network for the images of a split show.

    `temperature` divides the logits before the softmax. It changes probabilities, and with them the log loss, the Brier
    score, the areas under the ROC curves and the calibration; not the predicted classes.
    """

    predictions: SplitPredictions
    temperature: float = 1.0
    about_temperature: str = "not applied"

    @cached_property
    def scores(self) -> Scores:
        """All metrics, with intervals."""
        return score(self.predictions.logits, self.predictions.labels, self.temperature)

    @cached_property
    def calibration(self) -> Calibration:
        """How well the probabilities agree with the accuracy."""
        return calibration(self.predictions.logits, self.predictions.labels, self.temperature)

    @property
    def net(self) -> str:
        """The name of the network."""
        return self.predictions.net

    @property
    def data(self) -> str:
        """The name of the data set."""
        return self.predictions.data

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.predictions.classes

    @property
    def skipped(self) -> tuple[tuple[str, str], ...]:
        """Files that could not be read, and why."""
        return self.predictions.skipped

    @property
    def remarks(self) -> tuple[str, ...]:
        """Notes on the images, such as skipped ones."""
        about = SPLIT_REMARKS.get(self.predictions.split) if self.predictions.split_sha256 else None
        return (*self.predictions.remarks, *([about] if about else []))

    @property
    def num_images(self) -> int:
        """Number of images."""
        return len(self.predictions)

    @property
    def accuracy(self) -> float:
        """Share of the images that are classified correctly."""
        return self.scores.accuracy.value

    @property
    def loss(self) -> float:
        """Mean cross entropy over the images, in nats."""
        return self.scores.log_loss

    @property
    def confusion(self) -> np.ndarray:
        """Number of images by true class (row) and predicted class (column); int64."""
        return self.scores.confusion

    @property
    def per_class(self) -> list[dict[str, Any]]:
        """A row for each class: class, precision, recall, f1, roc_auc and support (its number of images)."""
        return [
            {
                "class": name,
                **{key: value and value.value for key, value in _rates(row).items()},
                "roc_auc": row.roc_auc,
                "support": row.support,
            }
            for name, row in zip(self.classes, self.scores.classes, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics as plain data; `intervals` hold the 95 % intervals (low, high) of those that have one.

        For more than 1,000 classes the confusion matrix is given by its cells: true class, predicted class, images.
        """
        scores, estimates = self.scores, self._estimates()
        classes = [
            row | {"intervals": {key: _ends(value) for key, value in _rates(found).items()}}
            for row, found in zip(self.per_class, scores.classes, strict=True)
        ]
        return {
            "net": self.net,
            "data": self.data,
            "split": self.predictions.split,
            "images": self.num_images,
            "images_per_second": self.num_images / self.predictions.seconds,
            "temperature": self.temperature,
            "about_temperature": self.about_temperature,
            "loss": self.loss,
            **{name: value.value for name, value in estimates.items()},
            "brier": scores.brier,
            "roc_auc": scores.roc_auc,
            "intervals": {name: _ends(value) for name, value in estimates.items()},
            "calibration": self.calibration.to_dict(),
            "classes": classes,
            **{name: value for name, value in scores.to_dict().items() if name.startswith("confusion")},
            "remarks": list(self.remarks),
        }

    def to_csv(self, path: Path | str | None = None) -> str | None:
        """Write CSV: file, label, prediction and p_CLASS, the probability of each class; without a path, return it.

        Raises CannotWrite.
        """
        text = self.predictions.to_csv(self.temperature)
        if path is None:
            return text
        write_output(expanded(path), encode(text))
        return None

    def tables(self) -> list[Table | str]:
        """Return the metrics for display: tables, remarks and a summary line."""
        return [*(table(*listing) for listing in self._listings()), *self.remarks, self._line()]

    def __repr__(self) -> str:
        return as_text(*self.tables())

    def _repr_html_(self) -> str:
        line, *remarks = (f"<p>{html(words)}</p>" for words in (self._line(), *self.remarks))
        return "".join([line, *(html_table(*listing) for listing in self._listings()), *remarks])

    def _line(self) -> str:
        speed = self.num_images / self.predictions.seconds
        return (
            f"{self.net} on the {self.predictions.split} images of {self.data}: accuracy {self.scores.accuracy}, "
            f"{counted(self.num_images, 'image')} at {speed:,.0f} images/s"
        )

    def _estimates(self) -> dict[str, Estimate]:
        """Return the metrics of the whole split that have an interval, by their names in `to_dict`."""
        scores = self.scores
        return {
            "accuracy": scores.accuracy,
            **{f"top_{k}_accuracy": value for k, value in scores.top_k.items()},
            "balanced_accuracy": scores.balanced_accuracy,
            **{f"macro_{name}": value for name, value in vars(scores.macro).items()},
            **{f"weighted_{name}": value for name, value in vars(scores.weighted).items()},
        }

    def _listings(self) -> Iterator[tuple[Sequence[str], list[list[str]]]]:
        """Yield the columns and rows of the tables: metrics, metrics of each class, and confusion."""
        yield ["metric", "value", "95 % interval"], self._summary()
        yield (
            COLUMNS,
            [
                [name, *map(_figure, _rates(row).values()), _number(row.roc_auc, 3), f"{row.support:,}"]
                for name, row in zip(self.classes, self.scores.classes, strict=True)
            ],
        )
        if len(self.classes) > MAX_CLASSES:
            yield ["true", "predicted", "images"], self._worst_pairs()
            return
        rows = enumerate(zip(self.classes, self.confusion.tolist(), strict=True))
        yield (
            ["true / predicted", *map(str, range(len(self.classes)))],
            [
                [name if name == str(index) else f"{index} {name}", *(f"{count or '.'}" for count in counts)]
                for index, (name, counts) in rows
            ],
        )

    def _summary(self) -> list[list[str]]:
        found, scores = self.calibration, self.scores
        rows = [
            [name.replace("_", " ").replace("f1", "F1"), value.rounded, f"{value.low:.{n}f} to {value.high:.{n}f}"]
            for name, value in self._estimates().items()
            for n in [value.decimals]
        ]
        digits = scores.accuracy.decimals + 1  # these figures have no interval of their own
        band = f"{found.band[0]:.{digits}f} to {found.band[1]:.{digits}f} if perfectly calibrated"
        return [
            *rows,
            ["ROC-AUC (one against the rest)", _number(scores.roc_auc, digits), ""],
            ["log loss", f"{scores.log_loss:.{digits}f}", ""],
            ["Brier score", f"{scores.brier:.{digits}f}", ""],
            ["calibration error (ECE)", f"{found.ece:.{digits}f}", band],
            ["temperature", f"{self.temperature:.3f}", self.about_temperature],
        ]

    def _worst_pairs(self) -> list[list[str]]:
        """Return the most frequent confusions: true class, predicted class, images."""
        wrong = [cell for cell in self.scores.cells.tolist() if cell[0] != cell[1]]
        worst = sorted(wrong, key=lambda cell: -cell[2])[:WORST]
        return [[self.classes[true], self.classes[guess], f"{images:,}"] for true, guess, images in worst]


def _rates(row: Any) -> dict[str, Estimate | None]:
    return {"precision": row.precision, "recall": row.recall, "f1": row.f1}


def _ends(value: Estimate | None) -> list[float] | None:
    return value and [value.low, value.high]


def _figure(value: Estimate | None) -> str:
    return "-" if value is None else str(value)


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
