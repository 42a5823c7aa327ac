"""Runs that are killed again and again end as if nothing had happened: real processes, `kill -9`, to the bit."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cnnkit.train.checkpoint import load_checkpoint

SETTINGS = (
    "lenet_bn", "--epochs", "40", "--batch-size", "96", "--accumulate", "2", "--ema", "0.95", "--warm-up", "2",
    "--augment", "flip,crop:1,erase:0.3", "--mixup", "0.2", "--label-smoothing", "0.1", "--clip", "1",
    "--checkpoint-steps", "2", "--keep", "3",
)  # fmt: skip


def command(processes: int, *arguments: str) -> list[str]:
    if processes == 1:
        return [sys.executable, "-m", "cnnkit", "train", *arguments]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    return [*torchrun, "-m", "cnnkit", "train", *arguments]


def start(processes: int, *arguments: str) -> subprocess.Popen[str]:
    """Start in a process group of its own, so that all of it can be killed at once."""
    return subprocess.Popen(
        command(processes, *arguments), env=os.environ | {"OMP_NUM_THREADS": "1"}, start_new_session=True,
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def finished(process: subprocess.Popen[str]) -> None:
    _, err = process.communicate(timeout=280)
    assert process.returncode == 0, err


def where(run: Path) -> float:
    path = run / "last.ckpt"
    return path.stat().st_mtime if path.exists() else 0.0


def outcome(run: Path) -> tuple[dict[str, bytes], list[dict[str, float]]]:
    state = load_checkpoint(run / "last.ckpt")["stepper"]
    tensors = {**state["net"], **{f"average {name}": value for name, value in state["average"]["net"].items()}}
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    figures = [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, figures


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("processes", "kills"),
    [(1, 3), pytest.param(1, 10, marks=pytest.mark.slow), pytest.param(2, 10, marks=pytest.mark.slow)],
)
def test_a_run_killed_at_random_ends_to_the_bit_as_one_left_alone(processes: int, kills: int) -> None:
    run = Path("runs/lenet_bn-digits-1")
    finished(start(processes, *SETTINGS, "--output", "whole"))
    draw = random.Random(kills)
    arguments: tuple[str, ...] = SETTINGS
    for _ in range(kills):
        before = where(run)
        with start(processes, *arguments) as victim:
            deadline = time.monotonic() + 120
            while where(run) == before and time.monotonic() < deadline:
                assert victim.poll() is None, "it ends before it is killed: it needs more epochs"
                time.sleep(0.005)
            time.sleep(draw.random() * 0.15)
            os.killpg(victim.pid, signal.SIGKILL)
        assert victim.returncode == -signal.SIGKILL
        arguments = ("--resume", str(run))
    finished(start(processes, *arguments))
    weights, figures = outcome(run)
    whole_weights, whole_figures = outcome(Path("whole/lenet_bn-digits-1"))
    assert len(figures) == 40
    assert figures == whole_figures
    assert weights == whole_weights
    assert (run / "best/model.safetensors").read_bytes() == Path(
        "whole/lenet_bn-digits-1/best/model.safetensors"
    ).read_bytes()
