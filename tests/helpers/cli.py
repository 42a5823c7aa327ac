"""The command line: in a child process, and the form of its errors."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Result:
    code: int
    out: str
    err: str


Cli = Callable[..., Result]


def start(*arguments: object, **options: object) -> subprocess.Popen[str]:
    """Start the command line in a child process."""
    return subprocess.Popen(
        [sys.executable, "-m", "cnnkit", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        **options,
    )


def one_line(result: Result, code: int, *words: str) -> None:
    """Assert that the command failed with `code` and a single clear line that has all `words`."""
    assert result.code == code, result
    assert result.err.count("\n") == 1, result.err
    assert result.err.startswith("cnnkit: ")
    for word in words:
        assert word in result.err, (word, result.err)
