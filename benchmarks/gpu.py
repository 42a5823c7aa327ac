"""Training on a GPU, images per second: the usual PyTorch loop, the same in bf16, and cnnkit's plan, in turn.

    python benchmarks/gpu.py

The batches are random and on the device already: what is measured is the step, from there to the updated weights. The
plan of ResNet-50 is chosen as for a long run, so that compiling is tried; those of the small networks as for ten
epochs of Fashion-MNIST. Results go to benchmarks/results/ as JSON.
"""

import argparse
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from _lib.report import RESULTS, earlier, write
from torch import Tensor, nn

from cnnkit import create
from cnnkit.train import TrainConfig
from cnnkit.train.autotune.choose import choose_plan
from cnnkit.train.autotune.flops import operations
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.autotune.profile import peak
from cnnkit.train.step import Step, Stepper

SETTINGS = {"lr": 0.01, "momentum": 0.9}
DEVICE = torch.device("cuda", 0)


@dataclass(frozen=True)
class Work:
    """A network to train."""

    net: str
    channels: int
    pixels: int
    batch: int
    steps: int  # in a turn
    images: int | None = 600_000  # of the training that the plan is for; None is a long one

    @property
    def image(self) -> tuple[int, int, int]:
        """The shape of an image."""
        return self.channels, self.pixels, self.pixels


WORK = {
    "lenet": Work("lenet", 1, 28, 64, 1000),
    "resnet18": Work("resnet18", 1, 28, 128, 400),
    "resnet50": Work("resnet50", 3, 224, 256, 20, None),
}
Turn = Callable[[], object]  # takes all of a turn's steps


def made(work: Work) -> nn.Module:
    """Return the network on the device."""
    torch.manual_seed(0)
    return create(work.net, in_channels=work.channels, num_classes=10, image_size=work.pixels).to(DEVICE).train()


def plain(work: Work, x: Tensor, y: Tensor, half: bool) -> Turn:
    """Return the usual loop."""
    net, criterion = made(work), nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(net.parameters(), **SETTINGS)

    def turn() -> None:
        loss_sum = 0.0
        for _ in range(work.steps):
            optimizer.zero_grad()
            with torch.autocast("cuda", torch.bfloat16, enabled=half):
                loss = criterion(net(x), y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()

    return turn


def cnnkit(work: Work, x: Tensor, y: Tensor) -> tuple[Turn, Plan, float]:
    """Return the trainer's steps, by its plan; the plan; and the seconds of autotuning."""
    net, config = made(work), TrainConfig(optimizer="sgd", weight_decay=0, batch_size=work.batch, **SETTINGS)
    start = time.perf_counter()
    plan = choose_plan(net, work.image, work.batch, work.images, config)
    seconds = time.perf_counter() - start
    stepper = Stepper(net, config, plan=plan)
    stepper.train()
    return lambda: [stepper.take([Step(n, 0.01, n, work.batch)], x, y) for n in range(work.steps)], plan, seconds


def measure(work: Work, rounds: int) -> dict[str, Any]:
    """Let all take their turns, after one that does not count."""
    x = torch.rand(work.batch, *work.image, device=DEVICE)
    y = torch.arange(work.batch, device=DEVICE) % 10
    own, plan, choosing = cnnkit(work, x, y)
    turns = {"plain": plain(work, x, y, half=False), "plain-bf16": plain(work, x, y, half=True), "cnnkit": own}
    seconds: dict[str, list[float]] = {name: [] for name in turns}
    for _ in range(rounds + 1):
        for name, turn in turns.items():
            start = time.perf_counter()
            turn()
            torch.cuda.synchronize()
            seconds[name].append(time.perf_counter() - start)
    return {
        "work": asdict(work),
        "seconds": {name: found[1:] for name, found in seconds.items()},
        "first": {name: found[0] for name, found in seconds.items()},
        "plan": str(plan),
        "choosing": choosing,
        "operations": operations(made(work), work.image) * work.batch * work.steps,
        "peak": peak(plan, DEVICE),
    }


def main() -> None:
    """Measure network after network and write the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK), help="the networks to measure again")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    figures = earlier(options.output, "gpu")
    for key in options.only:
        figures[key] = measure(WORK[key], options.rounds)
        work = (
            f"medians of {options.rounds} rounds in turn, SGD with momentum, random batches on the device; plain "
            "convolutions in TF32, as torch's default is"
        )
        write(options.output, "gpu", work, {key: figures[key] for key in WORK if key in figures})


if __name__ == "__main__":
    main()
