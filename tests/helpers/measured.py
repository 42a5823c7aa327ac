"""The command line in a child process, with the peak of its memory."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from helpers.cli import ROOT, Result, one_line

RUN = ROOT / "tests" / "fixtures" / "run-0.1.0"
CODE = """
import atexit, runpy, sys
place = sys.argv.pop(1)

def note():
    with open("/proc/self/status") as status, open(place, "w") as file:
        file.write(next(line.split()[1] for line in status if line.startswith("VmHWM")))

atexit.register(note)
runpy.run_module("cnnkit", run_name="__main__", alter_sys=True)
"""


@dataclass
class Measured(Result):
    megabytes: float


def measured(*arguments: object, timeout: float = 60, **environment: str) -> Measured:
    """Run the command line; a process that takes longer has been caught by something that never ends."""
    note = Path("peak.txt").absolute()
    done = subprocess.run(
        [sys.executable, "-c", CODE, str(note), *map(os.fsdecode, map(_bytes, arguments))],
        capture_output=True,
        timeout=timeout,
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
    )
    out, err = (text.decode(errors="surrogateescape") for text in (done.stdout, done.stderr))
    return Measured(done.returncode, out, err, int(note.read_text()) / 1024)


def small(code: int, words: tuple[str, ...], *arguments: object, most: float = 800) -> Measured:
    """Assert that a command ends with one clear line and without much memory: Python and torch take 300 MB of it."""
    result = measured(*arguments)
    one_line(result, code, *words)
    assert result.megabytes < most, result
    return result


def _bytes(argument: object) -> bytes:
    return argument if isinstance(argument, bytes) else os.fsencode(str(argument))
