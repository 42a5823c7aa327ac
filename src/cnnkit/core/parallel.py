"""Work done ahead by threads, its results in order."""

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

__all__ = ["ahead", "chunks", "processors"]

T = TypeVar("T")
R = TypeVar("R")


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
