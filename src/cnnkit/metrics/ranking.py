"""Area under the ROC curve: how well the probability of a class ranks its images before the others."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from cnnkit.metrics.softmax import Integers, PerImage

__all__ = ["roc_auc"]

BLOCK = 2**22  # probabilities at once: 32 MB; a block of columns must be wide enough to read the rows in pieces


def roc_auc(logits: NDArray[Any], labels: Integers, images: PerImage, temperature: float = 1.0) -> list[float | None]:
    """Return each class's area under the ROC curve, one class against the rest; equal probabilities count half.

    It is None for a class without images, and for one that all images have. The area is the Mann-Whitney statistic,
    from the ranks of the class's images (equal ones have their mean rank).
    """
    count, classes = logits.shape
    support = np.bincount(labels, minlength=classes)
    rows_of = np.split(np.argsort(labels, kind="stable"), np.cumsum(support)[:-1])
    defined = np.flatnonzero((support > 0) & (support < count))
    areas: list[float | None] = [None] * classes
    for columns in np.array_split(defined, max(-(-count * len(defined) // BLOCK), 1)):
        chances = np.ascontiguousarray(logits[:, columns].T, dtype=np.float64)
        chances -= images.largest
        chances /= temperature
        np.exp(chances, out=chances)
        chances /= images.total
        for column, chance in zip(columns.tolist(), chances, strict=True):
            own = np.sort(chance[rows_of[column]])
            chance.sort()
            ranks = (np.searchsorted(chance, own, "left") + np.searchsorted(chance, own, "right") + 1) / 2
            positives = len(own)
            above = ranks.sum() - positives * (positives + 1) / 2
            areas[column] = float(above / (positives * (count - positives)))
    return areas
