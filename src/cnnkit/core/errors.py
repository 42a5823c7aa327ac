"""The errors a user can cause or meet; each knows the exit code that the command line returns for it."""

from collections.abc import Iterable
from difflib import get_close_matches

from cnnkit.core.text import printable

__all__ = ["CnnkitError", "DataError", "Interrupted", "UsageError", "unknown"]


MANY = 20  # names, too many for one line


class CnnkitError(Exception):
    """Something failed while running; the message says what, which value, and what to do.

    As text it is one line that only prints, whatever the names in it hold.
    """

    exit_code = 1

    def __str__(self) -> str:
        return printable(super().__str__())


class UsageError(CnnkitError, ValueError):
    """An argument cannot be used."""

    exit_code = 2


class DataError(CnnkitError):
    """A data set or an image is missing, damaged or inconsistent."""

    exit_code = 3


class Interrupted(CnnkitError):
    """The user or the system asked to stop; what was done so far has been saved."""

    exit_code = 130


def unknown(kind: str, name: object, known: Iterable[str]) -> UsageError:
    """Return the error for a wrong name, with the nearest right one, and all of them if they are few.

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
