"""A small training, and what runs leave: metrics, splits, weights."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.train import EpochRecord, StepRecord, TrainConfig, Trainer
from cnnkit.train.checkpoint import load_checkpoint


class Quiet:
    """Remembers what the loop tells; can stop or break the run at a step."""

    def __init__(self) -> None:
        self.epochs: list[EpochRecord] = []
        self.steps: list[StepRecord] = []

    def on_step_end(self, record: StepRecord) -> None:
        self.steps.append(record)

    def on_epoch_end(self, record: EpochRecord) -> None:
        self.epochs.append(record)


def stripes(count: int, seed: int) -> ImageSet:
    """Images of 8 x 8 noise with a bright row (class 0) or column (class 1)."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(0, 60, (count, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 0, :, 3] += 150
    images[labels == 1, :, :, 4] += 150
    return ImageSet(images, labels)


class Noisy(nn.Module):
    """A step that draws random numbers in training, as dropout does, and remembers its input's sums."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen.append(x.sum().item())
        return F.dropout(x, 0.2, self.training)


def trainer(folder: Path, config: TrainConfig, observer: Quiet | None = None, saved: list | None = None) -> Trainer:
    torch.manual_seed(config.seed)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), Noisy(), nn.Linear(144, 2))
    folder.mkdir(exist_ok=True)
    return Trainer(
        net,
        Batches(stripes(101, 1), config.batch_size, Preprocess((8, 8)), seed=config.seed),
        Batches(stripes(40, 2), 16, Preprocess((8, 8))),
        config,
        checkpoint=folder / "last.ckpt",
        callbacks=[observer or Quiet()],
        save_best=lambda net, record: (saved if saved is not None else []).append(record.epoch),
    )


def config(**settings: object) -> TrainConfig:
    return TrainConfig(**({"epochs": 3, "batch_size": 8, "lr": 0.01} | settings))


def metrics(run: Path | str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]


def untimed(rows: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return rows of metrics without what differs between equal runs."""
    return [{k: v for k, v in row.items() if k not in ("seconds", "images_per_second")} for row in rows]


def read_split(run: Path | str = "runs/lenet-photos-1") -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(run, "split.json").read_text())
    return found


def outcome(run: Path) -> tuple[dict[str, bytes], list[dict[str, Any]]]:
    """Return the bytes of a run's last weights, and its metrics."""
    state = load_checkpoint(run / "last.ckpt")["stepper"]
    average = state["average"]["net"] if state["average"] else {}
    tensors = {**state["net"], **{f"average {name}": value for name, value in average.items()}}
    return {name: value.numpy().tobytes() for name, value in tensors.items()}, untimed(metrics(run))


def repeatable_metrics(run: Path | str) -> list[dict[str, Any]]:
    """Return the metrics that equal runs have in common: all but the times."""
    return untimed(metrics(run))
