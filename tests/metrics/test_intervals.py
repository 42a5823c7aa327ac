"""Wilson's interval and the digits that an interval justifies."""

import math

import pytest

from cnnkit.core.errors import UsageError
from cnnkit.metrics import Estimate, wilson


@pytest.mark.parametrize(
    ("correct", "total", "low", "high"),
    [
        (9000, 10000, 0.8940, 0.9057),
        (20, 20, 0.8389, 1),
        (0, 20, 0, 0.1611),
        (1, 1, 0.2065, 1),
        (0, 1, 0, 0.7935),
        (15, 50, 0.1910, 0.4375),
    ],
)
def test_known_intervals(correct: int, total: int, low: float, high: float) -> None:
    found = wilson(correct, total)
    assert found.value == correct / total
    assert found.low == pytest.approx(low, abs=5e-5)
    assert found.high == pytest.approx(high, abs=5e-5)


@pytest.mark.parametrize("total", [1, 2, 3, 7, 20, 360, 10_000, 10**9])
def test_bounds_are_where_the_score_test_rejects(total: int) -> None:
    for correct in {0, 1, total // 3, total // 2, total - 1, total}:
        found = wilson(correct, total)
        assert 0 <= found.low <= found.value <= found.high <= 1
        for bound in {found.low, found.high} - {0.0, 1.0}:  # |value - bound| = 1.96 standard errors at the bound
            assert abs(found.value - bound) == pytest.approx(
                1.959964 * math.sqrt(bound * (1 - bound) / total), rel=1e-5
            )
        assert wilson(total - correct, total).high == pytest.approx(1 - found.low)


@pytest.mark.parametrize(("correct", "total"), [(0, 0), (2, 1), (-1, 5), (float("nan"), 5)])
def test_impossible_counts(correct: float, total: int) -> None:
    with pytest.raises(UsageError, match=f"not {correct} of {total}"):
        wilson(correct, total)


@pytest.mark.parametrize(
    ("half", "decimals"),
    [(0.5, 2), (0.3, 2), (0.08, 2), (0.016, 2), (0.0059, 3), (0.001, 3), (0.00059, 4), (0.00002, 4), (0.0, 4)],
)
def test_digits_follow_the_interval(half: float, decimals: int) -> None:
    assert Estimate(0.5, 0.5 - half, 0.5 + half).decimals == decimals


@pytest.mark.parametrize(
    ("estimate", "text", "percent"),
    [
        (wilson(9000, 10000), "0.900 (0.894 to 0.906)", "90.0 % (89.4 to 90.6 %)"),
        (wilson(20, 20), "1.00 (0.84 to 1.00)", "100 % (84 to 100 %)"),
        (wilson(324, 360), "0.90 (0.86 to 0.93)", "90 % (86 to 93 %)"),
        (wilson(0, 1), "0.00 (0.00 to 0.79)", "0 % (0 to 79 %)"),
        (wilson(999_000, 1_000_000), "0.9990 (0.9989 to 0.9991)", "99.90 % (99.89 to 99.91 %)"),
    ],
)
def test_text(estimate: Estimate, text: str, percent: str) -> None:
    assert str(estimate) == text
    assert estimate.rounded == text.split()[0]
    assert estimate.percent() == percent
    assert estimate.percent(interval=False) == " ".join(percent.split()[:2])
