"""Calibration: whether a classifier's confidence is the share of its predictions that are correct."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnkit.metrics.intervals import Estimate, wilson
from cnnkit.metrics.plain import plain
from cnnkit.metrics.softmax import Floats, Integers, checked, per_image

__all__ = ["Bin", "Calibration", "calibration"]

NUM_BINS = 15
SIMULATIONS = 1000
BLOCK = 2**22  # random numbers at once: 16 MB


@dataclass(frozen=True)
class Bin:
    """The images whose confidence is above `low` and at most `high`; None without images."""

    low: float
    high: float
    count: int
    confidence: float | None
    """Mean confidence."""
    accuracy: Estimate | None


@dataclass(frozen=True)
class Calibration:
    """How well confidence, the probability of the predicted class, agrees with accuracy."""

    num_images: int
    bins: list[Bin]
    """15 of equal width."""
    ece: float
    """Expected calibration error: mean over the images of |accuracy - confidence| of their bin (Guo et al. 2017)."""
    expected: float
    """Mean ECE of a perfectly calibrated classifier with these confidences; it's above 0 for a finite sample."""
    band: tuple[float, float]
    """2.5 and 97.5 % quantile of the same."""
    log_loss: float
    """Mean cross entropy in nats."""
    brier: float
    """As `Scores.brier`."""

    @property
    def well_calibrated(self) -> bool:
        """Whether the ECE is no larger than that of a perfectly calibrated classifier could be by chance."""
        return self.ece <= self.band[1]

    def to_dict(self) -> dict[str, Any]:
        """Return all fields, and `well_calibrated`, as plain data."""
        return {**plain(self), "well_calibrated": self.well_calibrated}


def calibration(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0, seed: int = 0) -> Calibration:
    """Return the calibration of softmax(logits / temperature); `seed` is that of the simulated perfect classifier.

    Raises as `score` does.
    """
    values, truth = checked(logits, labels, temperature)
    images = per_image(values, truth, temperature)
    edges = np.linspace(0, 1, NUM_BINS + 1)
    where = np.searchsorted(edges, images.confidence, side="left") - 1  # right-closed: 1.0 belongs to the last bin
    order = np.argsort(where, kind="stable")
    confidence, correct = images.confidence[order], (images.rank == 0)[order]
    counts = np.bincount(where, minlength=NUM_BINS)
    sums, right = (_sums(one[None], counts)[0] for one in (confidence, correct))
    chance = _errors_by_chance(confidence, counts, sums, seed)
    return Calibration(
        num_images=len(values),
        bins=[
            Bin(low, high, count, total / count if count else None, wilson(int(answers), count) if count else None)
            for low, high, count, total, answers in zip(
                edges[:-1].tolist(), edges[1:].tolist(), counts.tolist(), sums.tolist(), right.tolist(), strict=True
            )
        ],
        ece=float(np.abs(right - sums).sum() / len(values)),
        expected=float(chance.mean()),
        band=(float(np.quantile(chance, 0.025)), float(np.quantile(chance, 0.975))),
        log_loss=float(images.log_loss.mean()),
        brier=float(images.brier.mean()),
    )


def _errors_by_chance(confidence: Floats, counts: Integers, sums: Floats, seed: int) -> Floats:
    """Return the ECEs of simulations in which each image is correct with the probability that is its confidence.

    Images are sorted by bin; `counts` and `sums` are their number and total confidence by bin.
    """
    draw = np.random.default_rng(seed)
    step = max(BLOCK // len(confidence), 1)
    errors = []
    for start in range(0, SIMULATIONS, step):
        size = (min(step, SIMULATIONS - start), len(confidence))
        correct = draw.random(size, dtype=np.float32) < confidence
        errors.append(np.abs(_sums(correct, counts) - sums).sum(1) / len(confidence))
    return np.concatenate(errors)


def _sums(values: NDArray[Any], counts: Integers) -> Floats:
    """Return the sums by bin of rows x images, which are sorted by bin: rows x bins."""
    return np.stack([part.sum(1, dtype=np.float64) for part in np.split(values, np.cumsum(counts)[:-1], axis=1)], 1)
