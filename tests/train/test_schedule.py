"""Learning-rate schedules."""

import pytest

from cnnkit.train import TrainConfig
from cnnkit.train.schedule import learning_rate


def rates(steps: int = 10, **settings: object) -> list[float]:
    row = TrainConfig(**({"epochs": 10, "lr": 1.0} | settings))
    return [learning_rate(row, step, steps) for step in range(row.epochs * steps)]


def test_schedules() -> None:
    assert set(rates(schedule="constant", lr=0.9)) == {0.9}
    cycle = rates(schedule="one-cycle")
    assert cycle[0] == pytest.approx(0.04)
    assert max(cycle) == cycle[25] == 1.0
    assert cycle[62] == pytest.approx(0.5, abs=0.02)
    assert cycle[:26] == sorted(cycle[:26])
    assert cycle[25:] == sorted(cycle[25:], reverse=True)
    assert 0 < cycle[-1] < 0.001
    assert rates(schedule="one-cycle", warm_up=0) == rates(schedule="cosine")
    cosine = rates(schedule="cosine")
    assert cosine[0] == 1.0
    assert cosine[50] == pytest.approx(0.5)
    line = rates(schedule="poly")
    assert line == pytest.approx([1 - step / 100 for step in range(100)])
    assert rates(schedule="poly", lr_power=2.0) == pytest.approx([value**2 for value in line])
    cut = rates(schedule="step", lr_step=4, lr_gamma=0.5)
    assert [cut[number] for number in (0, 39, 40, 79, 80, 99)] == [1, 1, 0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("schedule", ["constant", "cosine", "one-cycle", "poly", "step"])
def test_a_warm_up_is_a_line_to_the_peak(schedule: str) -> None:
    warm = rates(schedule=schedule, warm_up=2.5)
    assert warm[:25] == pytest.approx([0.04 + 0.96 * step / 25 for step in range(25)])
    assert warm[25] == 1.0
    assert rates(steps=1, epochs=1, schedule=schedule, warm_up=9) == [pytest.approx(0.04)]
