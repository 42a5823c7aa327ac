"""The images that a verb is given: files, folders, globs, or paths from standard input."""

import os
import sys
from pathlib import Path

from cnnkit.core.errors import UsageError

__all__ = ["given_paths"]


def given_paths(given: tuple[str, ...], verb: str) -> list[str]:
    """Return the paths: existing names as they are, "-" replaced by the lines of standard input, globs expanded.

    Raises UsageError if there are none.
    """
    import glob

    if not given:
        raise UsageError(f"no image given; write cnnkit {verb} RUN IMAGE...")

    paths: list[str] = []
    for word in given:
        if word.startswith("-") and word != "-" and not Path(word).exists():
            raise UsageError(f"unknown option {word}; `cnnkit {verb} --help` lists them")
        if word == "-":
            lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
            paths += [line.removesuffix("\r") for line in lines if line.strip()]
        elif glob.has_magic(word) and not Path(word).exists():
            paths += sorted(glob.glob(word, recursive=True)) or [word]  # noqa: PTH207  absolute ones too
        else:
            paths.append(word)
    if not paths:
        raise UsageError("standard input has no paths")
    return paths
