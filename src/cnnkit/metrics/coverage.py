"""Answering only when confident: how many images get an answer, and how many of those answers are correct."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from cnnkit.core.errors import UsageError
from cnnkit.metrics.intervals import Estimate, wilson
from cnnkit.metrics.softmax import checked, per_image

__all__ = ["Coverage", "coverage"]

THRESHOLDS = (0.0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


@dataclass(frozen=True)
class Coverage:
    """What happens if images with a confidence of at least `threshold` are answered."""

    threshold: float
    answered: int
    """Number of images."""
    share: float
    """Share of all images."""
    accuracy: Estimate | None
    """Of the answers; None without any."""


def coverage(
    logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0, thresholds: Sequence[float] | None = None
) -> list[Coverage]:
    """Return coverage and accuracy for each threshold of the confidence; by default 0, .5, .6, ... .9, .95, .99.

    Raises as `score` does, and UsageError for a threshold outside 0 to 1.
    """
    chosen = THRESHOLDS if thresholds is None else thresholds
    if wrong := [one for one in chosen if not 0 <= one <= 1]:
        raise UsageError(f"a threshold must be between 0 and 1, not {wrong[0]}")
    values, truth = checked(logits, labels, temperature)
    images = per_image(values, truth, temperature)
    order = np.argsort(images.confidence)
    first = np.searchsorted(images.confidence[order], chosen, side="left")
    correct_before = np.concatenate([[0], np.cumsum((images.rank == 0)[order])])
    correct = correct_before[-1] - correct_before[first]
    return [
        Coverage(float(one), count, count / len(values), wilson(right, count) if count else None)
        for one, count, right in zip(chosen, (len(values) - first).tolist(), correct.tolist(), strict=True)
    ]
