"""How a training run shows where it is: a live bar on a terminal, plain lines elsewhere; all of it in log.txt."""

import time
from dataclasses import asdict
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn

from cnnkit.cli.console import console
from cnnkit.cli.settings import RunConfig
from cnnkit.train.observe import EpochRecord, StepRecord
from cnnkit.train.record import Run

__all__ = ["Display", "Silent"]

PLAIN_SECONDS = 30


class Display:
    """The observer of a run: shows steps and epochs, and records each epoch in the run folder."""

    def __init__(self, run: Run, config: RunConfig):
        self.run, self.epochs, self.printed = run, config.epochs, time.monotonic()
        self.bar = Progress(
            TextColumn("epoch {task.fields[epoch]}"),
            BarColumn(),
            TextColumn("{task.completed}/{task.total}  {task.fields[state]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=None, epoch=f"1/{self.epochs}", state="")

    def __enter__(self) -> "Display":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def say(self, line: str) -> None:
        """Print a line above the bar and keep it in the log."""
        self.bar.console.print(line, markup=False, soft_wrap=True)
        self.run.log([line])

    def on_step(self, record: StepRecord) -> None:
        """Move the bar; without a terminal, print a line now and then."""
        state = (
            f"loss {record.loss:.3f}  accuracy {record.accuracy:.3f}  "
            f"{record.images_per_second:,.0f} images/s  {_clock(record.seconds_left)} left"
        )
        epoch = f"{record.epoch}/{self.epochs}"
        self.bar.update(self.task, completed=record.step, total=record.steps, epoch=epoch, state=state)
        if self.bar.disable and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            console.print(f"epoch {epoch}  step {record.step}/{record.steps}  {state}", markup=False, soft_wrap=True)

    def on_epoch(self, record: EpochRecord) -> None:
        """Print the epoch and append it to metrics.jsonl."""
        self.printed = time.monotonic()
        self.run.add_metrics(asdict(record))
        validation = (
            f"  val loss {record.val_loss:.4f} accuracy {record.val_accuracy:.4f}"
            if record.val_loss is not None
            else ""
        )
        self.say(
            f"epoch {record.epoch}/{self.epochs}  loss {record.train_loss:.4f} accuracy {record.train_accuracy:.4f}"
            f"{validation}  {record.images_per_second:,.0f} images/s{'  best' if record.best else ''}"
        )


class Silent:
    """The observer in a process that another one speaks for."""

    def __enter__(self) -> "Silent":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def say(self, line: str) -> None:
        """Say nothing."""

    def on_step(self, record: StepRecord) -> None:
        """Show nothing."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Record nothing."""


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes}:{seconds:02}"
