"""Types of saved files and settings, with sensible ranges, and one-line reasons for invalid values."""

import re
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
    "Temperature",
    "Word",
    "brief",
    "describe",
    "reason_of",
    "validated",
]

PLAIN = {  # pydantic's words, and plainer ones
    "Value error, ": "",
    "Input ": "",
    "should ": "must ",
    "be a valid ": "be a ",
    "a integer": "an integer",
    "greater than or equal to": "at least",
    "a tuple, list, dictionary": "a list or an object",
}
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
Temperature = Annotated[float, Field(strict=True, ge=0.01, le=100)]
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
        raise ValueError(describe(error.errors(include_url=False)[0])) from error


def describe(row: Any) -> str:
    """Return the line for one of pydantic's errors: the field, what it must be, and its value."""
    field, reason = ".".join(map(str, row["loc"])), reason_of(row)
    if not reason.startswith("must "):
        return f"{field}: {reason}".removeprefix(": ")
    given = brief(row["input"])
    if row["type"].startswith(("greater", "less", "value")):  # a number, which flags pass as text
        given = given.strip("'")
    return f"{field} {reason}, not {given}".lstrip()


def reason_of(row: Any) -> str:
    """Return the message of one of pydantic's errors, with readable numbers."""
    if row["type"] == "less_than_equal":
        most = row["ctx"]["le"]
        return f"must be at most {most:,}" if isinstance(most, int) else f"must be at most {most:g}"
    reason = re.split(", unable to |, got | or an instance of ", row["msg"])[0]
    for theirs, plain in PLAIN.items():
        reason = reason.replace(theirs, plain)
    return reason


def brief(value: Any) -> str:
    """Return the repr of a value, truncated if it is long."""
    try:
        return SHORT.repr(value)
    except ValueError:  # more digits than Python writes
        return "a number with too many digits"
