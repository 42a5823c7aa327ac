"""Runs that are killed again and again end as if nothing had happened: real processes, `kill -9`, to the bit."""

import random
import signal
import time
from pathlib import Path

import pytest

from helpers.processes import finished, kill, start_training
from helpers.training import outcome

SETTINGS = (
    "lenet_bn", "--epochs", "40", "--batch-size", "96", "--accumulate", "2", "--ema", "0.95", "--warm-up", "2",
    "--augment", "flip,crop:1,erase:0.3", "--mixup", "0.2", "--label-smoothing", "0.1", "--clip", "1",
    "--checkpoint-steps", "2", "--keep", "3",
)  # fmt: skip
LANES = (
    "lenet_bn", "--engine", "lanes", "--epochs", "40", "--batch-size", "96", "--warm-up", "2",
    "--augment", "flip,crop:1,erase:0.3", "--label-smoothing", "0.1", "--checkpoint-steps", "2", "--keep", "3",
)  # fmt: skip


def where(run: Path) -> float:
    path = run / "last.ckpt"
    return path.stat().st_mtime if path.exists() else 0.0


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' /proc to find all processes")
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("processes", "kills", "settings"),
    [
        (1, 1, SETTINGS),
        pytest.param(1, 10, SETTINGS, marks=pytest.mark.slow),
        pytest.param(2, 10, SETTINGS, marks=pytest.mark.slow),
        pytest.param(1, 5, LANES, marks=pytest.mark.slow),
    ],
)
def test_a_run_killed_at_random_ends_to_the_bit_as_one_left_alone(
    processes: int, kills: int, settings: tuple[str, ...]
) -> None:
    run = Path("runs/lenet_bn-digits-1")
    finished(start_training(processes, *settings, "--output", "whole"))
    draw = random.Random(kills)
    arguments = settings
    for _ in range(kills):
        before = where(run)
        with start_training(processes, *arguments) as victim:
            deadline = time.monotonic() + 120
            while where(run) == before and time.monotonic() < deadline:
                assert victim.poll() is None, "it ends before it is killed: it needs more epochs"
                time.sleep(0.005)
            time.sleep(draw.random() * 0.15)
            kill(victim.pid)
        assert victim.returncode == -signal.SIGKILL
        arguments = ("--resume", str(run))
    finished(start_training(processes, *arguments))
    weights, figures = outcome(run)
    whole_weights, whole_figures = outcome(Path("whole/lenet_bn-digits-1"))
    assert len(figures) == 40
    assert figures == whole_figures
    assert weights == whole_weights
    assert (run / "best/model.safetensors").read_bytes() == Path(
        "whole/lenet_bn-digits-1/best/model.safetensors"
    ).read_bytes()
