"""Images per second in training: Keras `fit`, Lightning, the usual PyTorch loop, and cnnkit, in turn in one run.

    python3 -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow-cpu
    python -m pip install lightning
    python benchmarks/train_throughput.py --keras-python /tmp/keras/bin/python

The chapter's networks at the chapter's image sizes, and ResNet-18 at 28 pixels. The peers get their images as float32,
resized in memory beforehand; cnnkit gets them as the data set has them, bytes of 28 x 28, and resizes each batch, as
`cnnkit train` does. Each contestant is a process of its own with its default threads; they train a few hundred images
each, in turn, after a turn that does not count. Results go to benchmarks/results/ as JSON.
"""

import argparse
import statistics
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from _lib.peers import cnnkit, keras, keras_bf16, lightning, plain
from _lib.report import FOR_BF16, RESULTS, earlier, instructions, result_path, write
from _lib.turns import Contestant, Turn, answer, in_turn
from _lib.work import WORK, Work

CONTESTANTS: dict[str, Callable[[Work, Turn], None]] = {
    "keras": keras,
    "keras-bf16": keras_bf16,
    "plain": plain,
    "lightning": lightning,
    "cnnkit": cnnkit,
}


COLOURS = {
    "keras": "#f4a259", "keras-bf16": "#d1603d", "plain": "#9aa5b1", "lightning": "#7b6d8d", "cnnkit": "#1f7a8c",
}  # fmt: skip


def main() -> None:
    """Measure network after network and write the figures after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="the Python of an environment with tensorflow-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK), help="the networks to measure again")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        contestant, key = options.worker
        answer(lambda turn: CONTESTANTS[contestant](WORK[key], turn))
        return

    pythons = dict.fromkeys(["plain", *(["lightning"] if find_spec("lightning") else []), "cnnkit"], sys.executable)
    if options.keras_python:
        policies = ["keras", *(["keras-bf16"] if instructions() in FOR_BF16 else [])]  # elsewhere it takes minutes
        pythons = dict.fromkeys(policies, options.keras_python) | pythons
    figures = earlier(options.output, "train_throughput")
    for key in options.only:
        contestants = {name: Contestant([python, __file__, "--worker", name, key]) for name, python in pythons.items()}
        figures[key] = in_turn(contestants, options.rounds, WORK[key].title)
        report(options.output, {key: figures[key] for key in WORK if key in figures}, options.rounds)


def chart(path: Path, figures: dict[str, Any], names: list[str]) -> None:
    """Draw the images per second as bars, those of Keras in float32 being 1."""
    import matplotlib
    from matplotlib.figure import Figure

    matplotlib.rcParams["svg.hashsalt"] = "cnnkit"  # the same bytes for the same figures
    medians = {key: {name: statistics.median(row["seconds"][name]) for name in names} for key, row in figures.items()}
    figure = Figure((9, 3.6), layout="constrained")
    axes = figure.subplots()
    width = 0.8 / len(names)
    for number, name in enumerate(names):
        heights = [found[names[0]] / found[name] for found in medians.values()]
        places = [place + (number - (len(names) - 1) / 2) * width for place in range(len(medians))]
        axes.bar(places, heights, width, label=name, color=COLOURS[name])
    axes.set_xticks(range(len(medians)), [WORK[key].title.replace(", batch", "\nbatch") for key in medians], fontsize=6)
    axes.set_ylabel(f"images/s, {names[0]} = 1")
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper center", ncols=len(names), frameon=False, fontsize=8, title="Training")
    figure.savefig(path, metadata={"Date": None})


def report(folder: Path, figures: dict[str, Any], rounds: int) -> None:
    """Write the figures and the chart."""
    names = [name for name in CONTESTANTS if all(name in row["titles"] for row in figures.values())]
    titles = next(iter(figures.values()))["titles"]
    versions = "; ".join(titles[name] for name in names if name != "cnnkit")
    work = f"medians of {rounds} rounds in turn, SGD with momentum; {versions}; ratios round by round"
    write(folder, "train_throughput", work, figures)
    chart(result_path(folder, "train_throughput").with_suffix(".svg"), figures, names)


if __name__ == "__main__":
    main()
