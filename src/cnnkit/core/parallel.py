"""Work done ahead by threads, with results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead", "chunks", "processors"]

T = TypeVar("T")
R = TypeVar("R")


def processors() -> int:
    """Return the number of processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ahead(function: Callable[[T], R], items: Iterable[T], workers: int, depth: int) -> Iterator[R]:
    """Yield function(item) for each item, in order; `workers` threads compute the next `depth` ahead.

    An exception is raised in place of its result. A caller that stops early waits only for the calls that are running.
    With a depth of 0 nothing is computed ahead, and no thread is used.
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
    """Yield the sequence in chunks of `size`; the last may be smaller."""
    return (items[start : start + size] for start in range(0, len(items), size))
