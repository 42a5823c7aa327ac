"""Random logits and labels, with the irregularities that real ones have."""

import numpy as np
from numpy.typing import NDArray

__all__ = ["CASES", "logits_and_labels"]

CASES = [  # seed, images, classes
    *[(seed, images, classes) for seed in range(4) for images, classes in [(40, 2), (60, 3), (200, 10), (150, 30)]],
    (10, 1, 2),
    (11, 1, 5),
    (12, 2, 4),
    (13, 5, 30),
]


def logits_and_labels(
    seed: int, images: int, classes: int, scale: float = 2.0
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return logits, of which about two thirds are right; odd seeds have many ties.

    With three classes or more the last one has no images, and the one before it no predictions.
    """
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, max(classes - (classes > 2), 1), images)
    logits = draw.normal(size=(images, classes)) * scale
    logits[np.arange(images), labels] += 1.2 * scale
    if seed % 2:
        logits = np.round(logits)
    if classes > 2:
        logits[:, -2] -= 5 * scale
    return logits.astype(np.float32), labels.astype(np.int64)
