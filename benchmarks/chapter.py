"""The chapter's eight networks trained on Fashion-MNIST, in five epochs or fewer, against what its sources report.

    python benchmarks/chapter.py --runs runs/chapter                  # hours; start it again to resume
    python benchmarks/chapter.py --runs runs/chapter --only lenet vgg11

Every run is the plain command line with seed 0: 54,000 images to train on, 6,000 to choose the best epoch by, and the
whole test set, which chooses nothing. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path

from _lib.command import cnnkit
from _lib.report import RESULTS, earlier, write

# without batch normalisation: He's initial weights, small steps, and no gradient larger than 1
PLAIN = {"init": "he", "lr": "0.001", "clip": "1"}
NORMALISED = {"lr": "0.003"}
WORK = "54,000 images to train on; the best epoch by 6,000 others, on the whole test set; seed 0"


@dataclass(frozen=True)
class Row:
    """A network to train; all of the settings leave the recipe `default`."""

    net: str
    pixels: int
    epochs: int
    settings: dict[str, str] = field(default_factory=dict)

    def flags(self) -> list[str]:
        """Return the words behind `cnnkit train`."""
        settings = {"image-size": str(self.pixels), "epochs": str(self.epochs)} | self.settings
        words = [word for name, value in settings.items() for word in (f"--{name}", value)]
        return [self.net, "--data", "fashion-mnist", *words]


ROWS = {
    "lenet": Row("lenet", 28, 5),
    "lenet_bn": Row("lenet_bn", 28, 5),
    "resnet18-28": Row("resnet18", 28, 5, NORMALISED),
    "vgg11": Row("vgg11", 224, 3, PLAIN | {"model-kwargs.width": "8"}),
    "densenet": Row("densenet", 96, 2, NORMALISED),
    "resnet18": Row("resnet18", 96, 4, NORMALISED | {"augment": "flip"}),
    "googlenet": Row("googlenet", 96, 3, PLAIN),
    "nin": Row("nin", 224, 1, PLAIN),
    "alexnet": Row("alexnet", 224, 1, PLAIN | {"lr": "0.0005"}),
}


def train(row: Row, folder: Path) -> Path:
    """Train in `folder`, or resume the run that is there; return the run."""
    started = [path.parent for path in folder.glob("*/last.ckpt")]
    if started:
        cnnkit("train", "--resume", str(started[0]))
    else:
        cnnkit("train", *row.flags(), "--output", str(folder))
    [run] = folder.iterdir()
    return run


def main() -> None:
    """Train row after row and write the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=Path, required=True, help="folder of the run folders, which are resumed")
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    figures = earlier(options.output, "chapter")
    for name in options.only:
        run = train(ROWS[name], options.runs / name)
        epochs = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        test = json.loads(cnnkit("evaluate", str(run), "--json"))
        figures[name] = {
            "command": " ".join(["cnnkit train", *ROWS[name].flags()]),
            "accuracy": test["accuracy"],
            "validation": max(epoch["val_accuracy"] for epoch in epochs),
            "seconds": round(sum(epoch["seconds"] for epoch in epochs)),
            "plan": json.loads((run / "plan.json").read_text()),
        }
        write(options.output, "chapter", WORK, {name: figures[name] for name in ROWS if name in figures})


if __name__ == "__main__":
    main()
