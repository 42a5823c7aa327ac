"""The errors that users can cause, each with the exit code of the command line."""

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from difflib import get_close_matches
from typing import TypeVar

from cnnkit.core.text import printable

__all__ = ["CnnkitError", "DataError", "Interrupted", "UsageError", "about", "pick", "reading", "unknown"]

Key = TypeVar("Key")
Row = TypeVar("Row")
MANY = 20  # names, too many for one line


class CnnkitError(Exception):
    """A failure while running; the message says what failed, for which value, and what to do.

    Its text is one printable line, even if names in it hold control characters.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(CnnkitError, ValueError):
    """An argument cannot be used."""

    exit_code = 2


class DataError(CnnkitError):
    """A data set or an image is missing, corrupt or inconsistent."""

    exit_code = 3


class Interrupted(CnnkitError):
    """The user or the system interrupted the run; its progress has been saved."""

    exit_code = 130


@contextmanager
def about(place: object) -> Iterator[None]:
    """Put the name of a file, or of another input, in front of the reason of a DataError."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{place}: {error}") from error


@contextmanager
def reading(path: object) -> Iterator[None]:
    """Raise CnnkitError, with the path, for an OSError, and for a ValueError, which means invalid content."""
    try:
        yield
    except OSError as error:
        raise CnnkitError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CnnkitError(f"{path}: corrupt ({error})") from error


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for an unknown name, with the nearest known one, and all of them if they are few.

    >>> unknown("network", "lenett", ["lenet", "lenet_bn"])
    UsageError("unknown network 'lenett'; did you mean 'lenet'? known: lenet, lenet_bn")
    """
    names = sorted(known)
    near = get_close_matches(str(name), names, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    if len(names) > MANY:
        nearest = get_close_matches(str(name), names, n=5, cutoff=0)
        return UsageError(f"unknown {kind} {name!r}; {hint}the nearest of {len(names)}: {', '.join(nearest)}")
    return UsageError(f"unknown {kind} {name!r}; {hint}known: {', '.join(names)}")


def pick(table: Mapping[Key, Row], key: Key, kind: str) -> Row:
    """Return a row of a table; raises UsageError, as `unknown` words it, for another key."""
    if key not in table:
        raise unknown(kind, key, map(str, table))
    return table[key]
