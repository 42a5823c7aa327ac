"""Timing: candidates in turn, by a clock that only the candidates move."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from cnnkit.core import timing
from cnnkit.core.timing import fastest, measure

CPU = torch.device("cpu")


class Clock:
    """Seconds that pass only while candidates are called, and the calls in order."""

    def __init__(self) -> None:
        self.now = 0.0
        self.calls: list[str] = []

    def work(self, name: str, *seconds: float) -> Callable[[], None]:
        """Return a candidate whose calls take these seconds, the last ones over and over."""
        left = list(seconds)

        def call() -> None:
            self.calls.append(name)
            self.now += left.pop(0) if len(left) > 1 else left[0]

        return call


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    made = Clock()
    monkeypatch.setattr(timing, "time", SimpleNamespace(perf_counter=lambda: made.now))
    return made


def test_candidates_are_warmed_up_and_timed_in_turn(clock: Clock) -> None:
    seconds = measure({"a": clock.work("a", 9, 0.5), "b": clock.work("b", 9, 0.25)}, CPU)
    assert seconds == {"a": 0.5, "b": 0.25}
    assert "".join(clock.calls) == "ab" * 4


def test_the_median_of_three_rounds_counts(clock: Clock) -> None:
    seconds = measure({"a": clock.work("a", 9, 0.5, 0.75, 0.625), "b": clock.work("b", 9, 0.5, 0.5, 8)}, CPU)
    assert seconds == {"a": 0.625, "b": 0.5}
    assert "".join(clock.calls) == "ab" * 4


def test_short_calls_fill_the_span(clock: Clock) -> None:
    assert measure({"a": clock.work("a", 1, 1 / 64)}, CPU, span=0.25) == {"a": 1 / 64}
    assert len(clock.calls) == 1 + 3 * 16


def test_hopeless_candidates_are_timed_once_but_the_first_one_always(clock: Clock) -> None:
    works = {name: clock.work(name, seconds) for name, seconds in {"a": 0.75, "b": 0.25, "c": 0.5, "d": 0.3125}.items()}
    assert measure(works, CPU) == {"a": 0.75, "b": 0.25, "c": 0.5, "d": 0.3125}
    assert "".join(clock.calls) == "abcd" + "abcd" + "abd" * 2


def test_long_calls_are_timed_once(clock: Clock) -> None:
    assert measure({"a": clock.work("a", 2), "b": clock.work("b", 2.5)}, CPU) == {"a": 2, "b": 2.5}
    assert "".join(clock.calls) == "abab"


def test_a_gpu_is_waited_for_before_the_clock_starts_and_stops(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    queue = [0.0]

    def wait_for(device: torch.device) -> None:
        assert device.type == "cuda"
        clock.now += queue.pop()
        queue.append(0.0)

    def work() -> None:
        queue[0] += 0.5
        clock.now += 1 / 64  # to enqueue

    monkeypatch.setattr(timing, "wait_for", wait_for)
    assert measure({"a": work}, torch.device("cuda"), span=0) == {"a": 0.5 + 1 / 64}


def test_the_first_candidate_stays_unless_another_one_gains_enough() -> None:
    assert fastest({"a": 1.0, "b": 0.9, "c": 0.8}) == "c"
    assert fastest({"a": 1.0, "b": 0.9}, gain=1.2) == "a"
    assert fastest({"a": 1.0, "b": 0.8}, gain=1.2) == "b"
    assert fastest({"a": 1.0, "b": 1.0}) == "a"
