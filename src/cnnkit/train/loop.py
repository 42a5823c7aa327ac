"""The training loop: epochs, validation, checkpoints that a killed or stopped run continues from."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import CnnkitError, Interrupted, UsageError
from cnnkit.data.batches import Batches
from cnnkit.train.checkpoint import earlier, load_newest, save_checkpoint
from cnnkit.train.choose import choose_plan
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import ALONE, World
from cnnkit.train.evaluate import evaluate
from cnnkit.train.interrupt import stop_requested
from cnnkit.train.lanes import image_size, make_stepper
from cnnkit.train.memory import explain_memory
from cnnkit.train.objective import balanced_weights
from cnnkit.train.observe import EpochRecord, Observer, StepRecord
from cnnkit.train.plan import Plan, plain_plan, threads
from cnnkit.train.schedule import learning_rate
from cnnkit.train.step import Step

__all__ = ["Trainer"]

LOOK_SECONDS = 0.2  # between looks at the losses, which may wait for the device
AGREE_STEPS = 8  # between the moments when several processes agree on whether to stop
# settings that may be others when a run goes on
FREE = {"epochs", "patience", "max_time", "device", "accumulate", "checkpoint_steps", "checkpoint_minutes", "keep"}


class Trainer:
    """Trains a net (returning logits) on shuffled batches and remembers the best weights.

    `save_best(net, record)` is called after each epoch with a new best validation accuracy (every epoch, if no
    image is set aside). `checkpoint` is written at the start, after each epoch, on Ctrl-C or SIGTERM, and as often as
    the settings say. In a `world` of several processes each has a Trainer with its part of the batches; the main one
    alone observes and writes. `plan` says how steps are computed; without one it is chosen as the settings say, and
    `say` is told what takes its time.
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
        world: World = ALONE,
        num_classes: int | None = None,
        plan: Plan | None = None,
        say: Callable[[str], None] = lambda line: None,
    ):
        self.train, self.validation, self.config, self.world = train, validation, config, world
        self.checkpoint, self.observer, self.save_best = checkpoint, observer, save_best
        weights = None
        if config.class_weights == "balanced":
            classes = num_classes or int(train.labels.max()) + 1
            weights = balanced_weights(train.labels.cpu(), classes).to(next(net.parameters()).device)
        if plan is None:
            plan = world.share(self._choose(net, say) if world.is_main else plain_plan(config))
        self.plan = plan
        self.stepper = make_stepper(
            net, config, plan, image_size(train), train.preprocess.scale_and_shift(), world, weights
        )
        self.net, self.optimizer = self.stepper.net, self.stepper.optimizer
        self.epoch, self.step = 1, 0  # the next step to take
        self.best: tuple[float, float] | None = None  # accuracy, minus loss
        self.best_epoch = 0
        self.total_seconds = 0.0
        self.looked = self.saved = time.monotonic()
        self._clear_sums()

    def _choose(self, net: nn.Module, say: Callable[[str], None]) -> Plan:
        """Choose the plan for the part of a batch that this process computes at once."""
        batch = sum(self.train.sizes[:1]) // self.world.size // self.config.accumulate
        images = self.config.epochs * self.train.num_images // self.world.size
        return choose_plan(net, image_size(self.train), max(batch, 2), images, self.config, self.train, say)

    def resume(self) -> list[str]:
        """Take up the newest checkpoint that is whole: on a CPU, the run goes on to the bit.

        Return what was wrong with newer ones. Raises CnnkitError if all are damaged or another net's.
        """
        state, wrong = load_newest(self.checkpoint)
        try:
            for name, value in state["config"].items():
                if value != self._settings()[name] and name not in FREE:
                    raise ValueError(f"its {name} is {value!r}, here {self._settings()[name]!r}")
            self.stepper.load(state["stepper"])
            self.epoch, self.step = state["epoch"], state["step"]
            self.seconds, self.total_seconds = state["seconds"], state["total_seconds"]
            if state["losses"].shape != self.losses.shape:
                raise ValueError(f"its epochs have {len(state['losses'])} steps, here {len(self.losses)}")
            self.losses.copy_(state["losses"])
            self.correct.copy_(state["correct"])
            self.best, self.best_epoch = state["best"] and tuple(state["best"]), state["best_epoch"]
        except (KeyError, RuntimeError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CnnkitError(f"{self.checkpoint}: the checkpoint does not fit this run ({reason})") from error
        return wrong

    def run(self) -> str:
        """Train to the last epoch, or until patience or time is up, and return which it was.

        Raises Interrupted after Ctrl-C or SIGTERM, with the checkpoint saved, and CnnkitError when the loss is no
        longer a number or memory is out; the checkpoint and the best weights are then those of before.
        """
        if not self.train.num_images:
            raise UsageError("there is no image to train on: set fewer aside for validation")
        if self.world.share(not any(earlier(self.checkpoint))):
            self._save()
        with stop_requested() as stop, explain_memory(self.config), threads(self.plan.torch_threads):
            while self.epoch <= self.config.epochs:
                if self._out_of_patience():
                    return f"no better epoch in {self.config.patience} after epoch {self.best_epoch}"
                if self._out_of_time() or self._train_epoch(stop.is_set):
                    self._save()
                    return f"{self.config.max_time:g} minutes are over"
                self._finish_epoch()
                if any(self.world.gather(stop.is_set())):
                    raise Interrupted(f"stopped after epoch {self.epoch - 1}; saved in {self.checkpoint}")
        return "all epochs are done"

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.best is not None and self.epoch - 1 - self.best_epoch >= patience

    def _out_of_time(self) -> bool:
        most = self.config.max_time
        return self.world.share(most is not None and self.total_seconds > 60 * most)

    def _train_epoch(self, stopped: Callable[[], bool]) -> bool:
        """Train to the end of the epoch and return whether time is up before that."""
        self.stepper.train()
        self.first, self.entered = self.step, time.monotonic()
        for count, x, y in self.stepper.read(self.train, self.epoch, self.step):
            steps = [self._describe(number) for number in range(self.step, self.step + count)]
            self.losses[self.step : self.step + count], hits = self.stepper.take(steps, x, y)
            self.correct += hits.sum().long()
            self.lr, self.step = steps[-1].lr, self.step + count
            self._look()
            if self.step < len(self.train) and (wish := self._wish(stopped())):
                self._require_numbers()
                self._require_finite_weights()
                self._count_seconds()
                if wish == "time":
                    return True
                self._save()
                if wish == "stop":
                    raise Interrupted(f"stopped in epoch {self.epoch} at step {self.step}; saved in {self.checkpoint}")
        self._require_numbers()
        self._count_seconds()
        return False

    def _describe(self, number: int) -> Step:
        steps = len(self.train)
        lr = learning_rate(self.config, (self.epoch - 1) * steps + number, steps)
        return Step(number, lr, mix_seed(self.config.seed, self.epoch, number), self.train.sizes[number])

    def _wish(self, stopped: bool) -> str:
        """Return what is due after a step, the same in all processes: stop, time is up, save, or nothing."""
        due = bool(self.config.checkpoint_steps) and self.step % (self.config.checkpoint_steps or 1) == 0
        if self.world.size > 1 and self.step % AGREE_STEPS and not due:
            return ""
        now = time.monotonic()
        wish = "save" if due else ""
        if self.config.checkpoint_minutes and now - self.saved > 60 * self.config.checkpoint_minutes:
            wish = "save"
        if self.config.max_time and self.total_seconds + now - self.entered > 60 * self.config.max_time:
            wish = "time"
        if any(self.world.gather(stopped)):  # any one may have got the signal
            wish = "stop"
        return self.world.share(wish)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.seconds += now - self.entered
        self.total_seconds += now - self.entered
        self.entered, self.first = now, self.step

    def _look(self) -> None:
        """Tell the observer where the run stands, a few times a second."""
        now = time.monotonic()
        if now - self.looked < LOOK_SECONDS or not self.world.is_main or self.step == self.first:
            return
        self.looked = now
        self._require_numbers()
        steps = len(self.train)
        steps_per_second = (self.step - self.first) / (now - self.entered)
        record = StepRecord(
            self.epoch,
            self.step,
            steps,
            self._mean_loss(),
            self.correct.item() / sum(self.train.sizes[: self.step]),
            steps_per_second * self.train.batch_size,
            (steps * self.config.epochs - (self.epoch - 1) * steps - self.step) / steps_per_second,
        )
        self.observer.on_step(record)

    def _mean_loss(self) -> float:
        """Return the mean loss of the epoch so far over its images, those of steps left out apart."""
        sizes = torch.tensor(self.train.sizes[: self.step], device=self.losses.device, dtype=self.losses.dtype)
        sizes[self.stepper.skipped] = 0
        return ((self.losses[: self.step].nan_to_num() * sizes).sum() / sizes.sum().clamp(min=1)).item()

    def _finish_epoch(self) -> None:
        images = self.train.num_images
        self._require_finite_weights()
        best_net = self.stepper.best_net
        self.world.copy_buffers(best_net)
        metrics = evaluate(best_net, self.validation, self.world, self.stepper.predict) if self.validation else None
        if metrics and not metrics.loss < float("inf"):
            raise self._not_a_number("validation loss", metrics.loss, f"after epoch {self.epoch}")
        score = (metrics.accuracy, -metrics.loss) if metrics else None
        is_best = score is None or self.best is None or score > self.best
        record = EpochRecord(
            self.epoch,
            self._mean_loss(),
            self.correct.item() / images,
            metrics.loss if metrics else None,
            metrics.accuracy if metrics else None,
            self.lr,
            round(self.seconds, 3),
            round(images / self.seconds, 1),
            is_best,
        )
        if is_best:
            if self.world.is_main:
                self.save_best(best_net, record)
            self.best, self.best_epoch = score, self.epoch
        if self.world.is_main:
            self.observer.on_epoch(record)
        self.epoch, self.step = self.epoch + 1, 0
        self._clear_sums()
        self._save()

    def _clear_sums(self) -> None:
        """Start the sums of an epoch; they stay on the device, so that no step waits for it."""
        device = self.stepper.device
        self.losses = torch.zeros(len(self.train), device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.seconds = 0.0
        self.stepper.skipped = []

    def _settings(self) -> dict[str, object]:
        return self.config.model_dump(mode="json", include=set(TrainConfig.model_fields))

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.world.is_main:
            save_checkpoint(self.checkpoint, self._state(), self.config.keep)
        self.world.share(None)  # nobody leaves before it is written

    def _state(self) -> dict[str, Any]:
        return {
            "config": self._settings(),
            "stepper": self.stepper.state(),
            "epoch": self.epoch,
            "step": self.step,
            "seconds": self.seconds,
            "total_seconds": self.total_seconds,
            "losses": self.losses,
            "correct": self.correct,
            "best": self.best,
            "best_epoch": self.best_epoch,
        }

    def _require_numbers(self) -> None:
        wrong = ~self.losses[: self.step].isfinite()
        wrong[self.stepper.skipped] = False
        if wrong.any():
            step = int(wrong.nonzero()[0])
            raise self._not_a_number("loss", self.losses[step].item(), f"in epoch {self.epoch} at step {step + 1}")

    def _require_finite_weights(self) -> None:
        for name, tensor in self.net.state_dict().items():
            if tensor.is_floating_point() and not tensor.isfinite().all():
                raise self._not_a_number(name, math.nan, f"in epoch {self.epoch} after step {self.step}")

    def _not_a_number(self, what: str, value: float, where: str) -> CnnkitError:
        return CnnkitError(
            f"the {what} is {value} {where}; {self.checkpoint} and best/ stay as they were before; "
            f"try an lr below {self.config.lr:g}, or --clip 1"
        )
