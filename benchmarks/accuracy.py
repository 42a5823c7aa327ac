"""Test accuracy: each row trained from three seeds, the best epoch by validation, whole test set.

    python benchmarks/accuracy.py                                   # Fashion-MNIST, and MNIST if --mnist-dir is given
    python benchmarks/accuracy.py --only resnet18-best --seeds 0    # more than an hour
    python benchmarks/accuracy.py --only lenet_bn --seeds 0 --extra --epochs 1

Every run is the plain command line; results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import tempfile
from pathlib import Path

from _lib.command import cnnkit
from _lib.report import RESULTS, earlier, write

FASHION = ["--data", "fashion-mnist"]
FROM_SCRATCH = ["--model-kwargs.norm", "from_scratch"]
FLOAT32 = ["--plan", "off", "--precision", "fp32"]
RESNET = ["resnet18", *FASHION, "--image-size", "28", "--epochs", "2", "--batch-size", "128", "--lr", "0.003"]
SMALL_RESNET = ["--image-size", "28", "--model-kwargs.stem", "cifar", "--model-kwargs.width", "24"]
ROWS = {
    "lenet-chapter-raw": ["lenet", *FASHION, "--recipe", "chapter", "--raw-pixels"],
    "lenet-chapter": ["lenet", *FASHION, "--recipe", "chapter"],
    "lenet": ["lenet", *FASHION],
    "lenet-fp32": ["lenet", *FASHION, *FLOAT32],
    "lenet_bn": ["lenet_bn", *FASHION],
    "lenet_bn-by-hand": ["lenet_bn", *FASHION, *FROM_SCRATCH],
    "lenet_bn-mnist-4000": ["lenet_bn", "--data", "mnist"],
    "resnet18": RESNET,
    "resnet18-fp32": [*RESNET, *FLOAT32],
    "resnet18-best": ["resnet18", *FASHION, *SMALL_RESNET, "--recipe", "best", "--epochs", "24", "--precision", "bf16"],
}


def accuracy(arguments: list[str], folder: Path) -> float:
    """Train in `folder` and return the test accuracy."""
    cnnkit("train", *arguments, "--output", str(folder))
    [run] = folder.iterdir()
    return float(json.loads(cnnkit("evaluate", str(run), "--json"))["accuracy"])


def main() -> None:
    """Train every row from every seed and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=[*ROWS][:-1])
    parser.add_argument(
        "--mnist-dir", help="folder with 5,000 MNIST digits as IDX files, for the last row (4,000 to train on)"
    )
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="more flags for every training")
    options = parser.parse_args()

    figures = earlier(options.output, "accuracy")  # rows of this month that are not measured again stay
    for name in options.only:
        arguments = shown = [*ROWS[name], *options.extra]
        if "mnist" in arguments:
            if not options.mnist_dir:
                continue
            arguments += ["--data-dir", options.mnist_dir]
            shown = [*arguments[:-1], "DIR"]
        found = {}
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                found[seed] = accuracy([*arguments, "--seed", str(seed)], Path(folder))
            print(name, "seed", seed, found[seed], flush=True)
        figures[name] = {"command": " ".join(["cnnkit train", *shown]), "accuracy": found}

    work = "the best epoch by validation, measured on the whole test set"
    write(options.output, "accuracy", work, {name: figures[name] for name in ROWS if name in figures})


if __name__ == "__main__":
    main()
