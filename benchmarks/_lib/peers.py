"""The contestants in training: Keras `fit`, the usual PyTorch loop, Lightning, and cnnkit's trainer."""

import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from _lib.turns import Turn
from _lib.work import LR, Work


def arrays(work: Work) -> tuple[Any, Any]:
    """Return random images (N, pixels, pixels) between 0 and 1 as float32, and labels; no loop sees a difference."""
    import numpy as np

    random = np.random.default_rng(0)
    images = random.random((work.images, work.pixels, work.pixels), dtype=np.float32)
    return images, random.integers(0, 10, work.images)


def keras_network(work: Work) -> tuple[Any, Any]:
    """Return the network as the chapter writes it, to logits in float32, and Keras."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))
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
        """Takes the time from the first batch to the last: between epochs Keras sometimes waits."""

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
    """The usual PyTorch loop."""
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
    """Lightning's trainer with its defaults, without its files and logs."""
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
    """The trainer behind `cnnkit train`, with its autotuned plan."""
    from cnnkit.core.allocator import keep_large_blocks

    keep_large_blocks()
    import torch

    import cnnkit
    from cnnkit.data import Batches, ImageSet, Preprocess
    from cnnkit.train import EpochRecord, StepRecord, TrainConfig, Trainer, plan_training

    pixels = torch.randint(256, (work.images, 28, 28, 1), dtype=torch.uint8).permute(0, 3, 1, 2)
    data = ImageSet(pixels, torch.randint(10, (work.images,)))
    settings = {"optimizer": "sgd", "lr": LR, "momentum": 0.9, "weight_decay": 0, "schedule": "constant"}
    config = TrainConfig(epochs=100_000, batch_size=work.batch, engine=engine, checkpoint_minutes=None, **settings)
    net = network(work)

    class Report:
        """Reports each epoch's seconds."""

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
