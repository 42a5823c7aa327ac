"""The images of a split as they were judged: the answer for each, its confidence, and whether it is correct."""

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from cnnkit.experiment.evaluation import Evaluation
from cnnkit.metrics.softmax import per_image

__all__ = ["Gallery", "Judged", "JudgedImage"]


@dataclass(frozen=True)
class JudgedImage:
    """An image of the split by its row: name, indices of the true and the predicted class, and the confidence."""

    row: int
    name: str
    true: int
    predicted: int
    confidence: float


@dataclass(frozen=True)
class Gallery:
    """Images to show, the most important first, of `total` of this kind."""

    images: tuple[JudgedImage, ...]
    total: int


class Judged:
    """The answers for the images of a split, as arrays over the images.

    `confidence` is the probability of the predicted class, after the temperature.
    """

    def __init__(self, evaluation: Evaluation):
        self.predictions = evaluation.predictions
        self.labels, self.predicted = self.predictions.labels, self.predictions.predicted
        self.correct = self.labels == self.predicted
        self.confidence = per_image(self.predictions.logits, self.labels, evaluation.temperature).confidence

    def images(self, rows: Iterable[int]) -> tuple[JudgedImage, ...]:
        """Return the images of these rows."""
        return tuple(
            JudgedImage(
                int(row),
                self.predictions.name_of(int(row)),
                int(self.labels[row]),
                int(self.predicted[row]),
                float(self.confidence[row]),
            )
            for row in rows
        )

    def mistakes(self, most: int) -> Gallery:
        """Return at most so many wrong answers, the most confident first."""
        return self._gallery(~self.correct, -self.confidence, most)

    def uncertain(self, most: int) -> Gallery:
        """Return at most so many correct answers, the least confident first."""
        return self._gallery(self.correct, self.confidence, most)

    def confident(self, most: int) -> tuple[JudgedImage, ...]:
        """Return at most so many correct answers of different classes, the most confident of each."""
        rows = np.flatnonzero(self.correct)
        rows = rows[np.argsort(-self.confidence[rows], kind="stable")]
        firsts = np.unique(self.labels[rows], return_index=True)[1]
        return self.images(rows[np.sort(firsts)[:most]])

    def of_cell(self, true: int, predicted: int, most: int) -> tuple[JudgedImage, ...]:
        """Return at most so many images of a class that are predicted as another, the most confident first."""
        chosen = (self.labels == true) & (self.predicted == predicted)
        return self._gallery(chosen, -self.confidence, most).images

    def _gallery(self, chosen: np.ndarray, key: np.ndarray, most: int) -> Gallery:
        rows = np.flatnonzero(chosen)
        return Gallery(self.images(rows[np.argsort(key[rows], kind="stable")][:most]), len(rows))
