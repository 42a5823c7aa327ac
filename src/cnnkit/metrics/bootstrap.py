"""Averages over classes, and their intervals and those of F1 from a bootstrap of the images (Efron 1979)."""

from dataclasses import dataclass

import numpy as np

from cnnkit.metrics.intervals import Estimate, wilson
from cnnkit.metrics.softmax import Floats, Integers

__all__ = ["Averages", "Resampled", "resampled"]

RESAMPLES = 1000
QUANTILES = (0.025, 0.975)
BLOCK = 2**20  # counts at once: 8 MB
ROUNDING = 1e-9


@dataclass(frozen=True)
class Averages:
    """Means over classes, each with its interval."""

    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True)
class Resampled:
    """The estimates whose intervals come from the bootstrap."""

    macro: Averages
    """Mean over the classes that occur among labels or predictions; an undefined value counts as 0."""
    weighted: Averages
    """The same, weighted by the classes' numbers of images."""
    balanced_accuracy: Estimate
    """Mean recall of the classes that have images."""
    f1: dict[int, Estimate]
    """F1 of each class that occurs among labels or predictions."""


def resampled(cells: Integers, seed: int) -> Resampled:
    """Return averages and F1 with the 2.5 and 97.5 % quantiles over RESAMPLES bootstrap samples of the images.

    `cells` are the non-zero cells of the confusion matrix: rows of true class, predicted class and number of images,
    sorted. A sample of the images is a multinomial sample of the cells. F1 is taken over the samples in which its class
    occurs. The samples of averages are moved to have the value as their mean: with few images per class they are
    biased, by up to more than the interval's width. If the quantiles agree, as without any error, they say nothing
    about the uncertainty: the interval is then Wilson's for that many images.
    """
    counts = cells[:, 2]
    num_images = int(counts.sum())
    occurring, numbers = np.unique(cells[:, :2], return_inverse=True)
    table = _Table(numbers.reshape(-1, 2), len(occurring))
    averages = np.empty((7, RESAMPLES))
    f1 = np.empty((len(occurring), RESAMPLES))
    draw = np.random.default_rng(seed)
    step = max(BLOCK // len(cells), 1)
    for start in range(0, RESAMPLES, step):
        stop = min(start + step, RESAMPLES)
        sample = table.sums(draw.multinomial(num_images, counts / num_images, size=stop - start))
        averages[:, start:stop] = _averages(*sample)
        f1[:, start:stop] = np.where(sample[1] + sample[2] > 0, _f1(*sample), np.nan).T
    whole = table.sums(counts[None])
    values = _averages(*whole)
    averages += values - averages.mean(1, keepdims=True)
    found = _estimates(values[:, 0], averages, np.full(7, num_images))
    union = whole[1] + whole[2] - whole[0]  # the images that have the class or are predicted as it
    own = _estimates(_f1(*whole)[0], f1, union[0])
    by_class = dict(zip(occurring.tolist(), own, strict=True))
    return Resampled(Averages(*found[:3]), Averages(*found[3:6]), found[6], by_class)


class _Table:
    """Sums over the cells of a confusion matrix; `classes` are pairs of true and predicted class, sorted."""

    def __init__(self, classes: Integers, num_classes: int):
        true, predicted = classes.T
        self.num_classes = num_classes
        self.diagonal = np.flatnonzero(true == predicted)
        self.correct = true[self.diagonal]
        self.order = np.argsort(predicted, kind="stable")
        self.predicted, self.columns = np.unique(predicted[self.order], return_index=True)
        self.true, self.rows = np.unique(true, return_index=True)

    def sums(self, counts: Integers) -> tuple[Integers, Integers, Integers]:
        """Return correct, predicted and true images of each class (samples x classes), from counts samples x cells."""
        correct, predicted, support = np.zeros((3, len(counts), self.num_classes), np.int64)
        correct[:, self.correct] = counts[:, self.diagonal]
        predicted[:, self.predicted] = np.add.reduceat(counts[:, self.order], self.columns, axis=1)
        support[:, self.true] = np.add.reduceat(counts, self.rows, axis=1)
        return correct, predicted, support


def _averages(correct: Integers, predicted: Integers, support: Integers) -> Floats:
    """Return macro and weighted precision, recall and F1, and balanced accuracy: 7 x samples."""
    recall = _share(correct, support)
    values = [_share(correct, predicted), recall, _f1(correct, predicted, support)]
    occurring = (predicted + support > 0).sum(1)
    macro = [value.sum(1) / occurring for value in values]
    weighted = [np.einsum("ij,ij->i", value, support) / support.sum(1) for value in values]
    return np.stack([*macro, *weighted, recall.sum(1) / (support > 0).sum(1)])


def _f1(correct: Integers, predicted: Integers, support: Integers) -> Floats:
    return _share(2 * correct, predicted + support)


def _share(part: Integers, whole: Integers) -> Floats:
    """Return part / whole, 0 where whole is 0."""
    return part / np.maximum(whole, 1)


def _estimates(values: Floats, samples: Floats, totals: Integers) -> list[Estimate]:
    """Return values, from `totals` images, with their quantiles over samples: values x samples, NaN where undefined."""
    low, high = np.clip(np.nanquantile(samples, QUANTILES, axis=1), 0, 1)
    columns = (values, np.minimum(low, values), np.maximum(high, values), totals)
    return [
        Estimate(value, least, most) if most - least > ROUNDING else wilson(value * total, total)
        for value, least, most, total in zip(*(column.tolist() for column in columns), strict=True)
    ]
