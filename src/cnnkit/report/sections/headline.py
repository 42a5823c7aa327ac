"""The headline of a report: how good the network is, in sentences for a reader in a hurry."""

from dataclasses import dataclass

from cnnkit.core.text import counted, short
from cnnkit.experiment.evaluation import Evaluation
from cnnkit.metrics import Estimate, Scores
from cnnkit.report.sections.certainty import Certainty
from cnnkit.report.sections.comparison import Earlier, Majority
from cnnkit.report.sections.confusion import Confusion

__all__ = ["Headline", "headline"]


@dataclass(frozen=True)
class Headline:
    """The accuracy on a split of the data, what to compare it with, and the same in sentences."""

    net: str
    data: str
    split: str
    images: int
    correct: int
    accuracy: Estimate
    majority: Majority | None
    earlier: Earlier | None
    sentences: tuple[str, ...]
    remarks: tuple[str, ...]


def headline(
    evaluation: Evaluation,
    certainty: Certainty,
    confusion: Confusion,
    majority: Majority | None,
    earlier: Earlier | None,
) -> Headline:
    """Return the headline of an evaluation."""
    predictions, scores = evaluation.predictions, evaluation.scores
    correct = int((predictions.predicted == predictions.labels).sum())
    sentences = [
        f"{correct:,} of {counted(len(predictions.labels), 'image')} are classified correctly: an accuracy of "
        f"{scores.accuracy.rounded}, with a 95 % interval from {_ends(scores.accuracy)}.",
        *(str(one) for one in (majority, earlier) if one),
        certainty.sentence,
        *_confused(confusion, predictions.classes),
        *_weakest(scores, predictions.classes),
    ]
    return Headline(
        predictions.net,
        predictions.data,
        predictions.split,
        len(predictions.labels),
        correct,
        scores.accuracy,
        majority,
        earlier,
        tuple(sentences),
        evaluation.remarks,
    )


def _ends(accuracy: Estimate) -> str:
    return f"{accuracy.low:.{accuracy.decimals}f} to {accuracy.high:.{accuracy.decimals}f}"


def _confused(confusion: Confusion, names: tuple[str, ...]) -> list[str]:
    """Return a sentence on the most confused pair, if there are mistakes."""
    if not (pairs := confusion.pairs()):
        return []
    worst = pairs[0]
    total = next(group.images for group in confusion.groups if group.true == worst.true)
    return [
        f"The most frequent mistake: {short(names[worst.true])} predicted as {short(names[worst.predicted])}, "
        f"{worst.count:,} of {counted(total, 'image')}."
    ]


def _weakest(scores: Scores, names: tuple[str, ...]) -> list[str]:
    """Return a sentence on the class with the lowest recall, unless all have the same."""
    recalls = {name: one.recall for name, one in zip(names, scores.classes, strict=True) if one.recall is not None}
    if len({recall.value for recall in recalls.values()}) < 2:  # whatever their intervals
        return []
    name, recall = min(recalls.items(), key=lambda one: one[1].value)
    return [f"The weakest class: {short(name)}, of whose images {recall.percent()} are found."]
