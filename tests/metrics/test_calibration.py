"""Reliability bins, the calibration error with what it is by chance, and coverage."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassCalibrationError

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.metrics import Bin, Calibration, calibration, coverage, probabilities, score, wilson
from helpers.logits import CASES, logits_and_labels

Arrays = tuple[np.ndarray, np.ndarray]


def calibrated(seed: int, images: int, scale: float = 3.0) -> Arrays:
    """Return logits, and labels drawn from their probabilities."""
    draw = np.random.default_rng(seed)
    logits = (draw.normal(size=(images, 10)) * scale).astype(np.float32)
    chances = probabilities(logits).cumsum(1)
    return logits, (draw.random((images, 1)) > chances[:, :-1]).sum(1)


def two_classes(confidences: Sequence[float], correct: Sequence[bool]) -> Arrays:
    """Return logits whose confidences are these, at least .5, and labels for correct and wrong predictions."""
    chances = np.array(confidences)
    with np.errstate(divide="ignore"):
        logits = np.stack([np.minimum(np.log(chances / (1 - chances)), 800), np.zeros(len(chances))], 1)
    return logits, 1 - np.array(correct, np.int64)


def reference(
    logits: np.ndarray, labels: np.ndarray, temperature: float
) -> tuple[list[tuple[int, float, float]], float]:
    """Return count, mean confidence and accuracy of each bin that has images, and the ECE, from their definition."""
    chances = probabilities(logits, temperature)
    bins, error = [], 0.0
    for index in range(15):
        rows = [row for row, one in enumerate(chances.max(1).tolist()) if index / 15 < one <= (index + 1) / 15]
        if rows:
            confidence = float(chances.max(1)[rows].mean())
            accuracy = float((logits.argmax(1) == labels)[rows].mean())
            bins.append((len(rows), confidence, accuracy))
            error += len(rows) / len(labels) * abs(accuracy - confidence)
    return bins, error


@pytest.mark.parametrize("temperature", [0.02, 0.5, 1.0, 3.0])
@pytest.mark.parametrize(("seed", "images", "classes"), CASES)
def test_bins_and_error_are_as_defined(seed: int, images: int, classes: int, temperature: float) -> None:
    logits, labels = logits_and_labels(seed, images, classes)
    found = calibration(logits, labels, temperature)
    bins, error = reference(logits, labels, temperature)
    assert found.ece == pytest.approx(error, abs=1e-12)
    used = [one for one in found.bins if one.count]
    assert [one.count for one in used] == [count for count, *_ in bins]
    assert [one.confidence for one in used] == pytest.approx([confidence for _, confidence, _ in bins])
    assert [one.accuracy for one in used] == [wilson(round(count * share), count) for count, _, share in bins]
    scores = score(logits, labels, temperature)
    assert (found.log_loss, found.brier, found.num_images) == (scores.log_loss, scores.brier, images)


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("seed", range(5))
def test_error_equals_that_of_torchmetrics(seed: int, classes: int) -> None:
    logits, labels = logits_and_labels(2 * seed, 500, classes, scale=1.0)
    chances = probabilities(logits)
    assert chances.max() < 1  # torchmetrics gives a confidence of 1 a bin of its own
    metric = MulticlassCalibrationError(num_classes=classes, n_bins=15, norm="l1")
    expected = metric(torch.from_numpy(chances), torch.from_numpy(labels)).item()
    assert calibration(logits, labels).ece == pytest.approx(expected, abs=1e-6)


def test_confidence_of_exactly_1_is_in_the_last_bin() -> None:
    logits, labels = two_classes([1.0, 1.0, 1.0, 0.98], [True, False, True, True])
    assert probabilities(logits).max(1)[:3].tolist() == [1, 1, 1]
    found = calibration(logits, labels)
    assert [one.count for one in found.bins] == [0] * 14 + [4]
    assert found.bins[-1].accuracy == wilson(3, 4)
    assert found.ece == pytest.approx(abs(3 - 3.98) / 4)


def test_bins_are_closed_on_the_right() -> None:
    third = np.zeros((2, 3), np.float32)  # 1/3 = 5/15 belongs to the fifth bin
    found = calibration(third, [0, 1])
    assert [one.count for one in found.bins].index(2) == 4
    assert found.bins[4] == Bin(4 / 15, 5 / 15, 2, 1 / 3, wilson(1, 2))
    assert found.bins[5] == Bin(5 / 15, 6 / 15, 0, None, None)


def test_bins_are_of_equal_width() -> None:
    bins = calibration(*calibrated(0, 30)).bins
    assert [one.low for one in bins] == pytest.approx([index / 15 for index in range(15)])
    assert [one.high for one in bins[:-1]] == [one.low for one in bins[1:]]
    assert bins[-1].high == 1


def test_errors_by_chance_of_one_image() -> None:
    logits, labels = two_classes([0.8], [True])
    found = calibration(logits, labels)  # .2 with probability .8, .8 with probability .2
    assert found.expected == pytest.approx(2 * 0.8 * 0.2, abs=0.04)
    assert found.band == pytest.approx((0.2, 0.8))
    assert found.ece == pytest.approx(0.2)
    assert found.well_calibrated


@pytest.mark.parametrize(("images", "expected"), [(300, 0.040), (10_000, 0.0074)])
def test_errors_by_chance_of_a_classifier_with_88_percent_accuracy(images: int, expected: float) -> None:
    found = calibration(*calibrated(0, images, scale=8))
    assert found.expected == pytest.approx(expected, rel=0.1)
    assert 0.4 * expected < found.band[0] < found.expected < found.band[1] < 1.8 * expected
    assert found.well_calibrated


@pytest.mark.parametrize("images", [50, 1000])
def test_band_contains_the_error_of_95_percent_of_calibrated_classifiers(images: int) -> None:
    found = [calibration(*calibrated(seed, images), seed=seed) for seed in range(100)]
    assert 88 <= sum(one.band[0] <= one.ece <= one.band[1] for one in found) <= 99
    assert np.mean([one.ece for one in found]) == pytest.approx(np.mean([one.expected for one in found]), rel=0.05)


@pytest.mark.parametrize("temperature", [0.3, 3.0])
def test_a_wrong_temperature_is_not_well_calibrated(temperature: float) -> None:
    logits, labels = calibrated(0, 1000)
    assert not calibration(logits, labels, temperature).well_calibrated


def test_seed_decides_the_band() -> None:
    logits, labels = calibrated(0, 200)
    assert calibration(logits, labels) == calibration(logits, labels)
    assert calibration(logits, labels).band != calibration(logits, labels, seed=1).band


@pytest.mark.parametrize(("images", "classes"), [(1, 1), (5, 1), (1, 4)])
def test_few_images_and_one_class(images: int, classes: int) -> None:
    found = calibration(np.zeros((images, classes), np.float32), np.zeros(images, np.int64))
    assert found.num_images == images
    assert found.ece == pytest.approx(1 - 1 / classes)
    assert found.band[1] == pytest.approx(1 - 1 / classes)


def test_plain_data() -> None:
    found = calibration(*calibrated(0, 40))
    data = found.to_dict()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert data["well_calibrated"] is True
    assert data["band"] == list(found.band)
    used = found.bins[-1]
    assert used.accuracy
    assert data["bins"][-1] == {
        "low": 14 / 15, "high": 1, "count": used.count,
        "confidence": used.confidence, "accuracy": used.accuracy._asdict(),
    }  # fmt: skip


@pytest.mark.parametrize("measure", [calibration, coverage])
def test_bad_input(measure: Any) -> None:
    with pytest.raises(UsageError, match="there is no image"):
        measure(np.ones((0, 2)), [])
    with pytest.raises(UsageError, match="temperature"):
        measure(np.ones((1, 2)), [0], -1.0)
    with pytest.raises(CnnkitError, match="the logits in row 1 hold NaN"):
        measure([[0, 1], [float("nan"), 0]], [0, 0])


def test_probabilities() -> None:
    assert probabilities(np.array([[0, np.log(3)]]), 1.0).tolist() == [pytest.approx([0.25, 0.75])]
    assert probabilities(np.array([[0, np.log(9)]]), 2.0).tolist() == [pytest.approx([0.25, 0.75])]
    assert probabilities(np.array([[-1e38, 1e38]], np.float32)).tolist() == [[0, 1]]
    assert probabilities(np.empty((0, 3))).shape == (0, 3)
    with pytest.raises(CnnkitError, match="row 0 hold Inf"):
        probabilities([[float("inf"), 0]])
    with pytest.raises(UsageError, match=r"shape \(3,\)"):
        probabilities(np.ones(3))


def test_coverage_of_known_confidences() -> None:
    logits, labels = two_classes([0.55, 0.7, 0.92, 0.97, 1.0], [False, True, False, True, True])
    found = {one.threshold: one for one in coverage(logits, labels)}
    assert list(found) == [0, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99]
    assert (found[0].answered, found[0].share, found[0].accuracy) == (5, 1, wilson(3, 5))
    assert found[0].accuracy == found[0.5].accuracy
    assert (found[0.6].answered, found[0.6].accuracy) == (4, wilson(3, 4))
    assert (found[0.9].answered, found[0.9].share, found[0.9].accuracy) == (3, 0.6, wilson(2, 3))
    assert (found[0.99].answered, found[0.99].accuracy) == (1, wilson(1, 1))


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_coverage_on_a_grid(temperature: float) -> None:
    logits, labels = calibrated(3, 300)
    confidence, correct = probabilities(logits, temperature).max(1), logits.argmax(1) == labels
    grid = np.linspace(0, 1, 101)
    for one, threshold in zip(coverage(logits, labels, temperature, grid), grid.tolist(), strict=True):
        rows = confidence >= threshold
        assert (one.threshold, one.answered) == (threshold, rows.sum())
        assert one.share == rows.mean()
        assert one.accuracy == (wilson(int(correct[rows].sum()), int(rows.sum())) if rows.any() else None)


def test_coverage_at_confidence_1() -> None:
    logits, labels = two_classes([0.9, 1.0], [True, True])
    assert [one.answered for one in coverage(logits, labels, thresholds=[1.0])] == [1]
    (one,) = coverage(logits, labels, 1000.0, thresholds=[0.99])
    assert (one.answered, one.share, one.accuracy) == (0, 0, None)


@pytest.mark.parametrize("threshold", [-0.1, 1.5, float("nan")])
def test_thresholds_outside_0_to_1(threshold: float) -> None:
    with pytest.raises(UsageError, match=f"a threshold must be between 0 and 1, not {threshold}"):
        coverage(np.ones((1, 2)), [0], thresholds=[0.5, threshold])


def test_calibration_is_a_frozen_record() -> None:
    found = calibration(*calibrated(0, 40))
    assert isinstance(found, Calibration)
    with pytest.raises(AttributeError):
        found.ece = 0.0  # type: ignore[misc]
