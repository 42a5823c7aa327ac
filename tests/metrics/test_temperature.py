"""The temperature is the minimum of the log loss, bounded, and is not fitted where there is nothing to fit."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.metrics import calibration, fit_temperature, probabilities, score
from helpers.logits import logits_and_labels


def drawn(seed: int, images: int, classes: int, true: float, scale: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    """Return logits that are calibrated at the temperature `true`, and labels."""
    draw = np.random.default_rng(seed)
    logits = draw.normal(size=(images, classes)) * scale
    labels = (draw.random((images, 1)) > probabilities(logits).cumsum(1)[:, :-1]).sum(1)
    return (logits * true).astype(np.float32), labels


def log_loss(logits: np.ndarray, labels: np.ndarray, temperature: float) -> float:
    return F.cross_entropy(torch.from_numpy(logits).double() / temperature, torch.from_numpy(labels)).item()


@pytest.mark.parametrize("true", [0.1, 0.5, 1.0, 2.5, 10.0])
@pytest.mark.parametrize("classes", [2, 10, 40])
def test_it_is_the_temperature_that_the_labels_are_drawn_with(true: float, classes: int) -> None:
    logits, labels = drawn(classes, 4000, classes, true)
    found = fit_temperature(logits, labels)
    assert found.temperature == pytest.approx(true, rel=0.08)
    assert (found.images, found.reason) == (4000, "")
    assert calibration(logits, labels, found.temperature).well_calibrated


@pytest.mark.parametrize("seed", range(8))
def test_it_equals_what_lbfgs_finds(seed: int) -> None:
    logits, labels = logits_and_labels(seed, 300, 2 + 3 * seed, scale=0.5 + seed)
    inverse = torch.ones(1, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS(
        [inverse], max_iter=100, tolerance_grad=0, tolerance_change=0, line_search_fn="strong_wolfe"
    )
    values, truth = torch.from_numpy(logits).double(), torch.from_numpy(labels)

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = F.cross_entropy(values * inverse, truth)
        loss.backward()
        return loss

    optimizer.step(closure)
    found = fit_temperature(logits, labels)
    assert found.temperature == pytest.approx(1 / inverse.item(), rel=1e-5)
    assert found.log_loss_before == pytest.approx(log_loss(logits, labels, 1.0))
    assert found.log_loss_after == pytest.approx(log_loss(logits, labels, found.temperature))


@pytest.mark.parametrize("scale", [1e-3, 1.0, 50.0, 1e4])
def test_no_temperature_of_a_fine_grid_is_better(scale: float) -> None:
    logits, labels = logits_and_labels(3, 200, 10, scale)
    found = fit_temperature(logits, labels)
    best = min(log_loss(logits, labels, one) for one in np.geomspace(0.05, 20, 400))
    assert found.log_loss_after
    assert found.log_loss_after <= best * (1 + 1e-12)


@given(
    st.integers(0, 10**6),
    st.integers(50, 90),
    st.integers(2, 12),
    st.sampled_from([1e-30, 1e-3, 1.0, 30.0, 1e4, 1e30]),
    st.floats(0, 2),
)
def test_log_loss_never_rises(seed: int, images: int, classes: int, scale: float, skill: float) -> None:
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, images)
    logits = draw.standard_t(2, size=(images, classes))
    logits[np.arange(images), labels] += 3 * skill
    logits = np.float32(scale) * logits.astype(np.float32)
    found = fit_temperature(logits, labels)
    before, after = (score(logits, labels, one).log_loss for one in (1.0, found.temperature))
    assert (found.log_loss_before, found.log_loss_after) == (before, after)
    assert after <= before
    assert 0.05 <= found.temperature <= 20


def test_bounds() -> None:
    labels = np.arange(100) % 4
    noise = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32) * 1000
    assert fit_temperature(noise, labels).temperature == 20
    almost = np.eye(4, dtype=np.float32)[labels] * 1e-3
    almost[0] = almost[1]
    assert fit_temperature(almost, labels).temperature == 0.05


def test_equal_logits_keep_temperature_1() -> None:
    found = fit_temperature(np.ones((60, 3), np.float32), np.arange(60) % 3)
    assert (found.temperature, found.log_loss_after, found.reason) == (1, found.log_loss_before, "")


@pytest.mark.parametrize("separation", [1e-3, 1.0, 1e4])
def test_separable_data_has_temperature_1(separation: float) -> None:
    labels = np.arange(200) % 5
    logits = np.eye(5, dtype=np.float32)[labels] * np.float32(separation)
    found = fit_temperature(logits, labels)
    assert found.temperature == 1
    assert found.log_loss_before == found.log_loss_after == pytest.approx(log_loss(logits, labels, 1.0))
    assert found.reason == "no errors among the 200 validation images, so that there is nothing to calibrate by"


@pytest.mark.parametrize(
    ("images", "reason"),
    [
        (0, "no validation images; at least 50 are needed"),
        (1, "only 1 validation image; at least 50 are needed"),
        (49, "only 49 validation images; at least 50 are needed"),
        (50, ""),
    ],
)
def test_few_images(images: int, reason: str) -> None:
    logits, labels = drawn(0, 50, 4, 3.0)
    found = fit_temperature(logits[:images], labels[:images])
    assert (found.images, found.reason) == (images, reason)
    assert (found.temperature == 1) == bool(reason)
    assert (found.log_loss_before is None) == (images == 0)


def test_one_class() -> None:
    assert "no errors" in fit_temperature(np.ones((60, 1), np.float32), np.zeros(60, np.int64)).reason


@pytest.mark.parametrize(
    ("spoil", "error", "reason"),
    [
        (lambda logits, labels: logits.__setitem__((7, 1), np.nan), CnnkitError, "row 7 hold NaN"),
        (lambda logits, labels: logits.__setitem__((9, 1), np.inf), CnnkitError, "row 9 hold Inf"),
        (lambda logits, labels: labels.__setitem__(3, 99), UsageError, "row 3 has the label 99"),
    ],
)
def test_bad_input(spoil: Callable[[np.ndarray, np.ndarray], None], error: type[Exception], reason: str) -> None:
    logits, labels = drawn(0, 60, 4, 1.0)
    spoil(logits, labels)
    with pytest.raises(error, match=reason):
        fit_temperature(logits, labels)
