"""Images per second in training: Keras `fit`, Lightning, the usual PyTorch loop, and cnnkit, in turn in one run.

    python3 -m venv /tmp/keras && /tmp/keras/bin/pip install tensorflow-cpu
    python -m pip install lightning
    python benchmarks/train_throughput.py --keras-python /tmp/keras/bin/python

The chapter's networks at the chapter's image sizes, and ResNet-18 at 28 pixels. The peers get their images as float32,
resized in memory beforehand; cnnkit gets them as the data set has them, bytes of 28 x 28, and resizes each batch, as
`cnnkit train` does. Each contestant is a process of its own with its default threads; they train a few hundred images
each, in turn, after a turn that does not count. Results go to benchmarks/results/ as Markdown and JSON.
"""

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from report import FOR_BF16, RESULTS, earlier, geometric_mean, instructions, result_path, write
from turns import Contestant, Turn, answer, in_turn

LR = 0.01


@dataclass(frozen=True)
class Work:
    """A network to train."""

    net: str
    pixels: int
    batch: int
    images: int  # in a turn
    width: int | None = None

    @property
    def title(self) -> str:
        """What the table calls it."""
        width = f", width {self.width}" if self.width else ""
        return f"{self.net} at {self.pixels}, batch {self.batch}{width}"


WORK = {
    "lenet": Work("lenet", 28, 32, 16384),
    "lenet_bn": Work("lenet_bn", 28, 32, 8192),
    "resnet18-28": Work("resnet18", 28, 128, 2048),
    "resnet18": Work("resnet18", 96, 32, 384),
    "googlenet": Work("googlenet", 96, 32, 384),
    "densenet": Work("densenet", 96, 32, 384),
    "alexnet": Work("alexnet", 224, 32, 192),
    "nin": Work("nin", 224, 32, 192),
    "vgg11-narrow": Work("vgg11", 224, 32, 192, 16),
    "vgg11": Work("vgg11", 224, 16, 32),
}


def arrays(work: Work) -> tuple[Any, Any]:
    """Return random images (N, pixels, pixels) between 0 and 1 as float32, and labels; no loop sees a difference."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.random((work.images, work.pixels, work.pixels), dtype=np.float32)
    return images, random.integers(0, 10, work.images)


def keras_network(work: Work) -> tuple[Any, Any]:
    """Return the network as the chapter writes it, to logits in float32, and Keras."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
    from keras_reference import WIRINGS, Drawing
    from keras_reference import keras as k

    wiring, own = WIRINGS[work.net]
    drawing = Drawing((work.pixels, work.pixels))
    wiring(drawing, drawing.input, **own, **({"width": work.width} if work.width else {}))
    return k.Model(drawing.input, k.layers.Activation("linear", dtype="float32")(drawing.logits)), k


def keras(work: Work, turn: Turn, policy: str = "float32") -> None:
    """Keras' own loop."""
    import tensorflow as tf

    tf.keras.mixed_precision.set_global_policy(policy)
    net, k = keras_network(work)
    loss = k.losses.SparseCategoricalCrossentropy(from_logits=True)
    net.compile(k.optimizers.SGD(LR, momentum=0.9), loss=loss, metrics=["accuracy"])
    x, y = arrays(work)

    class Clock(k.callbacks.Callback):  # type: ignore[misc]  # without types
        """Takes the time from the first batch to the last: in between epochs Keras waits for itself, now and then."""

        def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
            if batch == 0:
                self.start = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            title = f"Keras {k.__version__}, TensorFlow {tf.__version__}, {policy}"
            turn(title, time.perf_counter() - self.start)

    net.fit(x[..., None], y, batch_size=work.batch, epochs=1_000_000, verbose=0, callbacks=[Clock()])


def keras_bf16(work: Work, turn: Turn) -> None:
    """The same in mixed precision."""
    keras(work, turn, "mixed_bfloat16")


def network(work: Work) -> Any:
    """Return the network in PyTorch."""
    from cnnkit import create

    width = {"width": work.width} if work.width else {}
    return create(work.net, in_channels=1, num_classes=10, image_size=work.pixels, **width)


def loader(work: Work) -> Any:
    """Return the usual batches of tensors."""
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    x, y = arrays(work)
    return DataLoader(TensorDataset(torch.tensor(x)[:, None], torch.tensor(y)), batch_size=work.batch, shuffle=True)


def plain(work: Work, turn: Turn) -> None:
    """The loop that most people write."""
    import torch
    from torch import nn

    net, batches = network(work), loader(work)
    optimizer, criterion = torch.optim.SGD(net.parameters(), lr=LR, momentum=0.9), nn.CrossEntropyLoss()
    net.train()
    while True:
        start = time.perf_counter()
        loss_sum, correct = 0.0, 0
        for x, y in batches:
            optimizer.zero_grad()
            logits = net(x)
            loss = criterion(logits, y)
            loss.backward()
            optimizer.step()
            loss_sum += loss.item()
            correct += (logits.argmax(1) == y).sum().item()
        turn(f"plain PyTorch loop, torch {torch.__version__}", time.perf_counter() - start)


