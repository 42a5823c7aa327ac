"""The scores of the classes and over all images."""

import math
from dataclasses import dataclass

from cnnkit.metrics import Estimate, Scores

__all__ = ["ClassRow", "ClassTable", "class_table", "score_rows"]

AVERAGES = {"precision": "precision", "recall": "recall", "F1": "f1"}


@dataclass(frozen=True)
class ClassRow:
    """The scores of a class; undefined ones are None."""

    name: str
    precision: Estimate | None
    recall: Estimate | None
    f1: Estimate | None
    roc_auc: float | None
    support: int
    predicted: int


@dataclass(frozen=True)
class ClassTable:
    """A row for each class, in their order."""

    rows: tuple[ClassRow, ...]

    def worst(self, most: int) -> tuple[ClassRow, ...]:
        """Return all rows or, if there are more than `most`, those with the lowest recall."""
        if len(self.rows) <= most:
            return self.rows
        return tuple(sorted(self.rows, key=lambda row: math.inf if row.recall is None else row.recall.value)[:most])


def class_table(scores: Scores, names: tuple[str, ...]) -> ClassTable:
    """Return the scores of each class."""
    return ClassTable(
        tuple(
            ClassRow(name, one.precision, one.recall, one.f1, one.roc_auc, one.support, one.predicted)
            for name, one in zip(names, scores.classes, strict=True)
        )
    )


def score_rows(scores: Scores) -> list[tuple[str, str]]:
    """Return the scores over all images, each a name and a value."""
    rows: list[tuple[str, object]] = [("accuracy", scores.accuracy)]
    rows += [(f"accuracy of the {k} most likely classes", value) for k, value in scores.top_k.items()]
    rows += [("balanced accuracy (mean recall)", scores.balanced_accuracy)]
    for name, means in (("macro", scores.macro), ("weighted", scores.weighted)):
        rows += [(f"{name} average of {key}", getattr(means, field)) for key, field in AVERAGES.items()]
    rows += [("ROC-AUC, one class against the others", scores.roc_auc)]
    rows += [("log loss (nats)", scores.log_loss), ("Brier score (0 to 2)", scores.brier)]
    digits = scores.accuracy.decimals + 1  # of scores without an interval
    return [(name, _shown(value, digits)) for name, value in rows]


def _shown(value: object, digits: int) -> str:
    if value is None:
        return "-"
    return f"{value:.{digits}f}" if isinstance(value, float) else str(value)
