"""Scores equal scikit-learn's, and their intervals contain the truth."""

import json
import subprocess
import sys
import warnings
from typing import Any

import numpy as np
import pytest
import sklearn.metrics as sk
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.metrics import Estimate, Scores, probabilities, score, wilson
from helpers.logits import CASES, logits_and_labels


def oracle(function: Any, *arguments: Any, **named: Any) -> Any:
    """Return what a function of scikit-learn returns, which warns of undefined values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return function(*arguments, **named)


@pytest.mark.parametrize(("seed", "images", "classes"), CASES)
def test_counts_and_shares_equal_those_of_scikit_learn(seed: int, images: int, classes: int) -> None:
    logits, labels = logits_and_labels(seed, images, classes)
    predicted = logits.argmax(1)
    found = score(logits, labels)
    assert (found.num_images, found.num_classes) == (images, classes)
    assert (found.confusion == sk.confusion_matrix(labels, predicted, labels=range(classes))).all()
    assert found.accuracy == wilson(int((labels == predicted).sum()), images)
    assert found.accuracy.value == sk.accuracy_score(labels, predicted)
    assert found.balanced_accuracy.value == pytest.approx(oracle(sk.balanced_accuracy_score, labels, predicted))
    names = [str(index) for index in range(classes)]
    report = sk.classification_report(
        labels, predicted, labels=range(classes), target_names=names, output_dict=True, zero_division=0
    )
    for index, one in enumerate(found.classes):
        row = report[str(index)]
        assert one.support == row["support"]
        assert one.predicted == (predicted == index).sum()
        values = {"precision": one.precision, "recall": one.recall, "f1-score": one.f1}
        if one.support:
            assert {name: value.value for name, value in values.items() if value} == pytest.approx(
                {name: row[name] for name in values}
            )
            assert one.recall == wilson(int(found.confusion[index, index]), one.support)
        else:
            assert set(values.values()) == {None}


@pytest.mark.parametrize(("seed", "images", "classes"), CASES)
def test_averages_equal_those_of_scikit_learn(seed: int, images: int, classes: int) -> None:
    logits, labels = logits_and_labels(seed, images, classes)
    found = score(logits, labels)
    for average, values in [("macro", found.macro), ("weighted", found.weighted)]:
        expected = sk.precision_recall_fscore_support(labels, logits.argmax(1), average=average, zero_division=0)[:3]
        assert [values.precision.value, values.recall.value, values.f1.value] == pytest.approx(list(expected))


@pytest.mark.parametrize("temperature", [0.6, 1.0, 4.0])
@pytest.mark.parametrize(("seed", "images", "classes"), CASES)
def test_probability_metrics_equal_those_of_scikit_learn(
    seed: int, images: int, classes: int, temperature: float
) -> None:
    logits, labels = logits_and_labels(seed, images, classes)
    chances = probabilities(logits, temperature)
    exact = np.exp(logits.astype(np.float64) / temperature)
    assert chances == pytest.approx(exact / exact.sum(1, keepdims=True), rel=1e-12, abs=1e-300)
    found = score(logits, labels, temperature)
    assert found.log_loss == pytest.approx(sk.log_loss(labels, chances, labels=range(classes)), rel=1e-9)
    truth = np.eye(classes)[labels]
    assert found.brier == pytest.approx(((chances - truth) ** 2).sum(1).mean())
    areas = [
        sk.roc_auc_score(truth[:, index], chances[:, index]) if 0 < truth[:, index].sum() < images else None
        for index in range(classes)
    ]
    assert [one.roc_auc for one in found.classes] == pytest.approx(areas)
    defined = [area for area in areas if area is not None]
    assert found.roc_auc == (pytest.approx(np.mean(defined)) if defined else None)


def test_temperature_changes_neither_predictions_nor_ranks() -> None:
    logits, labels = logits_and_labels(1, 200, 10)
    one, other = score(logits, labels), score(logits, labels, 7.0)
    assert (one.confusion == other.confusion).all()
    assert (one.top_k, one.accuracy, one.macro) == (other.top_k, other.accuracy, other.macro)
    assert one.log_loss != other.log_loss


def test_area_with_equal_probabilities_takes_their_mean_rank() -> None:
    logits = np.array([[0, 0], [0, 0], [0, 0], [1, 0]], np.float32)
    found = score(logits, [1, 0, 1, 0])  # class 1: .5 and .5 against .5 and .27
    assert [one.roc_auc for one in found.classes] == [0.75, 0.75]


@pytest.mark.parametrize("classes", [2, 3, 4, 5, 6, 30])
def test_top_k_equals_scikit_learn(classes: int) -> None:
    logits, labels = logits_and_labels(0, 150, classes)
    found = score(logits, labels)
    assert list(found.top_k) == [k for k in (3, 5) if k < classes]
    for k, estimate in found.top_k.items():
        expected = sk.top_k_accuracy_score(labels, logits, k=k, labels=range(classes), normalize=False)
        assert estimate == wilson(int(expected), 150)


def test_top_k_takes_the_first_of_equal_logits() -> None:
    logits = np.zeros((6, 6), np.float32)
    found = score(logits, range(6))
    assert (found.accuracy.value, found.top_k[3].value, found.top_k[5].value) == (1 / 6, 3 / 6, 5 / 6)
    assert found.confusion[:, 0].tolist() == [1] * 6


def test_top_k_ranks_logits_that_float64_cannot_tell_apart_after_subtraction() -> None:
    logits = np.array([[1e4, 1e-30, 2e-30, 3e-30, -1]], np.float32)
    assert score(logits, [1]).top_k[3].value == 0
    assert score(logits, [3]).top_k[3].value == 1


def test_class_that_is_never_predicted() -> None:
    found = score(np.array([[2, 0, 0], [1, 0, 0], [1, 0, 0]], np.float32), [0, 1, 1])
    assert found.classes[1].precision == Estimate(0, 0, 1)
    assert found.classes[1].recall == wilson(0, 2)
    assert (found.classes[1].f1, found.classes[1].predicted) == (wilson(0, 2), 0)


def test_class_without_images() -> None:
    found = score(np.array([[2, 0], [0, 1]], np.float32), [0, 0])
    one = found.classes[1]
    assert (one.precision, one.recall, one.f1, one.support, one.predicted, one.roc_auc) == (
        None,
        None,
        None,
        0,
        1,
        None,
    )
    assert found.classes[0].roc_auc is None  # all images have it
    assert found.roc_auc is None
    assert found.balanced_accuracy.value == 0.5
    assert found.macro.recall.value == 0.25


def test_one_class() -> None:
    found = score(np.ones((3, 1), np.float32), [0, 0, 0])
    assert (found.accuracy, found.top_k, found.roc_auc) == (wilson(3, 3), {}, None)
    assert (found.log_loss, found.brier) == (0, 0)
    assert found.macro.f1 == wilson(3, 3)


@pytest.mark.parametrize("name", ["precision", "recall", "f1"])
def test_intervals_are_those_of_a_bootstrap_of_images(name: str) -> None:
    logits, labels = logits_and_labels(0, 300, 4)
    predicted = logits.argmax(1)
    found = score(logits, labels)
    draw, samples = np.random.default_rng(5), []
    for _ in range(600):
        rows = draw.integers(0, 300, 300)
        samples.append(
            sk.precision_recall_fscore_support(
                labels[rows], predicted[rows], labels=range(4), average=None, zero_division=0
            )
        )
    column = ["precision", "recall", "f1"].index(name)
    by_class = np.array([sample[column] for sample in samples])
    support = np.array([sample[3] for sample in samples])
    averages = {
        "macro": by_class.sum(1) / len({*labels.tolist(), *predicted.tolist()}),
        "weighted": (by_class * support).sum(1) / 300,
    }
    for average, values in averages.items():
        estimate = getattr(getattr(found, average), name)
        low, high = np.quantile(values - values.mean() + estimate.value, [0.025, 0.975])
        assert (estimate.low, estimate.high) == pytest.approx((low, high), abs=0.15 * (high - low))
    if name == "f1":
        one = found.classes[0].f1
        assert one
        low, high = np.quantile(by_class[:, 0], [0.025, 0.975])
        assert (one.low, one.high) == pytest.approx((low, high), abs=0.15 * (high - low))


@pytest.mark.parametrize(("images", "right"), [(40, 0.8), (40, 0.97), (300, 0.9)])
def test_about_95_percent_of_intervals_contain_the_truth(images: int, right: float) -> None:
    draw = np.random.default_rng(0)
    repeats, covered = 150, np.zeros(3)
    for seed in range(repeats):  # each of three classes is right with the same probability: every average is that
        labels = draw.integers(0, 3, images)
        wrong = draw.random(images) >= right
        logits = np.eye(3, dtype=np.float32)[(labels + wrong * draw.integers(1, 3, images)) % 3]
        found = score(logits, labels, seed=seed)
        f1 = found.classes[0].f1
        assert f1
        covered += [one.low <= right <= one.high for one in (found.balanced_accuracy, found.macro.f1, f1)]
    assert covered.min() / repeats > 0.88


def test_interval_contains_the_value_with_few_images_per_class() -> None:
    logits, labels = logits_and_labels(0, 400, 300)
    macro = score(logits, labels).macro.f1
    assert macro.low < macro.value - 0.01
    assert macro.value + 0.01 < macro.high


def test_f1_is_of_the_samples_in_which_the_class_occurs() -> None:
    labels = np.arange(300) % 2
    labels[:2] = 2
    logits = np.eye(3, dtype=np.float32)[labels]
    logits[100:120, 0] += 2
    assert score(logits, labels).classes[2].f1 == wilson(2, 2)


@pytest.mark.parametrize("right", [True, False])
def test_bootstrap_without_variation_falls_back_to_wilson(right: bool) -> None:
    labels = np.arange(20) % 4
    found = score(np.eye(4, dtype=np.float32)[labels if right else (labels + 1) % 4], labels)
    expected = wilson(20 * right, 20)
    assert found.macro.f1 == found.weighted.recall == found.balanced_accuracy == expected
    assert found.classes[0].f1 == (wilson(5, 5) if right else wilson(0, 10))


def test_seed_decides_the_bootstrap() -> None:
    logits, labels = logits_and_labels(0, 200, 10)
    assert score(logits, labels).to_dict() == score(logits, labels).to_dict()
    one, other = score(logits, labels), score(logits, labels, seed=1)
    assert one.macro.f1.value == other.macro.f1.value
    assert one.macro.f1.low != other.macro.f1.low


@given(st.data(), st.integers(1, 12), st.integers(1, 12))
def test_all_estimates_are_finite_and_ordered(data: st.DataObject, images: int, classes: int) -> None:
    numbers = st.floats(-(2.0**100), 2.0**100, width=32)
    logits = data.draw(st.lists(numbers, min_size=images * classes, max_size=images * classes))
    labels = data.draw(st.lists(st.integers(0, classes - 1), min_size=images, max_size=images))
    found = score(np.array(logits, np.float32).reshape(images, classes), labels)
    json.dumps(found.to_dict(), allow_nan=False)
    for estimate in estimates_of(found):
        assert 0 <= estimate.low <= estimate.value <= estimate.high <= 1
        assert estimate.low < estimate.high
    assert 0 <= found.brier <= 2
    assert 0 <= found.log_loss <= 2.0**101


def estimates_of(found: Scores) -> list[Estimate]:
    averages = [getattr(one, name) for one in (found.macro, found.weighted) for name in ("precision", "recall", "f1")]
    classes = [getattr(one, name) for one in found.classes for name in ("precision", "recall", "f1")]
    every = [found.accuracy, found.balanced_accuracy, *found.top_k.values(), *averages, *classes]
    return [one for one in every if one is not None]


def test_plain_data() -> None:
    logits, labels = logits_and_labels(0, 200, 10)
    found = score(logits, labels)
    data = found.to_dict()
    assert json.loads(json.dumps(data)) == data
    assert data["accuracy"] == found.accuracy._asdict()
    assert data["top_k"]["5"]["value"] == found.top_k[5].value
    assert data["macro"]["f1"]["low"] == found.macro.f1.low
    assert data["classes"][0]["recall"]["high"] == found.classes[0].recall.high
    assert data["classes"][9]["f1"] is None
    assert data["confusion"] == found.confusion.tolist()
    assert "cells" not in data


def test_plain_data_of_many_classes_has_only_the_cells() -> None:
    logits, labels = logits_and_labels(0, 20, 1001)
    found = score(logits, labels)
    data = found.to_dict()
    assert "confusion" not in data
    assert [found.confusion[true, predicted] for true, predicted, _ in data["confusion_cells"]] == [
        count for *_, count in data["confusion_cells"]
    ]
    assert sum(count for *_, count in data["confusion_cells"]) == 20


@pytest.mark.parametrize(
    ("logits", "labels", "temperature", "reason"),
    [
        (np.ones((0, 3)), [], 1.0, "there is no image to evaluate on"),
        (np.ones((2, 0)), [0, 0], 1.0, r"logits must be numbers, images x classes, not float64 of shape \(2, 0\)"),
        (np.ones(3), [0, 0, 0], 1.0, r"images x classes, not float64 of shape \(3,\)"),
        ([["a"]], [0], 1.0, "logits must be numbers"),
        (np.ones((3, 2)), [0, 1], 1.0, r"3 images need as many integer labels, not int64 of shape \(2,\)"),
        (np.ones((2, 2)), [0.0, 1.0], 1.0, "integer labels, not float64"),
        (np.ones((3, 2)), [0, 1, 2], 1.0, "row 2 has the label 2, but the logits have 2 classes"),
        (np.ones((3, 2)), [0, -1, 2], 1.0, "row 1 has the label -1"),
        (np.ones((1, 2)), [0], 0.0, "the temperature must be between 1e-06 and 1e.06, not 0.0"),
        (np.ones((1, 2)), [0], float("nan"), "not nan"),
        (np.ones((1, 2)), [0], float("inf"), "not inf"),
    ],
)
def test_bad_input(logits: Any, labels: Any, temperature: float, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        score(logits, labels, temperature)


@pytest.mark.parametrize(("value", "name"), [(np.nan, "NaN"), (np.inf, "Inf"), (-np.inf, "Inf")])
@pytest.mark.parametrize(("row", "classes"), [(3, 4), (7, 200_000)])
def test_first_row_that_is_not_finite(value: float, name: str, row: int, classes: int) -> None:
    logits = np.zeros((10, classes), np.float32)
    logits[row:, 2] = value
    with pytest.raises(CnnkitError, match=f"the logits in row {row} hold {name}"):
        score(logits, np.zeros(10, np.int64))


@pytest.mark.slow
def test_ten_thousand_classes() -> None:
    """Values are those of scikit-learn across blocks of rows and columns."""
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 10_000, 3000)
    logits = draw.normal(size=(3000, 10_000)).astype(np.float32)
    logits[np.arange(3000), labels] += 4
    found, chances = score(logits, labels), probabilities(logits)
    predicted = logits.argmax(1)
    assert found.macro.f1.value == pytest.approx(sk.f1_score(labels, predicted, average="macro", zero_division=0))
    assert found.log_loss == pytest.approx(-np.log(chances[np.arange(3000), labels]).mean())
    for index in np.unique(labels)[::400].tolist():
        assert found.classes[index].roc_auc == pytest.approx(sk.roc_auc_score(labels == index, chances[:, index]))


def test_metrics_need_no_torch() -> None:
    subprocess.run([sys.executable, "-c", "import sys, cnnkit.metrics; assert 'torch' not in sys.modules"], check=True)
