"""Progress of a run: a live bar in a terminal, one updating line in a notebook, plain lines elsewhere."""

import sys
import time
from importlib import import_module
from typing import Any

from rich.progress import BarColumn, Progress, TextColumn

from cnnkit.core.console import PatientConsole
from cnnkit.core.text import html, printable
from cnnkit.train.callbacks import Callback, StepRecord, TrainRecord

__all__ = ["Display", "NotebookLine", "TerminalBar", "make_display"]

PLAIN_SECONDS = 30


class Display(Callback):
    """A display that shows nothing; base class of the others."""

    def say(self, line: str) -> None:
        """Show a line of the run's log."""


class TerminalBar(Display):
    """The log with a progress bar below it; without a terminal, an occasional line instead of the bar."""

    def __init__(self) -> None:
        self.console = PatientConsole()
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[state]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, epoch="", state="")
        self.epochs, self.printed = 0, time.monotonic()

    def say(self, line: str) -> None:
        """Print a line above the bar."""
        self.printed = time.monotonic()
        self.console.say(line)

    def on_train_begin(self, record: TrainRecord) -> None:
        """Start the bar."""
        self.epochs = record.epochs
        self.bar.update(self.task, epoch=f"{record.epoch}/{record.epochs}")
        self.bar.start()

    def on_step_end(self, record: StepRecord) -> None:
        """Advance the bar; without a terminal, print a line every PLAIN_SECONDS."""
        epoch, state = f"{record.epoch}/{self.epochs}", _state(record)
        self.bar.update(self.task, completed=record.step, total=record.steps, epoch=epoch, state=state)
        if self.bar.disable and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.say(f"epoch {epoch}  step {record.step}/{record.steps}  {state}")

    def on_train_end(self, reason: str) -> None:
        """Remove the bar."""
        self.bar.stop()


class NotebookLine(Display):
    """One line below the cell: the latest log line, then the progress."""

    def __init__(self) -> None:
        display = import_module("IPython.display").display  # always there in a notebook
        self.last, self.state, self.epochs = "", "", 0
        self.handle: Any = display({"text/plain": ""}, raw=True, display_id=True)

    def say(self, line: str) -> None:
        """Replace the previous line."""
        self.last, self.state = line, ""
        self._show()

    def on_train_begin(self, record: TrainRecord) -> None:
        """Store the number of epochs."""
        self.epochs = record.epochs

    def on_step_end(self, record: StepRecord) -> None:
        """Show the progress."""
        self.state = f"epoch {record.epoch}/{self.epochs}  step {record.step}/{record.steps}  {_state(record)}"
        self._show()

    def _show(self) -> None:
        line = printable("  |  ".join(filter(None, [self.last, self.state])))
        page = f'<pre style="margin:0;white-space:pre-wrap">{html(line)}</pre>'
        self.handle.update({"text/plain": line, "text/html": page}, raw=True)


def make_display(shown: bool) -> Display:
    """Return the display for a terminal or a notebook, or one that shows nothing."""
    if not shown:
        return Display()
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    return NotebookLine() if shell is not None and "IPKernelApp" in shell.config else TerminalBar()


def _state(record: StepRecord) -> str:
    minutes, seconds = divmod(round(record.seconds_left), 60)
    return (
        f"loss {record.loss:.3f}  accuracy {record.accuracy:.3f}  "
        f"{record.images_per_second:,.0f} images/s  {minutes}:{seconds:02} left"
    )