def lightning(work: Work, turn: Turn) -> None:
    """Lightning's trainer with its defaults, but for what it would write."""
    import logging
    import warnings

    import lightning as pl
    import torch
    import torch.nn.functional as F

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")

    class Module(pl.LightningModule):
        """The network, its loss and its optimiser."""

        def __init__(self) -> None:
            super().__init__()
            self.net = network(work)

        def training_step(self, batch: Any, index: int) -> Any:
            x, y = batch
            logits = self.net(x)
            loss = F.cross_entropy(logits, y)
            self.log_dict({"loss": loss, "accuracy": (logits.argmax(1) == y).float().mean()})
            return loss

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=LR, momentum=0.9)

        def on_train_epoch_start(self) -> None:
            self.start = time.perf_counter()

        def on_train_epoch_end(self) -> None:
            turn(f"Lightning {pl.__version__}, torch {torch.__version__}", time.perf_counter() - self.start)

    trainer = pl.Trainer(
        accelerator="cpu", max_epochs=-1, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(Module(), loader(work))


def cnnkit(work: Work, turn: Turn, engine: str = "auto") -> None:
    """The trainer behind `cnnkit train`, with the plan that it chooses."""
    from cnnkit.core.allocator import keep_large_blocks

    keep_large_blocks()
    import torch

    import cnnkit
    from cnnkit.data import Batches, ImageSet, Preprocess
    from cnnkit.train import EpochRecord, StepRecord, TrainConfig, Trainer
    from cnnkit.train.autotune.choose import plan_training

    pixels = torch.randint(256, (work.images, 28, 28, 1), dtype=torch.uint8).permute(0, 3, 1, 2)
    data = ImageSet(pixels, torch.randint(10, (work.images,)))
    settings = {"optimizer": "sgd", "lr": LR, "momentum": 0.9, "weight_decay": 0, "schedule": "constant"}
    config = TrainConfig(epochs=100_000, batch_size=work.batch, engine=engine, checkpoint_minutes=None, **settings)
    net = network(work)

    class Report:
        """Hands over each epoch's seconds."""

        def on_step_end(self, record: StepRecord) -> None:
            pass

        def on_epoch_end(self, record: EpochRecord) -> None:
            title = f"cnnkit {cnnkit.__version__}, torch {torch.__version__}: {trainer.plan}"
            turn(title, record.seconds)

    batches = Batches(data, work.batch, Preprocess((work.pixels, work.pixels)), seed=0)
    with tempfile.TemporaryDirectory() as run:
        trainer = Trainer(
            net,
            batches,
            None,
            config,
            checkpoint=Path(run) / "last.ckpt",
            callbacks=[Report()],
            save_best=lambda net, record: None,
            plan=plan_training(net, batches, config),
        )
        trainer.run()


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
    """Measure network after network and write the table after each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keras-python", help="the Python of an environment with tensorflow-cpu")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", nargs="+", choices=WORK, default=list(WORK), help="the networks to measure anew")
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
    """Write the table: medians, cnnkit's ratio to each peer, and its plan."""
    names = [name for name in CONTESTANTS if all(name in row["titles"] for row in figures.values())]
    peers = [name for name in names if name != "cnnkit"]
    rows, ratios = [], {name: dict[str, float]() for name in peers}
    for key, row in figures.items():
        seconds = row["seconds"]
        for name in peers:
            pairs = zip(seconds[name], seconds["cnnkit"], strict=True)
            ratios[name][key] = statistics.median(other / own for other, own in pairs)
        medians = [f"{WORK[key].images / statistics.median(seconds[name]):,.1f}" for name in names]
        plan = row["titles"]["cnnkit"].split(": ", 1)[1]
        rows.append([WORK[key].title, *medians, *(f"{ratios[name][key]:.2f}" for name in peers), plan])
    others = [key for key in figures if not key.startswith("lenet")]
    means = {"geometric mean": list(figures), "the same without LeNet": others}
    for title, keys in means.items():
        values = [f"{geometric_mean([ratios[name][key] for key in keys]):.2f}" if keys else "" for name in peers]
        rows.append([title, *[""] * len(names), *values, ""])
    chart(result_path(folder, "train_throughput").with_suffix(".svg"), figures, names)
    titles = next(iter(figures.values()))["titles"]
    versions = "; ".join(titles[name] for name in peers)
    write(
        folder,
        "train_throughput",
        "Training, images per second",
        f"medians of {rounds} rounds in turn, SGD with momentum; {versions}; ratios round by round",
        ["network", *names, *(f"cnnkit / {name}" for name in peers), "cnnkit's plan"],
        rows,
        figures,
    )


if __name__ == "__main__":
    main()
