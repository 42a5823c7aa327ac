"""Estimates with their uncertainty: a value, its 95 % interval, and no more digits than that interval justifies."""

import math
from typing import NamedTuple

from cnnkit.core.errors import UsageError

__all__ = ["Estimate", "wilson"]

Z = 1.959963984540054  # 97.5 % quantile of the standard normal distribution
MIN_DECIMALS, MAX_DECIMALS = 2, 4


class Estimate(NamedTuple):
    """A share between 0 and 1 with its 95 % confidence interval.

    >>> estimate = wilson(9000, 10000)
    >>> print(estimate)
    0.900 (0.894 to 0.906)
    >>> estimate.rounded, estimate.percent(), estimate.percent(interval=False)
    ('0.900', '90.0 % (89.4 to 90.6 %)', '90.0 %')
    """

    value: float
    low: float
    high: float

    @property
    def decimals(self) -> int:
        """Digits after the point, 2 to 4: the last one is the first that half the interval's width changes."""
        half = (self.high - self.low) / 2
        return min(max(math.ceil(-math.log10(half)), MIN_DECIMALS), MAX_DECIMALS) if half > 0 else MAX_DECIMALS

    @property
    def rounded(self) -> str:
        """The value alone, with `decimals` digits."""
        return f"{self.value:.{self.decimals}f}"

    def __str__(self) -> str:
        return f"{self.rounded} ({self.low:.{self.decimals}f} to {self.high:.{self.decimals}f})"

    def percent(self, interval: bool = True) -> str:
        """Return the value in percent, with two digits after the point fewer; `interval` adds the interval."""
        value, low, high = (f"{100 * share:.{self.decimals - 2}f}" for share in self)
        return f"{value} % ({low} to {high} %)" if interval else f"{value} %"


def wilson(correct: float, total: int) -> Estimate:
    """Return the share correct / total with Wilson's score interval (Wilson 1927, JASA 22).

    It stays within 0 to 1, and has a width even if all or none are correct. Raises UsageError unless
    0 <= correct <= total and total >= 1.

    >>> print(wilson(20, 20))
    1.00 (0.84 to 1.00)
    """
    if not 0 <= correct <= total or total < 1:
        raise UsageError(f"a share needs a part and a total of at least 1, not {correct} of {total}")
    value = correct / total
    centre = (correct + Z**2 / 2) / (total + Z**2)
    half = Z * math.sqrt(total * value * (1 - value) + Z**2 / 4) / (total + Z**2)
    # rounding can exclude the value, which is a bound if all or none are correct
    return Estimate(value, max(min(centre - half, value), 0.0), min(max(centre + half, value), 1.0))
