"""Ticks and scales of plots."""

import math
from itertools import pairwise

import pytest

from cnnkit.figures.axes import linear, logarithmic, nice_ticks, tick_labels

CASES = [(0, 1), (0, 1e-9), (-3, 7), (0.9301, 0.9684), (1e12, 1e12 + 3), (-1e200, 1e200), (0, 5e-300), (1, 1000)]


@pytest.mark.parametrize(("low", "high"), CASES)
@pytest.mark.parametrize("most", [2, 5, 8])
def test_ticks_are_few_round_and_within_the_range(low: float, high: float, most: int) -> None:
    ticks = nice_ticks(low, high, most)
    assert len(ticks) <= most
    assert all(low <= tick <= high for tick in ticks)
    steps = {high - low for low, high in pairwise(ticks)}
    assert all(math.isclose(step, max(steps), rel_tol=1e-3) for step in steps)
    digits = [f"{step:.2e}"[:4] for step in steps]
    assert set(digits) <= {"1.00", "2.00", "5.00"}


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1]),
        (0, 0.3, [0, 0.1, 0.2, 0.3]),  # not 0.30000000000000004
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (1, 3, [1, 1.5, 2, 2.5, 3]),
        (7, 7, [7]),
    ],
)
def test_ticks_of_some_ranges(low: float, high: float, expected: list[float]) -> None:
    assert nice_ticks(low, high) == expected


def test_whole_ticks_are_integers() -> None:
    assert nice_ticks(1, 3, whole=True) == [1, 2, 3]
    assert nice_ticks(1, 1000, 8, whole=True) == [200, 400, 600, 800, 1000]


@pytest.mark.parametrize(
    ("ticks", "labels"),
    [
        ([0, 0.05, 0.1], ["0.00", "0.05", "0.10"]),
        ([0, 2000], ["0", "2,000"]),
        ([0, 1e-10], ["0", "1e-10"]),
        ([-1e12, 0], ["-1e+12", "0"]),
        ([], []),
    ],
)
def test_labels_have_common_decimals(ticks: list[float], labels: list[str]) -> None:
    assert tick_labels(ticks) == labels


def test_scale_maps_its_ends_and_clips() -> None:
    scale = linear([2, 10], 100, 0)
    assert [scale(2), scale(10), scale(6), scale(11), scale(0)] == [100, 0, 50, 0, 100]


def test_scale_grows_to_ticks() -> None:
    scale = linear([0.13, 0.87], 0, 1, grow=True)
    assert (scale.low, scale.high) == (0, 1)
    assert (scale.ticks[0], scale.ticks[-1]) == (0, 1)


@pytest.mark.parametrize("value", [0, 1, -5, 0.25, 1e-200, 1e200])
def test_constant_is_in_the_middle(value: float) -> None:
    scale = linear([value] * 3, 0, 100)
    assert scale.low < value < scale.high or scale.low == -0.5
    assert scale(value) == pytest.approx(50)


def test_single_epoch_has_one_tick() -> None:
    assert linear([1], 0, 1, whole=True).ticks == (1,)


def test_logarithmic_scale_is_even_in_powers() -> None:
    scale = logarithmic([2e-5, 0.05], 0, 400)
    assert scale.ticks == (1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
    assert [scale(tick) for tick in scale.ticks] == pytest.approx([0, 100, 200, 300, 400])
    assert logarithmic([1], 0, 1).ticks == (1, 10)
    assert logarithmic([], 0, 1).ticks == (1, 10)
