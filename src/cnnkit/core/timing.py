"""How long work takes: the mean of short calls, and candidates timed in turn."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

__all__ = ["mean_seconds", "median_seconds"]

Key = TypeVar("Key")


def mean_seconds(work: Callable[[], object], span: float = 0.02, wait: Callable[[], object] | None = None) -> float:
    """Return the seconds of a call: the mean of as many as fill `span` seconds, and of one at least.

    `wait` is called before the clock is stopped, such as to synchronise with a GPU.
    """
    start, times = time.perf_counter(), 0
    while not times or time.perf_counter() - start < span:
        work()
        times += 1
    if wait:
        wait()
    return (time.perf_counter() - start) / times


def median_seconds(ways: Mapping[Key, Callable[[], float]], rounds: int) -> dict[Key, float]:
    """Return the median of what each way measures, called in turn so that a noisy moment meets all of them."""
    found: dict[Key, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, measure in ways.items():
            found[name].append(measure())
    return {name: statistics.median(seconds) for name, seconds in found.items()}
