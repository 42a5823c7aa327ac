"""How training scales: images per second and memory against batch size, image size, images and processes.

    python benchmarks/scaling.py

ResNet-18 on random images, one dimension at a time; each point is a process of its own, by cnnkit's autotuned
plan. Memory is the process' largest resident set. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from _lib.report import RESULTS, write

PROCESSES = ["-m", "torch.distributed.run", "--standalone"]


@dataclass(frozen=True)
class Point:
    """A training run to measure."""

    batch: int = 32
    pixels: int = 64
    images: int = 512
    processes: int = 1


BASE = Point()
AXES: dict[str, tuple[int, ...]] = {
    "batch": (2, 8, 32, 128, 256),
    "pixels": (28, 64, 96, 128, 224),
    "images": (512, 4096, 16384),
    "processes": (1, 2),
}


def work(point: Point, output: Path) -> None:
    """Train two epochs and write the second's seconds, and the memory."""
    from cnnkit.core.allocator import keep_large_blocks

    keep_large_blocks()
    import torch

    from cnnkit import create
    from cnnkit.data import Batches, ImageSet, Preprocess
    from cnnkit.train import EpochRecord, StepRecord, TrainConfig, Trainer, plan_training
    from cnnkit.train.distributed import join_world

    world = join_world()
    torch.manual_seed(0)
    images = torch.randint(256, (point.images, 1, point.pixels, point.pixels), dtype=torch.uint8)
    data = ImageSet(images, torch.randint(10, (point.images,)))
    found: list[float] = []

    class Report:
        """Stores each epoch's seconds."""

        def on_step_end(self, record: StepRecord) -> None:
            pass

        def on_epoch_end(self, record: EpochRecord) -> None:
            found.append(record.seconds)

    size = (point.pixels, point.pixels)
    net = create("resnet18", image_size=point.pixels).to(memory_format=torch.channels_last)
    batches = Batches(data, point.batch, Preprocess(size), seed=0, shard=world.shard)
    config = TrainConfig(epochs=2, batch_size=point.batch, lr=1e-4, precision="auto")
    with tempfile.TemporaryDirectory() as run:
        Trainer(
            net,
            batches,
            None,
            config,
            checkpoint=Path(run) / "last.ckpt",
            callbacks=[Report()],
            save_best=lambda net, record: None,
            world=world,
            plan=plan_training(net, batches, config, world),
        ).run()
        world.broadcast(None)  # no rank leaves before all are finished
    if world.is_main:
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        output.write_text(json.dumps({"seconds": found[-1], "megabytes": round(memory)}))
    world.leave()
    os._exit(0)  # DDP leaves threads that may abort an orderly exit


def measure(point: Point) -> dict[str, Any]:
    """Run a point in new processes, with two threads in all."""
    with tempfile.TemporaryDirectory() as folder:
        output = Path(folder) / "found.json"
        together = [*PROCESSES, f"--nproc-per-node={point.processes}"] if point.processes > 1 else []
        subprocess.run(
            [sys.executable, *together, __file__, "--worker", json.dumps(asdict(point)), str(output)], check=True,
            env=os.environ | {"OMP_NUM_THREADS": str((os.cpu_count() or 1) // point.processes)},
        )  # fmt: skip
        return dict(json.loads(output.read_text()))


def main() -> None:
    """Measure axis after axis and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(Point(**json.loads(options.worker[0])), Path(options.worker[1]))
        return
    figures = []
    for axis, values in AXES.items():
        for value in values:
            point = replace(BASE, **{axis: value})
            found = measure(point)
            print(axis, value, found, flush=True)
            figures.append({"axis": axis} | asdict(point) | found)
    write(
        options.output,
        "scaling",
        f"otherwise batches of {BASE.batch}, {BASE.pixels} x {BASE.pixels} pixels, {BASE.images} images, one process; "
        "the second epoch; two threads in all, memory of one process",
        {"points": figures},
    )


if __name__ == "__main__":
    main()
