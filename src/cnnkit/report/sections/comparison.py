"""The run compared with the majority class and with the run before it."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cnnkit.core.errors import CnnkitError
from cnnkit.core.text import counted, short
from cnnkit.deploy import read_bundle
from cnnkit.experiment.predictions import SplitPredictions, read_predictions
from cnnkit.experiment.record import read_record
from cnnkit.metrics import Estimate, wilson
from cnnkit.report.data_card import DataCard
from cnnkit.report.runs import summarise
from cnnkit.report.sections.parts import Missing

__all__ = ["Earlier", "Majority", "earlier_run", "majority"]


@dataclass(frozen=True)
class Majority:
    """The answer that is always the most frequent class of the training images."""

    name: str
    correct: int
    accuracy: Estimate

    def __str__(self) -> str:
        return (
            f"Always answering {short(self.name)}, the most frequent class of the training images, "
            f"would have an accuracy of {self.accuracy.rounded}."
        )


@dataclass(frozen=True)
class Earlier:
    """The run before this one on the same images; `gained` are those that only this run gets right, `lost` the others.

    `share` is the share of gained images among both, None without any.
    """

    name: str
    correct: int
    accuracy: Estimate
    gained: int
    lost: int
    share: Estimate | None

    def __str__(self) -> str:
        if self.share is None:
            verdict = "both are right on the same images"
        else:
            verdict = (
                f"this run is right on {counted(self.gained, 'image')} that it gets wrong, "
                f"and wrong on {self.lost:,} that it gets right"
            )
            verdict += f"; chance {'does not explain' if self.is_clear else 'can explain'} that difference"
        return f"The run before, {self.name}, has an accuracy of {self.accuracy.rounded}: {verdict}."

    @property
    def is_clear(self) -> bool:
        """Whether more than chance: the interval of `share` does not contain one half (a sign test)."""
        return self.share is not None and not self.share.low <= 0.5 <= self.share.high


def majority(run: Path, card: DataCard | Missing, predictions: SplitPredictions) -> Majority | None:
    """Return how often the most frequent class of the training images is right; None if their counts are unknown.

    They are those of split.json, as images may have been deleted since, or else of the data.
    """
    labels = (read_record(run) or {}).get("labels", {}).get("train")
    counts = np.bincount(labels) if labels else () if isinstance(card, Missing) else card.counts.get("train", ())
    if not len(counts):
        return None
    best = int(np.argmax(counts))
    correct = int((predictions.labels == best).sum())
    return Majority(predictions.classes[best], correct, wilson(correct, len(predictions)))


def earlier_run(run: Path, predictions: SplitPredictions) -> Earlier | None:
    """Return the last run beside `run` that was started before it and has kept predictions for the same images.

    Those of earlier weights do not count.
    """
    mine = summarise(run).started
    found = []
    for path in sorted(run.parent.glob(f"*/{predictions.file_name}")):
        if path.parent.samefile(run) or (started := summarise(path.parent).started) >= mine:
            continue
        try:
            other, (_, bundle) = read_predictions(path), read_bundle(path.parent)
        except CnnkitError:  # corrupt
            continue
        same = other.data_sha256 == predictions.data_sha256 and other.classes == predictions.classes
        if same and other.model_sha256 == bundle.model_sha256:
            found.append((started, path.parent.name, other))
    if not found:
        return None
    _, name, other = max(found, key=lambda one: one[0])
    here, there = (one.predicted == one.labels for one in (predictions, other))
    gained, lost = int((here & ~there).sum()), int((there & ~here).sum())
    share = wilson(gained, gained + lost) if gained + lost else None
    correct = int(there.sum())
    return Earlier(name, correct, wilson(correct, len(there)), gained, lost, share)
