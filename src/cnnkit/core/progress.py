"""Progress of long work on standard error: a bar on a terminal, a line every PLAIN_SECONDS elsewhere."""

import time

from rich.progress import MofNCompleteColumn

from cnnkit.core.console import PatientConsole, progress_bar

__all__ = ["Counter"]

PLAIN_SECONDS = 30


class Counter:
    """A display of how many of `total` are done, if `shown`."""

    def __init__(self, title: str, total: int, shown: bool):
        self.console = PatientConsole(stderr=True, quiet=not shown)
        self.bar = progress_bar(self.console, MofNCompleteColumn())
        self.title, self.total, self.done, self.printed = title, total, 0, time.monotonic()
        self.task = self.bar.add_task(title, total=total)

    def __enter__(self) -> "Counter":
        self.bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        """Add `count` to the number done."""
        self.done += count
        self.bar.update(self.task, completed=self.done)
        if self.bar.disable and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.console.say(f"{self.title}: {self.done:,} of {self.total:,}")
