"""What people read in a terminal: a console that survives a closed pipe, tables, and both as text."""

import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["PatientConsole", "as_text", "table"]

WIDTH = 120


class PatientConsole(Console):
    """A console that goes on in silence when its reader, such as `head`, has seen enough: a training has not ended."""

    def on_broken_pipe(self) -> None:
        """Be quiet from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def table(columns: Sequence[str], *, text: int = 1) -> Table:
    """Return an empty table; the first `text` columns are words (left), the others numbers (right)."""
    result = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < text else "right", no_wrap=index >= text, overflow="fold")
    return result


def as_text(*parts: Any) -> str:
    """Return tables and lines as plain text."""
    console = Console(file=io.StringIO(), width=WIDTH, highlight=False, color_system=None, force_jupyter=False)
    console.print(*parts, sep="\n", markup=False, soft_wrap=False)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]  # it is a StringIO
    return "\n".join(line.rstrip() for line in lines).strip("\n")
