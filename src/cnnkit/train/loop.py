"""The training loop: steps, epochs, validation; checkpoints that a killed or stopped run continues from."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import nn

from cnnkit.core.errors import CnnkitError, Interrupted, UsageError
from cnnkit.data.batches import Batches
from cnnkit.train.checkpoint import load_checkpoint, save_checkpoint
from cnnkit.train.config import TrainConfig
from cnnkit.train.evaluate import evaluate
from cnnkit.train.interrupt import stop_requested
from cnnkit.train.optimizer import make_optimizer
from cnnkit.train.schedule import learning_rate

__all__ = ["EpochRecord", "Observer", "StepRecord", "Trainer"]

LOOK_SECONDS = 0.2  # between looks at the losses, which may wait for the device


@dataclass(frozen=True)
class StepRecord:
    """Where the run stands within an epoch; loss and accuracy are those of the epoch so far."""

    epoch: int
    step: int
    steps: int
    loss: float
    accuracy: float
    images_per_second: float
    seconds_left: float  # of the whole run


@dataclass(frozen=True)
class EpochRecord:
    """What an epoch brought; the validation figures are None if no image was set aside."""

    epoch: int
    train_loss: float
    train_accuracy: float
    val_loss: float | None
    val_accuracy: float | None
    lr: float
    seconds: float
    images_per_second: float
    best: bool


class Observer(Protocol):
    """What the loop tells while it runs."""

    def on_step(self, record: StepRecord) -> None:
        """Take where the run stands; called a few times a second."""

    def on_epoch(self, record: EpochRecord) -> None:
        """Take what an epoch brought."""


class Trainer:
    """Trains a net (returning logits) on shuffled batches and remembers the best weights.

    `save_best(net, record)` is called after each epoch with a new best validation accuracy (every epoch, if no
    image is set aside). `checkpoint` is written at the start, after each epoch, and on Ctrl-C or SIGTERM.
    """

    def __init__(
        self,
        net: nn.Module,
        train: Batches,
        validation: Batches | None,
        config: TrainConfig,
        *,
        checkpoint: Path,
        observer: Observer,
        save_best: Callable[[nn.Module, EpochRecord], None],
    ):
        self.net, self.train, self.validation, self.config = net, train, validation, config
        self.checkpoint, self.observer, self.save_best = checkpoint, observer, save_best
        self.optimizer = make_optimizer(net, config)
        self.device = next(net.parameters()).device
        self.epoch, self.step = 1, 0  # the next step to take
        self.best: tuple[float, float] | None = None  # accuracy, minus loss
        self.looked = time.monotonic()
        self._clear_sums()

    def resume(self) -> None:
        """Take up the state of the checkpoint file: on a CPU, the run goes on to the bit.

        Raises CnnkitError if the file is damaged or another net's.
        """
        state = load_checkpoint(self.checkpoint)
        try:
            for name, value in state["config"].items():
                if value != getattr(self.config, name) and name not in ("epochs", "device"):
                    raise ValueError(f"its {name} is {value!r}, here {getattr(self.config, name)!r}")
            self.net.load_state_dict(state["net"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.epoch, self.step, self.seconds = state["epoch"], state["step"], state["seconds"]
            if state["losses"].shape != self.losses.shape:
                raise ValueError(f"its epochs have {len(state['losses'])} steps, here {len(self.losses)}")
            self.losses.copy_(state["losses"])
            self.correct.copy_(state["correct"])
            self.best = state["best"] and tuple(state["best"])
            torch.set_rng_state(state["rng"])
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CnnkitError(f"{self.checkpoint}: the checkpoint does not fit this run ({reason})") from error

    def run(self) -> None:
        """Train to the last epoch.

        Raises Interrupted after Ctrl-C or SIGTERM, with the checkpoint saved, and CnnkitError when the loss is no
        longer a number; the checkpoint and the best weights are then those of before.
        """
        if not self.train.num_images:
            raise UsageError("there is no image to train on: set fewer aside for validation")
        if not self.checkpoint.exists():
            self._save()
        with stop_requested() as stop:
            while self.epoch <= self.config.epochs:
                self._train_epoch(stop.is_set)
                self._finish_epoch()
                if stop.is_set():
                    raise Interrupted(f"stopped after epoch {self.epoch - 1}; saved in {self.checkpoint}")

    def _train_epoch(self, stopped: Callable[[], bool]) -> None:
        config, steps = self.config, len(self.train)
        total = steps * config.epochs
        self.net.train()
        entered, first = time.monotonic(), self.step
        for x, y in self.train.epoch(self.epoch, first):
            lr = learning_rate(config.schedule, config.lr, (self.epoch - 1) * steps + self.step, total)
            for group in self.optimizer.param_groups:
                group["lr"] = lr
            logits = self.net(x)
            loss = F.cross_entropy(logits, y)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.losses[self.step] = loss.detach()
            self.correct += (logits.detach().argmax(1) == y).sum()
            self.step += 1
            now = time.monotonic()
            if now - self.looked > LOOK_SECONDS:
                self.looked = now
                self._look((self.step - first) / (now - entered), total)
            if stopped() and self.step < steps:
                self._require_numbers()
                self._require_finite_weights()
                self.seconds += time.monotonic() - entered
                self._save()
                raise Interrupted(f"stopped in epoch {self.epoch} at step {self.step}; saved in {self.checkpoint}")
        self._require_numbers()
        self.seconds += time.monotonic() - entered
        self.lr = lr

    def _look(self, steps_per_second: float, total: int) -> None:
        self._require_numbers()
        steps, images = len(self.train), min(self.step * self.train.batch_size, self.train.num_images)
        done = (self.epoch - 1) * steps + self.step
        record = StepRecord(
            self.epoch,
            self.step,
            steps,
            self.losses[: self.step].mean().item(),
            self.correct.item() / images,
            steps_per_second * self.train.batch_size,
            (total - done) / steps_per_second,
        )
        self.observer.on_step(record)

    def _finish_epoch(self) -> None:
        images = self.train.num_images
        sizes = torch.full_like(self.losses, self.train.batch_size)
        sizes[-1] = images - self.train.batch_size * (len(self.train) - 1)
        self._require_finite_weights()
        metrics = evaluate(self.net, self.validation) if self.validation else None
        if metrics and not metrics.loss < float("inf"):
            raise self._not_a_number("validation loss", metrics.loss, f"after epoch {self.epoch}")
        score = (metrics.accuracy, -metrics.loss) if metrics else None
        is_best = score is None or self.best is None or score > self.best
        record = EpochRecord(
            self.epoch,
            ((self.losses * sizes).sum() / images).item(),
            self.correct.item() / images,
            metrics.loss if metrics else None,
            metrics.accuracy if metrics else None,
            self.lr,
            round(self.seconds, 3),
            round(images / self.seconds, 1),
            is_best,
        )
        if is_best:
            self.save_best(self.net, record)
            self.best = score
        self.observer.on_epoch(record)
        self.epoch, self.step = self.epoch + 1, 0
        self._clear_sums()
        self._save()

    def _clear_sums(self) -> None:
        """Start the sums of an epoch; they stay on the device, so that no step waits for it."""
        self.losses = torch.zeros(len(self.train), device=self.device)
        self.correct = torch.zeros((), dtype=torch.int64, device=self.device)
        self.seconds = 0.0

    def _save(self) -> None:
        save_checkpoint(
            self.checkpoint,
            {
                "config": self.config.model_dump(include=set(TrainConfig.model_fields)),
                "net": self.net.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "epoch": self.epoch,
                "step": self.step,
                "seconds": self.seconds,
                "losses": self.losses,
                "correct": self.correct,
                "best": self.best,
                "rng": torch.get_rng_state(),
            },
        )

    def _require_numbers(self) -> None:
        wrong = (~self.losses[: self.step].isfinite()).nonzero()
        if len(wrong):
            step = int(wrong[0])
            raise self._not_a_number("loss", self.losses[step].item(), f"in epoch {self.epoch} at step {step + 1}")

    def _require_finite_weights(self) -> None:
        for name, tensor in self.net.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise self._not_a_number(name, math.nan, f"in epoch {self.epoch} after step {self.step}")

    def _not_a_number(self, what: str, value: float, where: str) -> CnnkitError:
        return CnnkitError(
            f"the {what} is {value} {where}; {self.checkpoint} and best/ stay as they were before; "
            f"try an lr below {self.config.lr:g}"
        )
