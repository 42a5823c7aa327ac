"""Runs to report on, and the command line in a pseudo-terminal."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path


def in_terminal(columns: int, *arguments: object, **environment: str) -> str:
    """Return what the command line shows in a terminal of so many columns."""
    master, slave = pty.openpty()
    clean = {name: value for name, value in os.environ.items() if name not in ("NO_COLOR", "LINES")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cnnkit", *map(str, arguments)],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=clean | {"COLUMNS": str(columns), "TERM": "xterm-256color", "PYTHONUTF8": "1"} | environment,
    )
    os.close(slave)
    shown = b""
    while True:
        try:
            part = os.read(master, 65536)
        except OSError:  # how Linux says that the other end is closed
            break
        if not part:
            break
        shown += part
    os.close(master)
    assert process.wait() == 0, shown
    return shown.decode().replace("\r\n", "\n")


def insert_row(row: object) -> Callable[[Path], object]:
    def damage(run: Path) -> None:
        path = run / "metrics.jsonl"
        lines = path.read_text().splitlines()
        path.write_text("\n".join([lines[0], row if isinstance(row, str) else json.dumps(row), *lines[1:]]) + "\n")

    return damage
