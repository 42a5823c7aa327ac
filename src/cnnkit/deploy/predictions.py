"""Predictions of a classifier."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor

from cnnkit.core.console import aligned
from cnnkit.core.errors import UsageError
from cnnkit.core.files import write_output
from cnnkit.core.places import expanded
from cnnkit.core.text import encode, printable, to_csv

__all__ = ["Predictions"]

SHOWN = 10  # images in the repr


@dataclass(frozen=True, eq=False)
class Predictions(Sequence[list[dict[str, Any]]]):
    """Predictions for the images that could be read, in their order.

    As a sequence it is plain data: for each image a list of {"label", "score"}, the most likely class first; scores
    are probabilities. `logits` are float32, N x classes; `names` are the paths of files, or "image 0" and so on.
    `errors` has the reason for each image that could not be read. `temperature` divides the logits before the softmax:
    it changes the scores, not the order of the classes.
    """

    classes: tuple[str, ...]
    names: tuple[str, ...]
    logits: Tensor
    errors: Mapping[str, str] = field(default_factory=dict)
    temperature: float = 1.0

    @cached_property
    def probabilities(self) -> Tensor:
        """Softmax of the logits, divided by the temperature: float32, N x classes."""
        return (self.logits / self.temperature).softmax(1)

    @cached_property
    def labels(self) -> list[str]:
        """The most likely class of each image."""
        return [self.classes[index] for index in self.logits.argmax(1).tolist()]

    def __len__(self) -> int:
        return len(self.names)

    @overload
    def __getitem__(self, index: int) -> list[dict[str, Any]]: ...
    @overload
    def __getitem__(self, index: slice) -> "Predictions": ...
    def __getitem__(self, index: int | slice) -> "list[dict[str, Any]] | Predictions":
        if isinstance(index, slice):
            rows = list(range(len(self)))[index]
            return Predictions(self.classes, self.names[index], self.logits[rows], self.errors, self.temperature)
        return self._best(range(len(self))[index], len(self.classes))

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        return (self._best(index, len(self.classes)) for index in range(len(self)))

    def to_list(self, top: int | None = None) -> list[list[dict[str, Any]]]:
        """Return the `top` classes of each image, all by default, as plain data; raises UsageError for top below 1."""
        if top is not None and top < 1:
            raise UsageError(f"top must be at least 1, not {top}")
        most = len(self.classes) if top is None else min(top, len(self.classes))
        return [self._best(index, most) for index in range(len(self))]

    def to_csv(self, path: Path | str | None = None) -> str | None:
        """Write CSV with the columns image, label, score, error and p_CLASS for each class; without a path, return it.

        Images that could not be read have only an error. Raises CnnkitError if the file cannot be written.
        """
        rows = [["image", "label", "score", "error", *(f"p_{name}" for name in self.classes)]]
        for name, label, row in zip(self.names, self.labels, self.probabilities.tolist(), strict=True):
            rows.append([name, label, f"{max(row):.6g}", "", *(f"{value:.6g}" for value in row)])
        rows += [[name, "", "", reason, *([""] * len(self.classes))] for name, reason in self.errors.items()]
        text = to_csv(rows)
        if path is None:
            return text
        write_output(expanded(path), encode(text))
        return None

    def __repr__(self) -> str:
        scores = self.probabilities[:SHOWN].amax(1).tolist()
        answers = [f"{label} {score:.1%}" for label, score in zip(self.labels, scores, strict=False)]
        lines = aligned(zip(self.names, answers, strict=False))
        more = [f"and {len(self) - SHOWN:,} more"] if len(self) > SHOWN else []
        failed = [printable(f"{name}: {reason}") for name, reason in self.errors.items()]
        failed = [*failed[:SHOWN], *([f"and {len(failed) - SHOWN:,} more errors"] if len(failed) > SHOWN else [])]
        return "\n".join([*lines, *more, *failed]) or "no images"

    def _best(self, index: int, most: int) -> list[dict[str, Any]]:
        # by the logits, as probabilities may be equal where they differ; of equal ones the first, as in `labels`
        places = self.logits[index].sort(descending=True, stable=True).indices[:most]
        pairs = zip(places.tolist(), self.probabilities[index, places].tolist(), strict=True)
        return [{"label": self.classes[place], "score": score} for place, score in pairs]


def joined(classes: tuple[str, ...], rows: Iterable[tuple[str, Tensor | str]], temperature: float = 1.0) -> Predictions:
    """Return predictions from pairs of an image's name and its logits, or the reason that it could not be read."""
    names, logits, errors = [], [], {}
    for name, answer in rows:
        if isinstance(answer, str):
            errors[name] = answer
        else:
            names.append(name)
            logits.append(answer)
    stacked = torch.stack(logits) if logits else torch.empty(0, len(classes))
    return Predictions(classes, tuple(names), stacked, errors, temperature)
