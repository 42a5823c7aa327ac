"""Test accuracy of the README's table: each row trained from three seeds, the best epoch by validation, whole test set.

    python benchmarks/accuracy.py                                   # Fashion-MNIST, and MNIST if --mnist-dir is given
    python benchmarks/accuracy.py --only lenet_bn --seeds 0 --extra --epochs 1

Every run is the plain command line; results go to benchmarks/results/ as Markdown and JSON.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path

import torch

RESULTS = Path(__file__).parent / "results"
FASHION = ["--data", "fashion-mnist"]
BY_HAND = ["--model-kwargs.norm", "by_hand"]
ROWS = {
    "lenet-chapter-raw": ["lenet", *FASHION, "--recipe", "chapter", "--raw-pixels"],
    "lenet-chapter": ["lenet", *FASHION, "--recipe", "chapter"],
    "lenet": ["lenet", *FASHION],
    "lenet_bn": ["lenet_bn", *FASHION],
    "lenet_bn-by-hand": ["lenet_bn", *FASHION, *BY_HAND],
    "lenet_bn-mnist-5k": ["lenet_bn", "--data", "mnist"],
}


def cnnkit(*arguments: str) -> str:
    """Run the command line; return what it prints."""
    command = [sys.executable, "-m", "cnnkit", *arguments]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def accuracy(arguments: list[str], folder: Path) -> float:
    """Train in `folder` and return the test accuracy."""
    cnnkit("train", *arguments, "--output", str(folder))
    [run] = folder.iterdir()
    return float(json.loads(cnnkit("evaluate", str(run), "--json"))["accuracy"])


def main() -> None:
    """Train every row from every seed and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=ROWS, default=list(ROWS))
    parser.add_argument("--mnist-dir", help="folder with 5,000 MNIST digits as IDX files, for the last row")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="more flags for every training")
    options = parser.parse_args()

    rows = {}
    for name in options.only:
        arguments = [*ROWS[name], *options.extra]
        if "mnist" in ROWS[name]:
            if not options.mnist_dir:
                continue
            arguments += ["--data-dir", options.mnist_dir]
        found = []
        for seed in options.seeds:
            with tempfile.TemporaryDirectory() as folder:
                found.append(accuracy([*arguments, "--seed", str(seed)], Path(folder)))
            print(name, "seed", seed, found[-1], flush=True)
        shown = ["--data-dir DIR" if word == options.mnist_dir else word for word in arguments if word != "--data-dir"]
        rows[name] = {"command": "cnnkit train " + " ".join(shown), "accuracy": found}

    day = date.today()
    conditions = {
        "date": day.isoformat(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "seeds": options.seeds,
    }
    lines = [
        f"# Test accuracy, {day:%B %Y}",
        "",
        *(f"- {key}: {value}" for key, value in conditions.items()),
        "",
    ]
    lines += ["| command | mean | lowest | highest |", "|---|---|---|---|"]
    for row in rows.values():
        low, mean, high = min(row["accuracy"]), statistics.mean(row["accuracy"]), max(row["accuracy"])
        lines.append(f"| `{row['command']}` | {mean:.4f} | {low:.4f} | {high:.4f} |")
    options.output.mkdir(parents=True, exist_ok=True)
    stem = options.output / f"accuracy_cpu_{day:%Y%m}"
    stem.with_suffix(".md").write_text("\n".join(lines) + "\n")
    stem.with_suffix(".json").write_text(json.dumps({"conditions": conditions, "rows": rows}, indent=1) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
