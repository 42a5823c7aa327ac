"""The metrics of a run's epochs (metrics.jsonl) as rows, columns and curves."""

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, overload

from pydantic import BaseModel, BeforeValidator, Field

from cnnkit.core.console import as_text, table
from cnnkit.core.errors import CnnkitError, DataError, pick
from cnnkit.core.extras import require
from cnnkit.core.files import read_bytes
from cnnkit.core.limits import MAX_COUNT, MAX_EPOCHS
from cnnkit.core.schema import Number, brief, validated
from cnnkit.core.text import from_json
from cnnkit.figures.curves import Panel, Plot, Series
from cnnkit.figures.html import html_table

__all__ = ["METRICS", "History", "panels", "read_metrics", "require_number"]

Row = dict[str, Any]
METRICS = {  # title, label with its unit, and the keys of metrics.jsonl: training, validation
    "loss": ("Loss", "cross entropy (nats)", "train_loss", "val_loss"),
    "accuracy": ("Accuracy", "share of the images", "train_accuracy", "val_accuracy"),
    "lr": ("Learning rate", "at the end of the epoch", "lr"),
    "time": ("Time", "training time per epoch (s)", "seconds"),
    "speed": ("Speed", "training images per second", "images_per_second"),
}
SHOWN = {  # column: key of metrics.jsonl and format
    "epoch": ("epoch", "d"),
    "train loss": ("train_loss", ".4f"),
    "train accuracy": ("train_accuracy", ".4f"),
    "val loss": ("val_loss", ".4f"),
    "val accuracy": ("val_accuracy", ".4f"),
    "lr": ("lr", ".2g"),
    "seconds": ("seconds", ".1f"),
    "images/s": ("images_per_second", ",.0f"),
}


Positive = Annotated[float, Field(strict=True, ge=0, le=1e12)]
Measured = Annotated[
    Number | None,
    BeforeValidator(lambda value: None if isinstance(value, float) and not math.isfinite(value) else value),
]


class Epoch(BaseModel):
    """A row of metrics.jsonl; NaN and Inf are null, or NaN in files of earlier versions."""

    epoch: Annotated[int, Field(strict=True, ge=1, le=MAX_EPOCHS)]
    train_loss: Measured
    train_accuracy: Measured
    val_loss: Measured
    val_accuracy: Measured
    lr: Positive
    seconds: Positive
    images_per_second: Positive
    best: Annotated[bool, Field(strict=True)]


class History(Sequence[Row]):
    """One dict for each finished epoch: epoch, train_loss, train_accuracy, val_loss, ..., best.

    `history[0]` is a row, `history["val_loss"]` a column, `history.columns()` a dict of all columns.
    """

    def __init__(self, rows: Sequence[Row], name: str = ""):
        self._rows, self.name = list(rows), name

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, index: int) -> Row: ...
    @overload
    def __getitem__(self, index: slice) -> "History": ...
    @overload
    def __getitem__(self, index: str) -> list[Any]: ...
    def __getitem__(self, index: int | slice | str) -> "Row | History | list[Any]":
        if isinstance(index, slice):
            return History(self._rows[index], self.name)
        return pick(self.columns(), index, "column") if isinstance(index, str) else self._rows[index]

    def __iter__(self) -> Iterator[Row]:
        return iter(self._rows)

    @property
    def best(self) -> Row | None:
        """The row of the epoch whose weights are in best/; None if no epoch is finished."""
        return next((row for row in reversed(self._rows) if row["best"]), None)

    def columns(self) -> dict[str, list[Any]]:
        """Return each metric as a list over the epochs."""
        return {name: [row[name] for row in self._rows] for name in (self._rows[0] if self._rows else {})}

    def to_pandas(self) -> Any:
        """Return a pandas frame with a row for each epoch; raises CnnkitError if pandas is missing."""
        return require("pandas", None).DataFrame(self._rows)

    def plot(self, *metrics: str) -> Plot:
        """Return curves of loss and accuracy, or of the named METRICS, side by side; a notebook shows them.

        Raises UsageError for an unknown metric, CnnkitError if no epoch is finished or matplotlib is missing.
        """
        if not self._rows:
            raise CnnkitError(f"{self.name or 'the run'}: no finished epoch yet; there is nothing to plot")
        return Plot(panels({self.name: self._rows}, metrics or ("loss", "accuracy")), self.name)

    def __repr__(self) -> str:
        return as_text(table(list(SHOWN), self._shown(), text=0)) if self._rows else "no finished epoch yet"

    def _repr_html_(self) -> str:
        return html_table(list(SHOWN), self._shown(), text=0)

    def _shown(self) -> list[list[str]]:
        """Return the formatted cells of each row."""
        return [
            ["-" if row[key] is None else format(row[key], how) for key, how in SHOWN.values()] for row in self._rows
        ]


def panels(runs: Mapping[str, Sequence[Row]], metrics: Sequence[str]) -> list[Panel]:
    """Return a panel for each named metric of METRICS, with the curves of the runs by name.

    Raises UsageError for an unknown metric.
    """
    result = []
    for metric in metrics:
        title, unit, *keys = pick(METRICS, metric, "metric")
        series = []
        for colour, (name, rows) in enumerate(runs.items()):
            for dashed, key in enumerate(keys):
                label = "validation" if dashed else "training"
                points = [(row["epoch"], row[key]) for row in rows if row[key] is not None]
                if points:
                    x, y = zip(*points, strict=True)
                    series.append(Series(label if len(runs) == 1 else f"{name} {label}", x, y, bool(dashed), colour))
        result.append(Panel(title, "epoch", unit, series))
    return result


def read_metrics(path: Path) -> list[Row]:
    """Return the rows of a run's metrics.jsonl, one for each finished epoch.

    An incomplete last line, being written or cut off by a crash, is skipped; NaN and Inf become None. Raises DataError
    for any other corrupt row, and for a file that cannot be read.
    """
    place = path / "metrics.jsonl"
    try:
        lines = read_bytes(place).decode(errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise DataError(f"{place}: cannot be read ({error.strerror})") from error
    if lines and not lines[-1].endswith("\n"):
        lines.pop()
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            rows.append(validated(Epoch, from_json(line)).model_dump())
        except ValueError as error:
            raise DataError(f"{place}: line {number} is not a valid row of metrics ({error})") from error
    return rows


def require_number(row: Any, key: str) -> float:
    """Return the number under `key`; raises DataError if there is none."""
    value = row.get(key) if isinstance(row, dict) else None
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= MAX_COUNT:
        raise DataError(f"{key} is {brief(value)}, not a number")
    return value
