"""`cnnkit bench`: its measurements are consistent."""

import json

import pytest
import torch

from cnnkit.core.compiler import find_compiler
from cnnkit.nets import create
from cnnkit.train import TrainConfig
from cnnkit.train.autotune.flops import operations
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.autotune.profile import KINDS, REST, measure_steps, peak, profile_steps
from helpers.cli import Cli, one_line


def test_step_work_is_three_forward_passes() -> None:
    """LeNet's multiply-accumulates by chapter 5.5: its convolutions on 24 x 24 and 8 x 8 pixels, its dense layers."""
    macs = 24 * 24 * 6 * 25 + 8 * 8 * 16 * 6 * 25 + 256 * 120 + 120 * 84 + 84 * 10
    net = create("lenet").train()
    assert operations(net, (1, 28, 28)) == 3 * 2 * macs
    assert net.training


def test_speed_counts_images_and_operations_over_the_same_time() -> None:
    net = create("lenet_bn")
    speed = measure_steps(net, (1, 28, 28), 16, TrainConfig(), Plan())
    assert speed.operations_per_second == pytest.approx(speed.images_per_second * operations(net, (1, 28, 28)))
    assert 0 < speed.operations_per_second < peak(Plan(), torch.device("cpu"))


def test_profile_names_the_parts_of_a_step() -> None:
    torch.manual_seed(0)
    net = create("resnet18", image_size=28, width=8)
    step = profile_steps(net, (1, 28, 28), 16, TrainConfig(), Plan())
    assert set(step) == {*KINDS, REST}
    assert list(step.values()) == sorted(step.values(), reverse=True)
    whole = sum(step.values())
    assert step["convolutions"] + step["convolutions, backward"] > 0.2 * whole
    for kind in ("batch normalisation", "optimiser", "activations", "pooling", "loss"):
        assert step[kind] > 0, kind
    assert step["dropout"] == 0
    assert step[REST] < 0.4 * whole


def test_bench_prints_the_plan_and_the_speed(cli: Cli) -> None:
    done = cli("bench", "lenet", "--batch-size", 8, "--plan", "off", "--profile")
    assert done.code == 0, done.err
    lines = done.out.splitlines()
    assert lines[0] == "lenet, images of 1x28x28"
    assert lines[1] == "plan: fp32, channels-last"
    assert "training, batches of 8: " in lines[2]
    assert "GFLOP/s of a large matrix multiplication" in lines[3]
    shown = {line[:30].strip() for line in lines[4:]}
    assert {"convolutions", "pooling", "loss"} < shown < {*KINDS, REST}
    assert not any("lanes" in kind for kind in shown)


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_bench_measures_lanes(cli: Cli) -> None:
    done = cli("bench", "lenet", "--batch-size", 8, "--engine", "lanes", "--profile")
    assert "plan: fp32, lanes, 1 thread" in done.out
    [share] = [line.split()[-1] for line in done.out.splitlines() if line.startswith("lanes steps")]
    assert float(share.rstrip("%")) > 20
    assert "convolutions" not in done.out


def test_bench_prints_json(cli: Cli) -> None:
    facts = json.loads(cli("bench", "lenet", "--image-size", 32, "--batch-size", 4, "--json").out)
    assert facts["image"] == [1, 32, 32]
    assert facts["images_per_second"] > 0
    assert facts["plan"]["precision"] in ("fp32", "bf16")
    assert facts["profile"] is None
    predicted = json.loads(cli("bench", "lenet_bn", "--predict", "--json").out)["prediction"]
    assert [(row["batch"], row["precision"]) for row in predicted] == [
        (1, "fp32"), (1, "bf16"), (64, "fp32"), (64, "bf16"),
    ]  # fmt: skip
    assert set(predicted[0]["seconds"]) == {"torch", "onnxruntime"}


def test_bench_refuses_unsupported_options(cli: Cli) -> None:
    one_line(cli("bench"), 2, "no network given")
    one_line(cli("bench", "lenett"), 2, "lenet")
    one_line(cli("bench", "lenet", "--batch-size", "auto"), 2, "batch_size auto", "pass a number")
    one_line(cli("bench", "lenet", "--profile", "--predict"), 2, "--profile profiles training")
