"""Seconds per training epoch of LeNet: Keras `fit`, the usual PyTorch loop, and cnnkit, in turn in one run.

    python3 -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow-cpu
    python benchmarks/lenet_epoch.py --keras-python /tmp/keras/bin/python

The chapter's LeNet and setting (5.5.2): 54,000 Fashion-MNIST images of 28 x 28, batch 32, plain SGD, float32, accuracy
counted, no validation. Each contestant is a process of its own with its default threads; they train one epoch each, in
turn, after one epoch that does not count. Results go to benchmarks/results/ as Markdown and JSON.
"""

import argparse
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from report import RESULTS, write
from turns import Contestant, Turn, answer, in_turn

IMAGES, BATCH, LR = 54_000, 32, 0.9


def read(folder: str) -> tuple:
    """Return images (N, 28, 28) and labels as uint8 arrays, without cnnkit: Keras' environment has only numpy."""
    import gzip

    import numpy as np

    def payload(name: str, header: int) -> "np.ndarray":
        return np.frombuffer(gzip.decompress((Path(folder) / name).read_bytes()), np.uint8, offset=header)

    images = payload("train-images-idx3-ubyte.gz", 16).reshape(-1, 28, 28)
    return images[:IMAGES], payload("train-labels-idx1-ubyte.gz", 8)[:IMAGES]


def keras(folder: str, turn: Turn) -> None:
    """Keras' own loop."""
    os.environ["TF_CPP_MIN_LOG_LEVEL"] = "2"
    import tensorflow as tf

    layers = tf.keras.layers
    images, labels = read(folder)
    x, y = (images[..., None] / 255).astype("float32"), labels.astype("int64")
    conv, dense = [(6, 5), (16, 5)], [120, 84, 10]
    net = tf.keras.Sequential([layers.Input((28, 28, 1))])
    for filters, size in conv:
        net.add(layers.Conv2D(filters, size, activation="sigmoid"))
        net.add(layers.MaxPool2D(2, 2))
    net.add(layers.Flatten())
    for units in dense:
        net.add(layers.Dense(units, activation="sigmoid"))
    net.compile(tf.keras.optimizers.SGD(LR), loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    while True:
        start = time.perf_counter()
        net.fit(x, y, batch_size=BATCH, epochs=1, verbose=0)
        turn(f"Keras {tf.keras.__version__}, TensorFlow {tf.__version__}", time.perf_counter() - start)


def plain(folder: str, turn: Turn) -> None:
    """The loop that most people write."""
    import torch
    from torch import nn
    from torch.utils.data import DataLoader, TensorDataset

    images, labels = read(folder)
    data = TensorDataset(torch.tensor(images)[:, None] / 255, torch.tensor(labels).long())
    net = nn.Sequential(
        nn.Conv2d(1, 6, 5), nn.Sigmoid(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.Sigmoid(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(256, 120), nn.Sigmoid(), nn.Linear(120, 84), nn.Sigmoid(), nn.Linear(84, 10),
    )  # fmt: skip
    optimizer, criterion = torch.optim.SGD(net.parameters(), lr=LR), nn.CrossEntropyLoss()
    while True:
        start = time.perf_counter()
        loss_sum, correct = 0.0, 0
        for x, y in DataLoader(data, batch_size=BATCH, shuffle=True):
            optimizer.zero_grad()
            logits = net(x)
            loss = criterion(logits, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            correct += (logits.argmax(1) == y).sum().item()
        turn(f"plain PyTorch loop, torch {torch.__version__}", time.perf_counter() - start)


def cnnkit(folder: str, turn: Turn) -> None:
    """The trainer behind `cnnkit train lenet --recipe chapter`."""
    import torch

    import cnnkit
    from cnnkit.data import Batches, ImageSet, Preprocess
    from cnnkit.train import RECIPES, EpochRecord, StepRecord, TrainConfig, Trainer, initialise

    images, labels = read(folder)
    data = ImageSet(torch.tensor(images)[..., None].permute(0, 3, 1, 2), torch.tensor(labels).long())
    config = TrainConfig(**(RECIPES["chapter"] | {"epochs": 10_000}))
    net = cnnkit.create("lenet").to(memory_format=torch.channels_last)
    initialise(net, config.init)

    class Report:
        """Hands over each epoch's seconds."""

        def on_step(self, record: StepRecord) -> None:
            pass

        def on_epoch(self, record: EpochRecord) -> None:
            turn(f"cnnkit {cnnkit.__version__}, torch {torch.__version__}", record.seconds)

    with tempfile.TemporaryDirectory() as run:
        Trainer(
            net,
            Batches(data, config.batch_size, Preprocess((28, 28)), seed=0),
            None,
            config,
            checkpoint=Path(run) / "last.ckpt",
            observer=Report(),
            save_best=lambda net, record: None,
        ).run()


CONTESTANTS: dict[str, Callable[[str, Turn], None]] = {"keras": keras, "plain": plain, "cnnkit": cnnkit}


def main() -> None:
    """Let the contestants train in turn and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="the Python of an environment with tensorflow-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", choices=CONTESTANTS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        answer(lambda turn: CONTESTANTS[options.worker](options.data_dir, turn))
        return

    pythons = {"plain": sys.executable, "cnnkit": sys.executable}
    if options.keras_python:
        pythons = {"keras": options.keras_python} | pythons
    contestants = {
        name: Contestant([python, __file__, "--worker", name, "--data-dir", options.data_dir])
        for name, python in pythons.items()
    }
    figures = in_turn(contestants, options.rounds, "LeNet")
    titles, seconds = figures["titles"], figures["seconds"]

    rows = []
    for name, found in seconds.items():
        ratio = statistics.median(theirs / ours for theirs, ours in zip(found, seconds["cnnkit"], strict=True))
        shown = [f"{value:.2f} s" for value in (statistics.median(found), min(found), max(found))]
        rows.append([titles[name], *shown, f"{ratio:.2f}"])
    write(
        options.output,
        "lenet_epoch",
        "LeNet, seconds per training epoch",
        f"{IMAGES:,} images, batch {BATCH}, SGD, float32; {options.rounds} rounds in turn",
        ["trained by", "median", "lowest", "highest", "ratio to cnnkit, round by round"],
        rows,
        figures,
    )


if __name__ == "__main__":
    main()
