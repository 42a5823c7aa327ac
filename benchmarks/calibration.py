"""Calibration of the chapter's networks on Fashion-MNIST: intervals, log loss and ECE, before and after temperature.

    python benchmarks/calibration.py --runs runs/calibration                  # trains what is missing there
    python benchmarks/calibration.py --runs runs/calibration --only lenet

Every run is the plain command line, with one seed; the temperature is fitted on the 6,000 validation images, all
figures are of the 10,000 test images. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
from pathlib import Path
from typing import Any

from _lib.command import cnnkit
from _lib.report import RESULTS, earlier, write

SMALL = ("--image-size", "28", "--batch-size", "128")
ROWS = {
    "lenet": ("--epochs", "10"),
    "lenet_bn": ("--epochs", "10"),
    "resnet18": (*SMALL, "--epochs", "4", "--lr", "0.003"),
    "googlenet": (*SMALL, "--epochs", "4", "--lr", "0.001"),
    "densenet": (*SMALL, "--epochs", "4", "--lr", "0.003"),
    "nin": ("--image-size", "67", "--batch-size", "128", "--epochs", "1", "--lr", "0.001"),
    "alexnet": ("--image-size", "67", "--batch-size", "128", "--epochs", "1", "--lr", "0.0005"),
    "vgg11": ("--image-size", "32", "--batch-size", "128", "--epochs", "1", "--lr", "0.0003"),
}
KEPT = ("accuracy", "loss", "brier", "roc_auc", "images")


def trained(net: str, runs: Path) -> Path:
    """Return the run of a network in `runs`, trained now if it is missing or not finished."""
    command = ["train", net, "--data", "fashion-mnist", *ROWS[net], "--output", str(runs)]
    path = runs / f"{net}-fashion-mnist-1"
    cnnkit(*(["train", "--resume", str(path)] if path.exists() else command))
    return path


def measured(run: Path) -> dict[str, Any]:
    """Return the figures of a run's test images, without and with its temperature."""
    cnnkit("calibrate", str(run))
    found = {
        name: json.loads(cnnkit("evaluate", str(run), "--json", *flags))
        for name, flags in {"before": ("--no-temperature",), "after": ()}.items()
    }
    return {
        name: {key: row[key] for key in KEPT}
        | {"interval": row["intervals"]["accuracy"], "temperature": row["temperature"]}
        | {key: row["calibration"][key] for key in ("ece", "expected", "band")}
        for name, row in found.items()
    }


def main() -> None:
    """Train and measure every row, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the runs, which are kept")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS])
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    figures = earlier(options.output, "calibration")  # rows of this month that are not measured again stay
    for net in options.only:
        run = trained(net, options.runs)
        command = " ".join(["cnnkit train", net, "--data fashion-mnist", *ROWS[net]])
        figures[net] = {"command": command} | measured(run)
        print(net, figures[net], flush=True)
    work = "one seed; temperature from 6,000 validation images, figures of the 10,000 test images"
    write(options.output, "calibration", work, {net: figures[net] for net in ROWS if net in figures})


if __name__ == "__main__":
    main()
