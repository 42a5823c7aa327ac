"""On a GPU: captured steps, a loop without synchronisation, and the command line."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.data.augment.batch import AUGMENTATIONS, Augment
from cnnkit.nets import create
from cnnkit.train import TrainConfig
from cnnkit.train.autotune.choose import choose_plan
from cnnkit.train.autotune.plan import Plan, plain_plan
from cnnkit.train.autotune.profile import profile_steps
from cnnkit.train.step import Step, Stepper
from helpers.cli import Cli

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

NETS = {"lenet_bn": (1, 28), "resnet18": (3, 32), "alexnet": (1, 64)}


def made(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    channels, pixels = NETS[name]
    torch.manual_seed(0)
    net = create(name, in_channels=channels, num_classes=10, image_size=pixels, width=8 if name == "resnet18" else None)
    return net.cuda(), (channels, pixels, pixels)


def data(image: tuple[int, int, int], number: int = 64) -> ImageSet:
    generator = torch.Generator().manual_seed(0)
    channels, height, width = image
    pixels = torch.randint(256, (number, height, width, channels), dtype=torch.uint8, generator=generator)
    return ImageSet(pixels.permute(0, 3, 1, 2), torch.randint(10, (number,), generator=generator))


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
@pytest.mark.parametrize("name", NETS)
def test_captured_step_equals_plain_step_on_gpu(name: str, optimizer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """With batches of two sizes, dropout and batch normalisation."""
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    config = TrainConfig(optimizer=optimizer, clip=1.0, label_smoothing=0.1)
    found = []
    for graph in (False, True):
        net, image = made(name)
        stepper = Stepper(net, config, plan=Plan(graph=graph))
        stepper.train()
        batches = Batches(data(image), 28, Preprocess(image[1:]), device="cuda", seed=0)
        results = [
            torch.stack(stepper(Step(number, 1e-3, number, len(y)), x, y))
            for number, (x, y) in enumerate(batches.epoch(0))
        ]
        assert batches.sizes == [28, 28, 8]
        found.append((torch.stack(results), net.state_dict()))
        assert len(stepper.cuda_graphs) == (2 if graph else 0)
    (results, weights), (others, own) = found
    torch.testing.assert_close(others, results, rtol=1e-3, atol=1e-3)
    for key, value in weights.items():
        torch.testing.assert_close(own[key], value, rtol=1e-2, atol=2e-3, msg=lambda text, key=key: f"{key}: {text}")


@pytest.mark.parametrize("plan", [Plan(), Plan(graph=True), Plan(precision="bf16", graph=True)], ids=str)
@pytest.mark.parametrize("augment", [(), ("flip", "crop:4", "erase"), ("trivial",), ("rrc",)])
def test_steps_do_not_synchronise_the_device(plan: Plan, augment: tuple[str, ...]) -> None:
    net, image = made("resnet18")
    stepper = Stepper(net, TrainConfig(), plan=plan)
    stepper.train()
    change = Augment(augment, (32, 32)) if augment else None
    batches = Batches(data(image), 16, Preprocess(image[1:], (0.5,)), device="cuda", seed=0, augment=change)

    def take(epoch: int) -> None:
        for number, (x, y) in enumerate(batches.epoch(epoch)):
            stepper.take([Step(number, 1e-3, number, len(y))], x, y)
            torch.cuda.set_sync_debug_mode("error" if epoch else "default")

    try:
        take(0)
        take(1)
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("name", [name for name in AUGMENTATIONS if name != "rrc"])
@pytest.mark.parametrize("channels", [1, 3])
def test_augmentation_is_the_same_on_every_device(name: str, channels: int) -> None:
    images = data((channels, 20, 24)).images
    augment = Augment([name], (20, 24))
    u = torch.rand(len(images), augment.numbers, generator=torch.Generator().manual_seed(1))
    for numbers in (u, u.cuda()):
        assert torch.equal(augment(images.cuda(), numbers).cpu(), augment(images, u))


def test_small_network_is_captured_but_mixup_is_not() -> None:
    net, image = made("lenet_bn")
    assert choose_plan(net, image, 64, 10**6, TrainConfig()).graph
    assert not choose_plan(net, image, 64, 10**6, TrainConfig(mixup=0.2)).graph


def test_profile_counts_each_kernel_once() -> None:
    net, image = made("resnet18")
    kinds = profile_steps(net, image, 64, TrainConfig(), Plan(graph=True))
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    stepper = Stepper(net, TrainConfig(), plan=plain_plan(TrainConfig()))
    x, y = torch.rand(64, *image, device="cuda"), torch.zeros(64, dtype=torch.int64, device="cuda")
    stepper(Step(0, 1e-3, 0, 64), x, y)
    start.record()
    stepper(Step(0, 1e-3, 0, 64), x, y)
    end.record()
    torch.cuda.synchronize()
    assert kinds["convolutions, backward"] > 0
    assert sum(kinds.values()) < 1.2e-3 * start.elapsed_time(end)


def test_run_on_gpu_resumes_and_evaluates(cli: Cli, tmp_path: Path) -> None:
    plan = tmp_path / "graph.json"
    plan.write_text(json.dumps({"graph": True, "precision": "bf16"}))
    train = ["train", "lenet_bn", "--data", "digits", "--output", "runs", "--device", "cuda"]
    assert cli(*train, "--plan", plan, "--epochs", 1).code == 0
    [run] = Path("runs").iterdir()
    assert cli("train", "--resume", run, "--epochs", 4).code == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[-1]["train_loss"] < rows[0]["train_loss"]
    on_gpu, on_cpu = (json.loads(cli("evaluate", run, "--json", "--device", each).out) for each in ("cuda", "cpu"))
    assert abs(on_gpu["accuracy"] - on_cpu["accuracy"]) < 0.01
    assert on_gpu["loss"] == pytest.approx(on_cpu["loss"], rel=0.01)
