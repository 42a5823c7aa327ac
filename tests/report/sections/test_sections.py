"""The sections of a report, from made-up predictions."""

from dataclasses import replace

import numpy as np
import pytest

from cnnkit.core.errors import CnnkitError
from cnnkit.experiment import Evaluation
from cnnkit.experiment.predictions import SplitPredictions
from cnnkit.metrics import wilson
from cnnkit.report.sections.certainty import certainty, thresholds
from cnnkit.report.sections.comparison import Earlier
from cnnkit.report.sections.confusion import confusion, rows_to_show
from cnnkit.report.sections.judged import Judged
from cnnkit.report.sections.parts import Missing, attempt


def evaluation(labels: list[int], answers: list[int], confidences: list[float], classes: int = 3) -> Evaluation:
    """Return an evaluation with these answers and their probabilities; the other classes share the rest."""
    chances = np.array([(1 - one) / (classes - 1) for one in confidences], np.float64)[:, None].repeat(classes, 1)
    chances[np.arange(len(answers)), answers] = confidences
    names = tuple(f"class {number}" for number in range(classes))
    logits = np.log(chances).astype(np.float32)
    return Evaluation(SplitPredictions("net", "data", "test", names, logits, np.array(labels), (), 1.0, "", "", ""))


@pytest.fixture
def small() -> Evaluation:
    return evaluation([0, 0, 0, 1, 1, 1, 2], [0, 0, 1, 1, 0, 0, 2], [0.9, 0.6, 0.8, 0.7, 0.95, 0.5, 0.99])


def test_cells_hold_their_images_by_confidence(small: Evaluation) -> None:
    judged = Judged(small)
    found = confusion(small.scores, judged)
    cells = {(cell.true, cell.predicted): cell for group in found.groups for cell in group.cells}
    assert {pair: (cell.count, [image.row for image in cell.images]) for pair, cell in cells.items()} == {
        (0, 0): (2, [0, 1]),
        (0, 1): (1, [2]),
        (1, 1): (1, [3]),
        (1, 0): (2, [4, 5]),
        (2, 2): (1, [6]),
    }
    assert cells[1, 0].share == pytest.approx(2 / 3)
    assert [(group.true, group.images, group.correct) for group in found.groups] == [(0, 3, 2), (1, 3, 1), (2, 1, 1)]
    assert [[cell.count for cell in row] for row in found.matrix(3)] == small.confusion.tolist()
    assert [[cell.level for cell in row] for row in found.matrix(3)] == [[9, 6, 0], [9, 6, 0], [0, 0, 10]]


def test_wrong_cells_are_shown_first_and_each_in_turn(small: Evaluation) -> None:
    found = confusion(small.scores, Judged(small))
    assert rows_to_show(found, 100) == [4, 2, 5, 0, 3, 6, 1]
    assert rows_to_show(found, 2) == [4, 2]


def test_images_have_their_answers(small: Evaluation) -> None:
    judged = Judged(small)
    assert [image.row for image in judged.mistakes(10).images] == [4, 2, 5]
    assert (judged.mistakes(1).total, len(judged.mistakes(1).images)) == (3, 1)
    assert [image.row for image in judged.uncertain(2).images] == [1, 3]
    assert [image.row for image in judged.confident(2)] == [6, 0]
    [image] = judged.images([2])
    assert (image.name, image.true, image.predicted) == ("image 2", 0, 1)
    assert image.confidence == pytest.approx(0.8)


def test_temperature_changes_confidence_but_no_answer(small: Evaluation) -> None:
    warm = Judged(replace(small, temperature=2.0))
    assert (warm.predicted == Judged(small).predicted).all()
    assert (warm.confidence < Judged(small).confidence).all()


def test_verdict_on_calibration_follows_the_band() -> None:
    draw = np.random.default_rng(0)
    confidences = draw.uniform(0.5, 0.99, 2000)
    labels = draw.integers(0, 3, 2000)
    for shift, words in (
        (0.0, "shows that its confidence is wrong"),
        (-0.1, "Its confidence is too high"),
        (0.1, "Its confidence is too low"),
    ):
        right = draw.random(2000) < confidences + shift
        answers = np.where(right, labels, (labels + 1) % 3)
        made = evaluation(labels.tolist(), answers.tolist(), confidences.tolist())
        assert words in certainty(made, Judged(made)).sentence


def test_thresholds_count_answers(small: Evaluation) -> None:
    found = thresholds(small)
    assert [one.answered for one in found.few] == [7, 7, 6, 5, 4, 3, 2, 1]  # 0, .5, .6, .7, .8, .9, .95, .99
    assert len(found.fine) == len(found.sentences()) == 100
    assert found.sentences()[85].startswith(
        "From 0.85 on, 3 of 7 images are answered (42.9 %), with an accuracy of 0.67 ("
    )
    assert [one.threshold for one in found.some(6)] == [0.0, 0.2, 0.4, 0.6, 0.8, 0.99]


@pytest.mark.parametrize(("gained", "lost", "clear"), [(58, 42, False), (70, 30, True), (30, 70, True), (3, 0, False)])
def test_difference_of_runs_is_clear_or_chance(gained: int, lost: int, clear: bool) -> None:
    found = Earlier("before", 5, wilson(5, 10), gained, lost, wilson(gained, gained + lost))
    assert found.is_clear == clear
    assert ("chance can explain" in str(found)) == (not clear)


def test_runs_that_agree_are_said_to() -> None:
    assert "both are right on the same images" in str(Earlier("before", 5, wilson(5, 10), 0, 0, None))


def test_missing_section_has_the_reason() -> None:
    def fails() -> int:
        raise CnnkitError("no such thing: install it")

    assert attempt(fails) == Missing("no such thing: install it")
    assert attempt(lambda: 3) == 3
