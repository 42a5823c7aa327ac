"""The search space: the settings to vary, each with choices or a range."""

import json
import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.limits import MAX_COUNT
from cnnkit.core.text import without_passwords
from cnnkit.train.config import explain

if TYPE_CHECKING:
    from optuna.trial import Trial

__all__ = ["Choices", "Range", "Space", "flatten", "overlay", "parse_space"]


@dataclass(frozen=True)
class Choices:
    """Unordered values."""

    values: tuple[Any, ...]

    @property
    def samples(self) -> tuple[Any, ...]:
        """Values whose validity implies that all are valid."""
        return self.values

    def suggest(self, trial: "Trial", name: str) -> Any:
        """Return the value for this trial."""
        labels: dict[Any, Any] = {_label(value): value for value in self.values}
        return labels[trial.suggest_categorical(name, [*labels])]


class Range(BaseModel):
    """Numbers from `low` to `high`, both included; integers if both are."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    low: int | float = Field(ge=-MAX_COUNT, le=MAX_COUNT)
    high: int | float = Field(ge=-MAX_COUNT, le=MAX_COUNT)
    log: bool = False
    step: int | float | None = Field(None, ge=1e-12, le=MAX_COUNT)

    @model_validator(mode="after")
    def _together(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be below high, not {self.low} and {self.high}")
        if self.log and (self.low <= 0 or self.step is not None):
            raise ValueError("log needs a low above 0 and no step")
        if self.step is not None:
            if self.whole and not isinstance(self.step, int):
                raise ValueError(f"step must be an integer, like low and high, not {self.step}")
            steps = (self.high - self.low) / self.step
            if not math.isclose(steps, round(steps)):
                last = self.low + int(steps) * self.step
                raise ValueError(f"high must be low plus a multiple of step, such as {last:g}, not {self.high}")
        return self

    @property
    def whole(self) -> bool:
        """Whether it holds integers only."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    @property
    def samples(self) -> tuple[float, ...]:
        """Values whose validity implies that all are valid."""
        inside = self.low + (self.step or (self.high - self.low) / math.pi)  # no integer
        return (self.low, self.high) if self.whole else (self.low, inside, self.high)

    def suggest(self, trial: "Trial", name: str) -> float:
        """Return the value for this trial."""
        if self.whole:
            return trial.suggest_int(name, int(self.low), int(self.high), step=int(self.step or 1), log=self.log)
        return trial.suggest_float(name, self.low, self.high, step=self.step, log=self.log)


Space = dict[str, Choices | Range]


def parse_space(content: Any, tables: Collection[str]) -> Space:
    """Return the space that a TOML table describes: a list of choices or a range for each setting.

    Entries of settings that are `tables` are varied one by one, as "stage_lr.head". Raises UsageError.
    """
    if not isinstance(content, Mapping) or not content:
        raise UsageError("[space] must be a table of settings, such as lr = {low = 1e-4, high = 0.1, log = true}")
    space: Space = {}
    for name, value in flatten(content, tables).items():
        table, _, entry = name.partition(".")
        if entry and table not in tables:
            raise unknown("table in [space]", table, tables)
        space[name] = _dimension(name, value)
    return space


def flatten(settings: Mapping[str, Any], tables: Collection[str]) -> dict[str, Any]:
    """Return the settings with the entries of tables as separate settings.

    >>> flatten({"lr": 1, "stage_lr": {"stem": 2, "head": 3}}, ["stage_lr"])
    {'lr': 1, 'stage_lr.stem': 2, 'stage_lr.head': 3}
    """
    flat: dict[str, Any] = {}
    for name, value in settings.items():
        if name in tables and isinstance(value, Mapping):
            flat |= {f"{name}.{entry}": inner for entry, inner in value.items()}
        else:
            flat[name] = value
    return flat


def overlay(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with flattened changes applied.

    >>> overlay({"lr": 1, "stage_lr": {"stem": 2}}, {"stage_lr.head": 3})
    {'lr': 1, 'stage_lr': {'stem': 2, 'head': 3}}
    """
    result = dict(settings)
    for name, value in changes.items():
        table, _, entry = name.partition(".")
        result[table] = {**result.get(table, {}), entry: value} if entry else value
    return result


def _dimension(name: str, value: Any) -> Choices | Range:
    if isinstance(value, list) and value:
        labels = [_label(choice) for choice in value]
        if len(set(labels)) < len(labels):
            raise UsageError(f"[space] {name} repeats a choice: {value}")
        return Choices(tuple(value))
    if isinstance(value, Mapping):
        try:
            return Range(**value)
        except ValidationError as error:
            raise UsageError(f"[space] {name}: {explain(error, Range)}") from error
    raise UsageError(f"[space] {name} takes a list of choices, or a range {{low = ..., high = ...}}, not {value!r}")


def _label(value: Any) -> str | int | float:
    """Return the form in which the storage keeps a value: itself, without the password of a URL, or its JSON."""
    if isinstance(value, str):
        return without_passwords(value)
    return value if isinstance(value, int | float) else json.dumps(value, default=str)  # TOML has dates
