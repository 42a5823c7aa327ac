"""Temperature scaling: one number that logits are divided by, so that confidence agrees with accuracy."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from cnnkit.core.text import counted
from cnnkit.metrics.softmax import Integers, checked, per_image, shifted

__all__ = ["TemperatureFit", "fit_temperature"]

LEAST_IMAGES = 50
LOWEST, HIGHEST = 0.05, 20.0
TOLERANCE = 1e-10  # relative
MAX_STEPS = 100


@dataclass(frozen=True)
class TemperatureFit:
    """A temperature, and the log loss of the validation images without and with it."""

    temperature: float
    images: int
    log_loss_before: float | None
    """None without images."""
    log_loss_after: float | None
    """At most `log_loss_before`."""
    reason: str = ""
    """Why the temperature is 1 and has not been fitted; empty if it has been."""


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> TemperatureFit:
    """Return the temperature, 0.05 to 20, that minimises the log loss of validation images (Guo et al. 2017).

    The log loss is convex in 1 / temperature. Without any error among the images it falls forever as the temperature
    falls, so that there is no minimum: the temperature is then 1, as for fewer than 50 images. Raises as `score` does,
    except that there may be no image.
    """
    if np.ndim(logits) == 2 and not len(np.asarray(logits)):
        return TemperatureFit(1.0, 0, None, None, f"no validation images; at least {LEAST_IMAGES} are needed")
    values, truth = checked(logits, labels)
    images = per_image(values, truth)
    count, before = len(values), float(images.log_loss.mean())
    reason = ""
    if count < LEAST_IMAGES:
        reason = f"only {counted(count, 'validation image')}; at least {LEAST_IMAGES} are needed"
    elif not images.rank.any():
        reason = f"no errors among the {count:,} validation images, so that there is nothing to calibrate by"
    if reason:
        return TemperatureFit(1.0, count, before, before, reason)
    temperature = 1 / _best_inverse(values, truth)
    after = float(per_image(values, truth, temperature).log_loss.mean())
    if after >= before:  # 1 is the best to within rounding, or all classes have equal logits
        return TemperatureFit(1.0, count, before, before)
    return TemperatureFit(temperature, count, before, after)


def _best_inverse(logits: NDArray[Any], labels: Integers) -> float:
    """Return the minimum over 1 / temperature: Newton's method within a bracket of the slope's zero."""
    low, high = 1 / HIGHEST, 1 / LOWEST
    if _slope(logits, labels, low)[0] >= 0:
        return low
    if _slope(logits, labels, high)[0] <= 0:
        return high
    inverse = 1.0
    for _ in range(MAX_STEPS):
        slope, curvature = _slope(logits, labels, inverse)
        low, high = (low, inverse) if slope > 0 else (inverse, high)
        step = inverse - slope / curvature if curvature > 0 else low
        following = step if low < step < high else (low * high) ** 0.5
        if abs(following - inverse) <= TOLERANCE * inverse:
            return following
        inverse = following
    return inverse


def _slope(logits: NDArray[Any], labels: Integers, inverse: float) -> tuple[float, float]:
    """Return the first and second derivative of the mean log loss with respect to 1 / temperature."""
    slope = curvature = 0.0
    for rows, _, z in shifted(logits):
        chances = np.exp(inverse * z)
        chances /= chances.sum(1, keepdims=True)
        mean = np.einsum("ij,ij->i", chances, z)
        slope += float((mean - z[np.arange(len(z)), labels[rows]]).sum())
        z -= mean[:, None]
        z *= z
        curvature += float(np.einsum("ij,ij->", chances, z))
    return slope / len(logits), curvature / len(logits)
