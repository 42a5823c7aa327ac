"""What the verbs print with: tables for people, JSON for programs."""

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

__all__ = ["console", "page", "print_json", "table"]


class _Console(Console):
    def on_broken_pipe(self) -> None:
        """Go on in silence: a reader such as `head` has seen enough, a training has not ended."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


console = _Console(highlight=False)
page = _Console(highlight=False, width=max(console.width, 120))  # a narrow terminal wraps it, but no number is cut


def table(columns: Sequence[str], *, text: int = 1) -> Table:
    """Return an empty table; the first `text` columns are words (left), the others numbers (right)."""
    result = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < text else "right", no_wrap=index >= text, overflow="fold")
    return result


def print_json(content: Any) -> None:
    """Print `content` as JSON to standard output, and nothing else."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())  # names of files may hold bytes that are not UTF-8
