"""Terminal output: a console that shows text literally and survives a closed pipe, tables, and both as plain text.

rich calls `PatientConsole.render_str` for every string, including cells of tables, so that all text is escaped.
"""

import io
import os
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from rich import box
from rich.cells import cell_len
from rich.console import Console
from rich.progress import Progress, ProgressColumn, Task
from rich.table import Table
from rich.text import Text

from cnnkit.core.text import printable

__all__ = ["PatientConsole", "aligned", "as_text", "progress_bar", "table"]

WIDTH = 120


class PatientConsole(Console):
    """A console that becomes silent when its reader, such as `head`, closes the pipe, so that training continues.

    Strings are not markup; characters that are unprintable, or not in the terminal's encoding, are escaped.
    """

    def __init__(self, **options: Any):
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def on_broken_pipe(self) -> None:
        """Print nothing from now on."""
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), self.file.fileno())

    def render_str(self, text: str, **options: Any) -> Text:
        """Return the text that rich shows for a string."""
        shown = printable(text).encode(self.encoding, "backslashreplace").decode(self.encoding)
        return super().render_str(shown, **options)

    def say(self, line: str) -> None:
        """Print a line of any length; only the terminal wraps it."""
        self.print(line, soft_wrap=True)


class _Title(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(printable(task.description))


def progress_bar(console: Console, *columns: ProgressColumn) -> Progress:
    """Return a progress bar with titles, shown on a terminal only and removed when done."""
    usual = Progress.get_default_columns()[1:]
    return Progress(
        _Title(), *usual, *columns, console=console, transient=True, disable=console.quiet or not console.is_terminal
    )


def table(columns: Sequence[str], rows: Iterable[Sequence[str]] = (), *, text: int = 1) -> Table:
    """Return a table; the first `text` columns are left-aligned words, the others right-aligned numbers."""
    result = Table(box=box.SIMPLE_HEAD)
    for index, column in enumerate(columns):
        result.add_column(column, justify="left" if index < text else "right", no_wrap=index >= text, overflow="fold")
    for row in rows:
        result.add_row(*row)
    return result


def aligned(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return a line for each pair, with the second texts aligned in a terminal."""
    pairs = [(printable(left), printable(right)) for left, right in rows]
    width = max((cell_len(left) for left, _ in pairs), default=0)
    return [f"{left}{' ' * (width - cell_len(left))}  {right}" for left, right in pairs]


def as_text(*parts: Any) -> str:
    """Return tables and lines as plain text in the encoding of standard output."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    page = io.TextIOWrapper(io.BytesIO(), encoding, newline="\n")
    console = PatientConsole(file=page, width=WIDTH, color_system=None, force_jupyter=False)
    console.print(*parts, sep="\n", soft_wrap=False)
    page.seek(0)
    return "\n".join(line.rstrip() for line in page).strip("\n")
