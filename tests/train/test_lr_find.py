"""The learning-rate finder: known answers for known losses, a clear line otherwise."""

import json
import math
from pathlib import Path

import pytest
import torch

from cnnkit.core.errors import CnnkitError
from cnnkit.train.lr_find import LAG, lr_range_test, suggest_lr
from helpers.cli import Cli, one_line
from helpers.training import config, trainer

RATES = [1e-6 * 10 ** (7 * step / 99) for step in range(100)]


def test_suggestion_is_at_the_steepest_fall_of_the_loss() -> None:
    """A loss that falls as a smooth step of log10(lr) around 0.01, and explodes above 1."""
    losses = [2 - math.tanh(3 * (math.log10(lr) + 2)) + (50 * max(0.0, math.log10(lr))) for lr in RATES]
    found = suggest_lr(list(zip(RATES, losses, strict=True)))
    step = RATES.index(found) + LAG
    assert math.log10(RATES[step]) == pytest.approx(-2, abs=0.1)


def test_lr_find_reports_a_loss_that_never_falls() -> None:
    with pytest.raises(CnnkitError, match="the loss never falls"):
        suggest_lr([(lr, 1 + index) for index, lr in enumerate(RATES)])


def test_lr_find_restores_the_network_and_spaces_rates_by_ratio(tmp_path: Path) -> None:
    run = trainer(tmp_path, config())
    before = [value.clone() for value in run.net.state_dict().values()]
    points = list(lr_range_test(run.net, run.train, config(), 1e-5, 0.1, 21))
    assert [lr for lr, _ in points] == pytest.approx([1e-5 * 10 ** (0.2 * step) for step in range(21)])
    assert all(a.equal(b) for a, b in zip(before, run.net.state_dict().values(), strict=True))
    run.net[0].weight.data.fill_(torch.nan)
    with pytest.raises(CnnkitError, match="the first loss is already NaN/Inf"):
        list(lr_range_test(run.net, run.train, config(), 1e-5, 0.1, 21))


def test_lr_find_command_prints_a_suggestion(cli: Cli) -> None:
    report = json.loads(cli("lr-find", "lenet_bn", "--json").out)
    assert 0.0005 < report["suggestion"] < 0.3
    losses = [point["loss"] for point in report["points"]]
    assert min(losses) < 0.7 * losses[10]
    shown = cli("lr-find", "lenet_bn", "--output", "lr.png")
    assert f"try --lr {report['suggestion']:.2g}" in shown.out
    assert "learning rate" in shown.out
    assert Path("lr.png").read_bytes().startswith(b"\x89PNG")
    assert not Path("runs").exists()
    one_line(cli("lr-find", "lenet", "--low", 1, "--high", 0.1), 2, "--low must be above 0 and below --high")
