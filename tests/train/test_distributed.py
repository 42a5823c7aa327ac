"""Several processes under torchrun: they train like one, and killed ones restart with identical results."""

import json
import os
import signal
import subprocess
from pathlib import Path

import pytest
import torch

from cnnkit.data import Batches, load_dataset
from cnnkit.deploy import load
from cnnkit.experiment import RunFolder
from cnnkit.experiment.config import resolve
from cnnkit.experiment.launch import _started
from cnnkit.train import evaluate
from cnnkit.train.checkpoint import load_checkpoint
from helpers.cli import Cli
from helpers.processes import run_torchrun, torchrun, wait_for_lines
from helpers.training import metrics, repeatable_metrics

SETTINGS = ("--batch-size", "96", "--augment", "flip,crop:1", "--ema", "0.9", "--lr", "0.005")


def assert_same_curve(one: str, other: str) -> None:
    for a, b in zip(metrics(one), metrics(other), strict=True):
        for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy"):
            assert a[name] == pytest.approx(b[name], rel=1e-3, abs=2e-3), name


def test_two_processes_follow_the_curve_of_one(cli: Cli) -> None:
    """The same images, augmented alike, in parts of two processes and of two halves each; validation is exact.

    The two also compute by another plan.
    """
    arguments = ("train", "lenet", *SETTINGS, "--epochs", 3)
    assert cli(*arguments, "--output", "one").code == 0
    Path("plan.json").write_text(json.dumps({"convolutions": {"conv2": ["unfold"] * 3}}))
    done = run_torchrun(*arguments, "--accumulate", 2, "--plan", "plan.json", "--output", "two")
    assert done.returncode == 0, done.stderr
    assert_same_curve("one/lenet-digits-1", "two/lenet-digits-1")
    assert done.stdout.count("epoch 3/3") == 1, "one process speaks"
    assert "in 2 processes" in done.stdout
    assert [path.name for path in Path("two").iterdir()] == ["lenet-digits-1"]
    assert cli("evaluate", "two/lenet-digits-1").code == 0


def test_sync_batch_norm_matches_one_process(cli: Cli) -> None:
    """With SGD: Adam makes whole steps of the rounding errors that biases before a normalisation have for gradients."""
    arguments = ("train", "lenet_bn", *SETTINGS, "--epochs", 3, "--optimizer", "sgd", "--momentum", 0.9)
    assert cli(*arguments, "--output", "one").code == 0
    done = run_torchrun(*arguments, "--sync-bn", "--output", "two")
    assert done.returncode == 0, done.stderr
    assert_same_curve("one/lenet_bn-digits-1", "two/lenet_bn-digits-1")
    one, two = (torch.load(f"{name}/lenet_bn-digits-1/last.ckpt")["stepper"]["net"] for name in ("one", "two"))
    assert one.keys() == two.keys()


@pytest.mark.slow
def test_saved_weights_are_the_validated_ones() -> None:
    """Each process has moving statistics of its own, and those of one are kept; odd parts in half precision work."""
    done = run_torchrun("train", "lenet_bn", "--epochs", 2, "--batch-size", 64)
    assert done.returncode == 0, done.stderr
    one = Path("runs/lenet_bn-digits-1")
    model = load(one)
    net, bundle = model.net, model.bundle
    rows = torch.tensor(json.loads((one / "split.json").read_text())["validation"])
    batches = Batches(load_dataset("digits").train.subset(rows), 500, bundle.preprocess)
    assert evaluate(net, batches).loss == pytest.approx(bundle.metrics["val_loss"], rel=1e-6)
    odd = run_torchrun(
        "train", "lenet_bn", "--epochs", 1, "--batch-size", 9, "--accumulate", 4, "--sync-bn", "--precision", "bf16"
    )
    assert odd.returncode == 0, odd.stderr


def test_job_resumes_its_newest_run_of_equal_settings() -> None:
    asked = {lr: resolve({"net": "lenet", "lr": lr}) for lr in (0.1, 0.2, 0.3)}
    made = []
    for lr in (0.1, 0.2, 0.2):
        with RunFolder.drafted(Path("runs"), "lenet-digits") as (draft, path):
            draft.write_settings(asked[lr].model_dump(mode="json"))
            draft.write_environment({}, "job")
        made.append(RunFolder(path))
        os.utime(made[-1].path / "environment.json", (len(made), len(made)))
    assert _started(Path("runs"), "job", asked[0.1]) == made[0].path
    assert _started(Path("runs"), "job", asked[0.2]) == made[2].path
    assert _started(Path("runs"), "job", asked[0.3]) is None
    assert _started(Path("runs"), "another job", asked[0.2]) is None
    assert _started(Path("runs"), "job", asked[0.2].model_copy(update={"data": "fashion-mnist"})) is None


def workers(parent: int) -> list[int]:
    """The processes that torchrun has started."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [int(child) for child in children if b"cnnkit" in Path(f"/proc/{child}/cmdline").read_bytes()]


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' /proc to find torchrun's workers")
def test_killed_process_is_replaced_with_identical_result() -> None:
    arguments = ("train", "lenet", *SETTINGS, "--epochs", 30, "--checkpoint-steps", 3)
    assert run_torchrun(*arguments, "--output", "whole").returncode == 0
    rows = Path("runs/lenet-digits-1/metrics.jsonl")
    command = torchrun(*arguments, restarts=2)
    with subprocess.Popen(
        command, env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        for rank, epochs in ((1, 4), (0, 12)):
            wait_for_lines(rows, epochs)
            os.kill(workers(job.pid)[rank], signal.SIGKILL)
        _, err = job.communicate(timeout=100)
    assert job.returncode == 0, err.decode()
    assert [path.name for path in Path("runs").iterdir()] == ["lenet-digits-1"], "the same run went on"
    a, b = (load_checkpoint(Path(folder, "lenet-digits-1/last.ckpt")) for folder in ("whole", "runs"))
    for name, value in a["stepper"]["net"].items():
        assert value.equal(b["stepper"]["net"][name]), name
    assert repeatable_metrics("whole/lenet-digits-1") == repeatable_metrics("runs/lenet-digits-1")


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux' /proc to find torchrun's workers")
def test_sigterm_of_one_process_stops_all() -> None:
    arguments = ("train", "lenet", *SETTINGS, "--epochs", 200)
    with subprocess.Popen(
        torchrun(*arguments), env=os.environ | {"OMP_NUM_THREADS": "1"}, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as job:
        wait_for_lines(Path("runs/lenet-digits-1/metrics.jsonl"), 2)
        os.kill(workers(job.pid)[1], signal.SIGTERM)
        _, err = job.communicate(timeout=60)
    assert b"resume with: cnnkit train --resume runs/lenet-digits-1" in err
    done = load_checkpoint(Path("runs/lenet-digits-1/last.ckpt"))
    assert run_torchrun("train", "--resume", "--epochs", done["epoch"]).returncode == 0
    assert len(metrics("runs/lenet-digits-1")) == done["epoch"]


def test_more_processes_than_batch_images_is_refused() -> None:
    done = run_torchrun("train", "lenet", "--batch-size", 1)
    assert done.returncode == 1
    assert "batch_size must be at least 2 for 2 processes, not 1" in done.stderr
    assert not Path("runs").exists()
