"""How long calls take, measured so that candidates can be compared."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

import torch

from cnnkit.core.device import wait_for

__all__ = ["fastest", "measure"]

Key = TypeVar("Key")

ROUNDS = 3
LONG = 1.0  # seconds of a call, from which on one round is enough
HOPELESS = 1.5  # times the shortest: not timed again


def measure(
    candidates: Mapping[Key, Callable[[], object]], device: torch.device, span: float = 0.02
) -> dict[Key, float]:
    """Return the median seconds of a call of each candidate, which computes on `device`.

    After a warm-up call each, candidates are timed in turn, so that a busy moment of the machine affects all of them;
    a timing is the mean of as many calls as fill `span` seconds. What is HOPELESS in the first round is not timed
    again, except for the first candidate, which the others are compared with.
    """
    for work in candidates.values():
        work()
    timings = {name: [_mean_seconds(work, device, span)] for name, work in candidates.items()}
    shortest = min(seconds for [seconds] in timings.values())
    baseline = next(iter(candidates))
    running = [name for name, [seconds] in timings.items() if name == baseline or seconds < HOPELESS * shortest]
    for _ in range(ROUNDS - 1 if shortest < LONG else 0):
        for name in running:
            timings[name].append(_mean_seconds(candidates[name], device, span))
    return {name: statistics.median(found) for name, found in timings.items()}


def fastest(seconds: Mapping[Key, float], gain: float = 1.0) -> Key:
    """Return the candidate with the fewest seconds, or the first one unless that is more than `gain` times as fast."""
    baseline, best = next(iter(seconds)), min(seconds, key=lambda name: seconds[name])
    return best if seconds[baseline] > gain * seconds[best] else baseline


def _mean_seconds(work: Callable[[], object], device: torch.device, span: float) -> float:
    wait_for(device)  # for the warm-up call
    start, calls = time.perf_counter(), 0
    while not calls or time.perf_counter() - start < span:
        work()
        calls += 1
    wait_for(device)
    return (time.perf_counter() - start) / calls
