"""How often a classifier is right: accuracy, confusion matrix, metrics of each class and their averages."""

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from cnnkit.metrics.bootstrap import Averages, resampled
from cnnkit.metrics.intervals import Estimate, wilson
from cnnkit.metrics.plain import plain
from cnnkit.metrics.ranking import roc_auc
from cnnkit.metrics.softmax import Integers, checked, per_image

__all__ = ["ClassScores", "Scores", "score"]

TOP = (3, 5)
MAX_MATRIX = 1000  # classes whose confusion matrix is plain data
NEVER_PREDICTED = Estimate(0.0, 0.0, 1.0)


@dataclass(frozen=True)
class ClassScores:
    """Metrics of one class; None where it has no images."""

    precision: Estimate | None
    """Share of the images predicted as this class that have it; 0, with an interval from 0 to 1, if there are none."""
    recall: Estimate | None
    """Share of the images of this class that are predicted as it."""
    f1: Estimate | None
    """Harmonic mean of precision and recall."""
    support: int
    """Number of images of this class."""
    predicted: int
    """Number of images predicted as this class."""
    roc_auc: float | None
    """Area under the ROC curve of its probability, against all others; None, too, if all images have this class."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Metrics of a classifier on N images.

    Accuracy, top-k, precision and recall have Wilson's interval; F1, averages and balanced accuracy a bootstrap's.
    """

    num_images: int
    num_classes: int
    cells: Integers
    """Non-zero cells of the confusion matrix, sorted: rows of true class, predicted class, number of images."""
    accuracy: Estimate
    top_k: dict[int, Estimate]
    """Share of the images whose class is among the k most likely, for k = 3 and 5 below the number of classes.

    Of classes with equal logits the first comes first, as in the prediction.
    """
    balanced_accuracy: Estimate
    """Mean recall of the classes that have images."""
    classes: list[ClassScores]
    macro: Averages
    """Means over the classes that occur among labels or predictions; an undefined value counts as 0."""
    weighted: Averages
    """The same, weighted by the classes' numbers of images."""
    log_loss: float
    """Mean cross entropy in nats."""
    brier: float
    """Mean over the images of the squared differences between probabilities and truth, summed over classes; 0 to 2."""
    roc_auc: float | None
    """Mean over the classes that have images, but not all of them; None if there is no such class."""

    @cached_property
    def confusion(self) -> Integers:
        """Number of images by true class (row) and predicted class (column); int64."""
        matrix = np.zeros((self.num_classes, self.num_classes), np.int64)
        matrix[self.cells[:, 0], self.cells[:, 1]] = self.cells[:, 2]
        return matrix

    def to_dict(self) -> dict[str, Any]:
        """Return all metrics as plain data; the whole confusion matrix up to 1,000 classes, otherwise its cells."""
        found: dict[str, Any] = plain(self)
        cells = found.pop("cells")
        small = self.num_classes <= MAX_MATRIX
        return found | ({"confusion": self.confusion.tolist()} if small else {"confusion_cells": cells})


def score(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0, seed: int = 0) -> Scores:
    """Return the metrics of logits, images x classes, for integer labels; `seed` is that of the bootstrap.

    Predictions come from the logits, probabilities from logits / temperature. Raises UsageError for shapes, labels or
    a temperature that do not fit, and if there is no image; CnnkitError for NaN or Inf.
    """
    values, truth = checked(logits, labels, temperature)
    count, num_classes = values.shape
    images = per_image(values, truth, temperature)
    pairs, numbers = np.unique(truth * num_classes + images.predicted, return_counts=True)
    cells = np.stack([*np.divmod(pairs, num_classes), numbers], 1)
    estimates = resampled(cells, seed)
    top = {k: wilson(int((images.rank < k).sum()), count) for k in (1, *TOP)}
    areas = roc_auc(values, truth, images, temperature)
    correct, predicted, support = (
        np.bincount(classes, minlength=num_classes).tolist()
        for classes in (truth[images.rank == 0], images.predicted, truth)
    )
    classes = [
        ClassScores(
            precision=(wilson(correct[one], predicted[one]) if predicted[one] else NEVER_PREDICTED)
            if support[one]
            else None,
            recall=wilson(correct[one], support[one]) if support[one] else None,
            f1=estimates.f1[one] if support[one] else None,
            support=support[one],
            predicted=predicted[one],
            roc_auc=areas[one],
        )
        for one in range(num_classes)
    ]
    return Scores(
        num_images=count,
        num_classes=num_classes,
        cells=cells,
        accuracy=top[1],
        top_k={k: top[k] for k in TOP if k < num_classes},
        balanced_accuracy=estimates.balanced_accuracy,
        classes=classes,
        macro=estimates.macro,
        weighted=estimates.weighted,
        log_loss=float(images.log_loss.mean()),
        brier=float(images.brier.mean()),
        roc_auc=float(np.mean(defined)) if (defined := [area for area in areas if area is not None]) else None,
    )
