"""Batch normalisation's statistics measured before each validation, against moving averages: accuracy, and the cost.

    python benchmarks/norm_statistics.py --photos DIR        # a folder with train/CLASS/... and val/CLASS/...
    python benchmarks/norm_statistics.py                     # the cost alone

Short runs on few photographs, by the plain command line: ResNet-18 as the chapter writes it (decay 0.99) and as
torchvision does (0.9). The validation accuracy is that on DIR/val after the last epoch, which selected nothing. The
test accuracy is that of other runs, which train and choose the best epoch on DIR/train alone and have DIR/val as their
test set. The cost is that of epochs on random images, with and without, in turn: two processes of one thread, an epoch
of each at a time, and the processor's time, so that other work on the machine does not count. Results go to
benchmarks/results/ as JSON.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _lib.report import RESULTS, earlier, write
from _lib.turns import Contestant, Turn, answer, in_turn
from _lib.work import COSTS
from accuracy import cnnkit

NETS, KINDS = ("resnet18", "resnet18.tv"), ("moving", "fresh")
FLAGS = ["--image-size", "32", "--epochs", "6", "--model-kwargs.width", "16"]
PIXELS = 28


def run(net: str, kind: str, seed: int, data: list[str]) -> dict[str, float]:
    """Train, and return the last epoch's validation accuracy, the largest validation loss and the test accuracy."""
    with tempfile.TemporaryDirectory() as folder:
        more = ["--norm-statistics", kind, "--seed", str(seed), "--output", folder]
        cnnkit("train", net, *data, *FLAGS, *more)
        [path] = Path(folder).iterdir()
        rows = [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]
        found = {
            "last": rows[-1]["val_accuracy"],
            "best": max(row["val_accuracy"] for row in rows),
            "worst_loss": max(row["val_loss"] for row in rows),
        }
        if "--test-data" in data:
            found["test"] = json.loads(cnnkit("evaluate", str(path), "--json"))["accuracy"]
        return found


def accuracies(photos: Path, seeds: int) -> dict[str, Any]:
    """Return each network's results with each kind of statistics, seed by seed."""
    ways = {"validation": ["--data", str(photos)]}
    ways["test"] = ["--data", str(photos / "train"), "--test-data", str(photos / "val")]
    figures: dict[str, Any] = {}
    for seed in range(seeds):
        for net in NETS:
            for kind in KINDS:
                found = {name: run(net, kind, seed, data) for name, data in ways.items()}
                figures.setdefault(f"{net}, {kind}", []).append(found)
                print(net, kind, "seed", seed, found, flush=True)
    return figures


def train(row: str, kind: str, turn: Turn) -> None:
    """Train epoch after epoch, each in a turn."""
    import torch

    import cnnkit
    from cnnkit.core.allocator import keep_large_blocks
    from cnnkit.data import Batches, ImageSet, Preprocess
    from cnnkit.train import EpochRecord, TrainConfig, Trainer, plan_training

    keep_large_blocks()
    torch.set_num_threads(1)
    name, engine, batch, steps, width = COSTS[row]
    net = cnnkit.create(name, image_size=PIXELS, **({"width": width} if width else {}))
    pixels = torch.randint(256, (batch * steps, PIXELS, PIXELS, 1), dtype=torch.uint8).permute(0, 3, 1, 2)
    data = ImageSet(pixels, torch.randint(10, (len(pixels),)))
    config = TrainConfig(
        epochs=100_000, batch_size=batch, engine=engine, plan="off", checkpoint_minutes=None, norm_statistics=kind
    )
    clock: dict[str, float] = {}
    shares: list[float] = []

    class Report:
        """Reports each epoch's seconds, and the share of measuring in the steps' time so far."""

        def on_epoch_end(self, record: EpochRecord) -> None:
            shares.append((clock["end"] - clock["measure"]) / (clock["measure"] - clock["steps"]))
            turn(f"{trainer.plan}: {statistics.median(shares[1:] or shares):.4f}", clock["end"] - clock["steps"])

    with tempfile.TemporaryDirectory() as folder:
        batches = Batches(data, batch, Preprocess((PIXELS, PIXELS)), seed=0)
        path = Path(folder) / "last.ckpt"
        trainer = Trainer(
            net,
            batches,
            None,
            config,
            checkpoint=path,
            callbacks=[Report()],
            save_best=lambda net, record: None,
            plan=plan_training(net, batches, config),
        )
        begin, measure = trainer.stepper.train, trainer.stepper.measure_statistics

        def timed_begin() -> None:
            clock["steps"] = time.process_time()
            begin()

        def timed_measure(batches: Batches, epoch: int) -> None:
            clock["measure"] = time.process_time()
            measure(batches, epoch)
            clock["end"] = time.process_time()

        trainer.stepper.train, trainer.stepper.measure_statistics = timed_begin, timed_measure  # type: ignore[method-assign]
        trainer.run()


def costs(names: list[str], rounds: int) -> dict[str, Any]:
    """Return the seconds of an epoch with each kind of statistics, turn by turn."""
    found = {}
    for row in names:
        words = [sys.executable, __file__, "--worker", row]
        found[row] = in_turn({kind: Contestant([*words, kind]) for kind in KINDS}, rounds, row)
    return found


def main() -> None:
    """Measure both and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=Path)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--only", nargs="+", choices=COSTS, default=[*COSTS], help="to measure the cost of")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        answer(lambda turn: train(*options.worker, turn))
        return
    figures = earlier(options.output, "norm_statistics")  # figures that are not measured again stay
    if options.photos:
        figures["accuracy"] = accuracies(options.photos.resolve(), options.seeds)
    figures["cost"] = figures.get("cost", {}) | costs(options.only, options.rounds)
    write(
        options.output,
        "norm_statistics",
        f"means of {options.seeds} seeds, {' '.join(FLAGS)}; milliseconds of the processor for an epoch's steps and "
        f"measuring, medians of {options.rounds} turns, and the median of the turns' ratios; the cost is that of "
        "measuring to that of the steps before it",
        figures,
    )


if __name__ == "__main__":
    main()
