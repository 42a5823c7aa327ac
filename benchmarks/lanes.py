"""Seconds of an epoch of LeNet: lanes against Keras `fit`, JAX, the usual PyTorch loop, and torch in cnnkit.

    python3 -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow-cpu
    python3 -m venv /tmp/jax && /tmp/jax/bin/pip install jax
    python benchmarks/lanes.py --keras-python /tmp/keras/bin/python --jax-python /tmp/jax/bin/python

LeNet without and with batch normalisation, batches of 32, 128 and 512, on one core and on two. Each contestant is a
process of its own, kept to those cores; they train a part of an epoch each, in turn, after a turn that does not count.
Multiplications and additions per second are compared with those of a large product of float32 matrices in torch.
Results go to benchmarks/results/ as JSON.
"""

import argparse
import os
import statistics
import sys
from collections.abc import Callable
from pathlib import Path

from _lib.jax_lenet import jax
from _lib.peers import cnnkit, keras, plain
from _lib.report import RESULTS, earlier, write
from _lib.turns import Contestant, Turn, answer, in_turn
from _lib.work import LANES_EPOCH, LANES_PART, Work

NETS, BATCHES, CORES = ("lenet", "lenet_bn"), (32, 128, 512), (1, 2)
PIXELS = 28


def torch_engine(work: Work, turn: Turn) -> None:
    """cnnkit's trainer, by torch."""
    cnnkit(work, turn, "torch")


def lanes_engine(work: Work, turn: Turn) -> None:
    """cnnkit's trainer, in lanes."""
    cnnkit(work, turn, "lanes")


CONTESTANTS: dict[str, Callable[[Work, Turn], None]] = {
    "keras": keras,
    "jax": jax,
    "plain": plain,
    "cnnkit-torch": torch_engine,
    "cnnkit-lanes": lanes_engine,
}


def to_matrix_product(net: str, cores: int, images_per_second: float) -> float:
    """Return the share of the speed of a large matrix product."""
    import torch

    from cnnkit import create
    from cnnkit.train.autotune.flops import operations
    from cnnkit.train.autotune.plan import Plan
    from cnnkit.train.autotune.profile import peak

    count = operations(create(net), (1, PIXELS, PIXELS))
    return images_per_second * count / peak(Plan(threads=cores), torch.device("cpu"))


def main() -> None:
    """Measure row after row and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="the Python of an environment with tensorflow-cpu")
    parser.add_argument("--jax-python", help="the Python of an environment with jax")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batches", type=int, nargs="+", choices=BATCHES, default=BATCHES, help="to measure again")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        contestant, net, batch, cores = options.worker
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: int(cores)])
        answer(lambda turn: CONTESTANTS[contestant](Work(net, PIXELS, int(batch), LANES_PART), turn))
        return
    pythons = {"keras": options.keras_python, "jax": options.jax_python}
    pythons = {name: pythons.get(name, sys.executable) for name in CONTESTANTS}
    figures = earlier(options.output, "lanes")
    for net in NETS:
        for batch in options.batches:
            for cores in CORES:
                words = [__file__, "--worker"]
                own = [net, str(batch), str(cores)]
                contestants = {n: Contestant([python, *words, n, *own]) for n, python in pythons.items() if python}
                key = ", ".join(own)
                figures[key] = in_turn(contestants, options.rounds, key)
                speed = LANES_PART / statistics.median(figures[key]["seconds"]["cnnkit-lanes"])
                figures[key]["to_matrix_product"] = to_matrix_product(net, cores, speed)
    titles = ", ".join(figures[key]["titles"].values())
    part = f"{LANES_PART:,} images, scaled to {LANES_EPOCH:,}"
    write(
        options.output,
        "lanes",
        f"medians of {options.rounds} turns of {part}; ratios round by round; {titles}",
        figures,
    )


if __name__ == "__main__":
    main()
