"""Softmax of logits in float64, in blocks of bounded memory, and what each image adds to the metrics."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnkit.core.errors import CnnkitError, UsageError

__all__ = ["Floats", "Integers", "PerImage", "checked", "per_image", "probabilities", "shifted"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
COLDEST = 1e-6  # temperature: float32 logits divided by it do not overflow
BLOCK = 2**18  # values at once: 2 MB in float64, which a processor's cache holds


@dataclass(frozen=True, eq=False)
class PerImage:
    """What each of N images adds to the metrics; arrays of N."""

    predicted: Integers
    """Class with the largest logit; the first one of equal ones."""
    rank: Integers
    """Number of classes before the true one: those with a larger logit, and earlier ones with an equal logit."""
    confidence: Floats
    """Probability of the predicted class."""
    log_loss: Floats
    """Cross entropy in nats."""
    brier: Floats
    """Squared differences of the probabilities from 1 for the true class and 0 for the others: their sum, 0 to 2."""
    largest: Floats
    """Largest logit."""
    total: Floats
    """Sum over the classes of exp((logit - largest) / temperature)."""


def checked(logits: ArrayLike, labels: ArrayLike, temperature: float = 1.0) -> tuple[NDArray[Any], Integers]:
    """Return logits, images x classes, and labels as arrays.

    Raises UsageError unless there is an image, a class, a label for each image, within the classes, and a temperature
    from 1e-6 to 1e6.
    """
    scores, classes = _matrix(logits, temperature), np.asarray(labels)
    images, num_classes = scores.shape
    if not images:
        raise UsageError("there is no image to evaluate on")
    if classes.shape != (images,) or classes.dtype.kind not in "iu":
        raise UsageError(f"{images} images need as many integer labels, not {classes.dtype} of shape {classes.shape}")
    if (wrong := (classes < 0) | (classes >= num_classes)).any():
        row = int(wrong.argmax())
        raise UsageError(f"row {row} has the label {classes[row]}, but the logits have {num_classes} classes")
    return scores, classes.astype(np.int64, copy=False)


def per_image(logits: NDArray[Any], labels: Integers, temperature: float = 1.0) -> PerImage:
    """Return what each image adds to the metrics, for arrays from `checked`; raises CnnkitError for NaN or Inf."""
    count, classes = logits.shape
    predicted, rank = np.empty((2, count), np.int64)
    log_loss, brier, largest, total = np.empty((4, count))
    columns = np.arange(classes)
    for rows, block, z in shifted(logits, temperature):
        row, label = np.arange(len(block)), labels[rows]
        own = block[row, label][:, None]
        predicted[rows] = block.argmax(1)
        rank[rows] = ((block > own) | ((block == own) & (columns < label[:, None]))).sum(1)
        largest[rows] = block.max(1)
        own_z = z[row, label]
        np.exp(z, out=z)
        total[rows] = z.sum(1)
        log_loss[rows] = np.log(total[rows]) - own_z
        z /= total[rows][:, None]
        z[row, label] -= 1
        brier[rows] = np.einsum("ij,ij->i", z, z)
    return PerImage(predicted, rank, 1 / total, log_loss, brier, largest, total)


def probabilities(logits: ArrayLike, temperature: float = 1.0) -> Floats:
    """Return softmax(logits / temperature): float64, images x classes.

    Raises UsageError for another shape or a temperature outside 1e-6 to 1e6, CnnkitError for NaN or Inf.
    """
    scores = _matrix(logits, temperature)
    found = np.empty(scores.shape)
    for rows, _, z in shifted(scores, temperature):
        np.exp(z, out=z)
        np.divide(z, z.sum(1, keepdims=True), out=found[rows])
    return found


def shifted(logits: NDArray[Any], temperature: float = 1.0) -> Iterator[tuple[slice, NDArray[Any], Floats]]:
    """Yield rows, their logits, and (logits - the row's largest) / temperature in float64, a block at a time.

    Raises CnnkitError for NaN or Inf, with the first row that has one.
    """
    count, classes = logits.shape
    step = max(BLOCK // classes, 1)
    for start in range(0, count, step):
        rows = slice(start, min(start + step, count))
        block = logits[rows]
        if not (finite := np.isfinite(block)).all():
            row = int((~finite).any(1).argmax())
            value = "NaN" if np.isnan(block[row]).any() else "Inf"
            raise CnnkitError(f"the logits in row {start + row} hold {value}")
        z = block.astype(np.float64)
        z -= z.max(1, keepdims=True)
        z /= temperature
        yield rows, block, z


def _matrix(logits: ArrayLike, temperature: float) -> NDArray[Any]:
    scores = np.asarray(logits)
    if scores.ndim != 2 or not scores.shape[1] or scores.dtype.kind not in "fiu":
        raise UsageError(f"logits must be numbers, images x classes, not {scores.dtype} of shape {scores.shape}")
    if not COLDEST <= temperature <= 1 / COLDEST:
        raise UsageError(f"the temperature must be between {COLDEST:g} and {1 / COLDEST:g}, not {temperature}")
    return scores
