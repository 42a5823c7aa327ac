"""Seconds of training until Fashion-MNIST's validation accuracy is 88 to 94 %: cnnkit, and the usual PyTorch loop.

    python benchmarks/time_to_accuracy.py
    python benchmarks/time_to_accuracy.py --only 0.94      # about an hour

Both train the same network with the same optimiser, schedule, batches and number of epochs, one after the other, each
in a process of its own; the test accuracy is that of the epoch that validation chose. The loop has no augmentation, so
that 94 % is cnnkit's alone. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from _lib.report import RESULTS, earlier, write

SEED, VALIDATION = 0, 6_000
USUAL = (
    "schedule",
    "warm_up",
    "weight_decay",
    "label_smoothing",
)  # passed to the command if they differ from the defaults


@dataclass(frozen=True)
class Way:
    """A training run that reaches a target."""

    net: str
    epochs: int
    batch: int
    lr: float
    schedule: str = "one-cycle"
    warm_up: float | None = None  # epochs; None is the schedule's own
    weight_decay: float = 0.01
    label_smoothing: float = 0.0
    flags: tuple[str, ...] = ()
    arguments: dict[str, str] = field(default_factory=dict)  # of the network's builder
    peer: bool = True

    def command(self) -> list[str]:
        """Return the words behind `cnnkit`."""
        settings = {"epochs": self.epochs, "batch-size": self.batch, "lr": self.lr, "seed": SEED}
        for each in fields(self):
            if each.name in USUAL and getattr(self, each.name) != each.default:
                settings[each.name.replace("_", "-")] = getattr(self, each.name)
        settings |= {f"model-kwargs.{name}": value for name, value in self.arguments.items()}
        words = [word for name, value in settings.items() for word in (f"--{name}", str(value))]
        return ["train", self.net, "--data", "fashion-mnist", "--image-size", "28", *words, *self.flags]


RELU = {"activation": "relu"}
SMALL = {"stem": "cifar", "width": "24"}
WAYS = {
    0.88: Way("lenet", 2, 64, 0.008, "poly", 0.5, arguments=RELU),
    0.90: Way("lenet", 5, 64, 0.01, warm_up=0.5, weight_decay=0.1, label_smoothing=0.05, arguments=RELU),
    0.91: Way("lenet_bn", 10, 128, 0.012),
    0.92: Way("resnet18", 4, 128, 0.003),
    0.94: Way("resnet18", 16, 128, 0.1, flags=("--recipe", "best"), arguments=SMALL, peer=False),
}


def cnnkit(way: Way) -> dict[str, Any]:
    """Train by the plain command line; return each epoch's seconds and accuracy, and the best one's on the test set."""
    with tempfile.TemporaryDirectory() as folder:
        program = [sys.executable, "-m", "cnnkit"]
        subprocess.run([*program, *way.command(), "--output", folder], check=True, stdout=sys.stderr)
        [run] = Path(folder).iterdir()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        result = subprocess.run([*program, "evaluate", str(run), "--json"], check=True, capture_output=True, text=True)
    return {
        "seconds": [row["seconds"] for row in rows],
        "validation": [row["val_accuracy"] for row in rows],
        "test": json.loads(result.stdout)["accuracy"],
    }


def plain(way: Way) -> dict[str, Any]:
    """Train with the usual loop, which saves no weights; return each epoch's seconds and accuracy."""
    command = [sys.executable, __file__, "--worker", json.dumps(way.__dict__)]
    return dict(json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout))


def work(way: Way) -> None:
    """Train with the usual loop, in the process that `plain` starts."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    from cnnkit import create
    from cnnkit.core.device import pick_device
    from cnnkit.data import load_dataset
    from cnnkit.train import TrainConfig
    from cnnkit.train.schedule import learning_rate

    torch.manual_seed(SEED)
    data = load_dataset("fashion-mnist").train
    x = data.images.contiguous() / 255
    data = TensorDataset((x - x.mean()) / x.std(), data.labels)
    rest, validation = torch.utils.data.random_split(data, [len(data) - VALIDATION, VALIDATION])
    device = pick_device()
    net = create(way.net, image_size=28, **way.arguments).to(device)
    criterion = nn.CrossEntropyLoss(label_smoothing=way.label_smoothing)
    batches = DataLoader(rest, way.batch, shuffle=True)
    optimizer = torch.optim.AdamW(net.parameters(), way.lr, weight_decay=way.weight_decay)
    config = TrainConfig(epochs=way.epochs, lr=way.lr, schedule=way.schedule, warm_up=way.warm_up)
    step = 0
    seconds, accuracy = [], []
    for _ in range(way.epochs):
        net.train()
        start = time.perf_counter()
        for images, labels in batches:
            images, labels = images.to(device), labels.to(device)
            optimizer.param_groups[0]["lr"] = learning_rate(config, step, len(batches))
            optimizer.zero_grad()
            criterion(net(images), labels).backward()
            optimizer.step()
            step += 1
        seconds.append(round(time.perf_counter() - start, 3))
        net.eval()
        with torch.no_grad():
            correct = 0
            for images, labels in DataLoader(validation, 500):
                correct += (net(images.to(device)).argmax(1) == labels.to(device)).sum().item()
        accuracy.append(correct / VALIDATION)
    print(json.dumps({"seconds": seconds, "validation": accuracy}))


def main() -> None:
    """Train for each target and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    quick = [target for target, way in WAYS.items() if way.peer]
    parser.add_argument("--only", type=float, nargs="+", choices=WAYS, default=quick)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(Way(**json.loads(options.worker)))
        return
    figures = earlier(options.output, "time_to_accuracy")
    for target in options.only:
        way = WAYS[target]
        found = {"command": " ".join(["cnnkit", *way.command()]), "cnnkit": cnnkit(way)}
        if way.peer:
            found["plain"] = plain(way)
        figures[str(target)] = found
        print(target, json.dumps(found), flush=True)
    conditions = "54,000 images to train on, 6,000 to validate on after each epoch; one seed"
    write(options.output, "time_to_accuracy", conditions, figures)


if __name__ == "__main__":
    main()
