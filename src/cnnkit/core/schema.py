"""Types of saved files and settings, with sensible ranges, and one-line reasons for invalid values."""

import reprlib
from typing import Annotated, Any, TypeVar

from pydantic import BaseModel, Field, ValidationError

from cnnkit.core.limits import MAX_CANVAS, MAX_COUNT

__all__ = [
    "Argument",
    "Count",
    "Figure",
    "Mean",
    "Number",
    "Pixels",
    "Share",
    "Std",
    "Word",
    "brief",
    "reason_of",
    "validated",
]

UNSHOWN = ("missing", "extra_forbidden", "value_error", "too_long", "too_short")  # errors that need no value
Model = TypeVar("Model", bound=BaseModel)
SHORT = reprlib.Repr()
SHORT.maxlevel, SHORT.maxstring, SHORT.maxother = 2, 80, 80

Word = Annotated[str, Field(strict=True)]
Number = Annotated[float, Field(strict=True, ge=-1e300, le=1e300)]  # a finite one
Count = Annotated[int, Field(strict=True, ge=0, le=MAX_COUNT)]
Figure = Annotated[bool, Field(strict=True)] | Count | Annotated[float, Field(strict=True)] | None
Pixels = Annotated[int, Field(strict=True, ge=1, le=MAX_CANVAS)]
Share = Annotated[float, Field(strict=True, ge=0, lt=1)]
Mean = Annotated[float, Field(strict=True, ge=-1e9, le=1e9)]
Std = Annotated[float, Field(strict=True, ge=1e-12, le=1e9)]
# of a network's builder; strict, so that an integer is not a boolean and vice versa
Argument = (
    Annotated[bool, Field(strict=True)]
    | Annotated[int, Field(strict=True, ge=-(10**9), le=10**9)]
    | Annotated[float, Field(strict=True, ge=-1e9, le=1e9)]
    | Annotated[str, Field(strict=True, max_length=1_000)]
)


def validated(kind: type[Model], content: Any) -> Model:
    """Return the content of a file as a model; raises ValueError with the first wrong field and its value."""
    try:
        return kind.model_validate(content)
    except ValidationError as error:
        row = error.errors(include_url=False)[0]
        place = ".".join(map(str, row["loc"]))
        given = "" if row["type"] in UNSHOWN else f", not {brief(row['input'])}"
        raise ValueError(f"{place}: {reason_of(row)}{given}".removeprefix(": ")) from error


def reason_of(row: Any) -> str:
    """Return the message of one of pydantic's errors, with readable numbers."""
    if row["type"] == "less_than_equal":
        most = row["ctx"]["le"]
        return f"should be at most {most:,}" if isinstance(most, int) else f"should be at most {most:g}"
    return str(row["msg"]).removeprefix("Value error, ").removeprefix("Input ")


def brief(value: Any) -> str:
    """Return the repr of a value, truncated if it is long."""
    try:
        return SHORT.repr(value)
    except ValueError:  # more digits than Python writes
        return "a number with too many digits"
