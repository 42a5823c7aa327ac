"""Work done ahead by threads, its results in order, and a sign of how far it is."""

import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import MofNCompleteColumn, Progress

__all__ = ["Counter", "ahead", "chunks", "processors"]

T = TypeVar("T")
R = TypeVar("R")

PLAIN_SECONDS = 30


def processors() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(function: Callable[[T], R], items: Iterable[T], workers: int, depth: int) -> Iterator[R]:
    """Yield function(item) for each item, in order; `workers` threads work on the next `depth` while one is used.

    What a call raises is raised in its place. Whoever stops early waits for the calls that run, not for the rest.
    With a depth of 0 nothing is done ahead, and no thread is needed.
    """
    if depth == 0:
        yield from map(function, items)
        return
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                pending.append(pool.submit(function, item))
                if len(pending) > depth:
                    yield pending.popleft().result()
            while pending:
                yield pending.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def chunks(items: Sequence[T], size: int) -> Iterator[Sequence[T]]:
    """Yield the sequence in pieces of `size`; the last may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))


class Counter:
    """Shows on standard error how many of `total` are done: a bar on a terminal, a line now and then elsewhere."""

    def __init__(self, title: str, total: int, shown: bool):
        self.console = Console(stderr=True, quiet=not shown)
        self.bar = Progress(
            *Progress.get_default_columns(),
            MofNCompleteColumn(),
            console=self.console,
            transient=True,
            disable=not (shown and self.console.is_terminal),
        )
        self.title, self.total, self.done, self.printed = title, total, 0, time.monotonic()
        self.task = self.bar.add_task(escape(title), total=total)

    def __enter__(self) -> "Counter":
        self.bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.bar.stop()

    def advance(self, count: int) -> None:
        """Count so many more."""
        self.done += count
        self.bar.update(self.task, completed=self.done)
        if self.bar.disable and time.monotonic() - self.printed > PLAIN_SECONDS:
            self.printed = time.monotonic()
            self.console.print(f"{self.title}: {self.done:,} of {self.total:,}", markup=False, soft_wrap=True)
