"""One process with two threads against two processes with one thread each, training the same network in turn.

    python benchmarks/processes.py

Each round trains two epochs in new processes, by the plain command line and by torchrun, with the same images in each
batch; the second epoch's images per second count. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from _lib.report import RESULTS, write

WORK = {
    "lenet_bn, Fashion-MNIST": ["lenet_bn", "--data", "fashion-mnist", "--batch-size", "256"],
    "resnet18 at 28, width 16, digits": [
        "resnet18", "--data", "digits", "--image-size", "28", "--batch-size", "256",
        "--model-kwargs.stem", "cifar", "--model-kwargs.width", "16",
    ],
}  # fmt: skip
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]


def speed(arguments: list[str], processes: int) -> tuple[float, float]:
    """Train two epochs and return the second's images per second, and the last training loss."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, *(TORCHRUN if processes > 1 else []), "-m", "cnnkit", "train", *arguments]
        subprocess.run(
            [*command, "--epochs", "2", "--output", folder], check=True, stdout=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": str(2 // processes)},
        )  # fmt: skip
        [run] = Path(folder).iterdir()
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return rows[-1]["images_per_second"], rows[-1]["train_loss"]


def main() -> None:
    """Measure the two in turn and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()

    figures = {}
    for name, arguments in WORK.items():
        found: dict[int, list[tuple[float, float]]] = {processes: [] for processes in (1, 2)}
        for _ in range(options.rounds):
            for processes in found:
                found[processes].append(speed(arguments, processes))
        figures[name] = {"one process": found[1], "two processes": found[2]}
    work = f"images/s, medians of {options.rounds} rounds, and the median of their ratios; two threads in all; Gloo"
    write(options.output, "processes", work, figures)


if __name__ == "__main__":
    main()
