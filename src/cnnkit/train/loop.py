"""The training loop: epochs, validation, checkpoints that a killed or stopped run continues from."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import CnnkitError, Interrupted, UsageError
from cnnkit.core.finite import not_finite
from cnnkit.core.modules import unwrapped
from cnnkit.data.batches import Batches
from cnnkit.train.autotune.batch_size import explain_memory
from cnnkit.train.autotune.plan import Plan, plain_plan, threads
from cnnkit.train.callbacks import Callbacks, EpochRecord, StepRecord, TrainRecord
from cnnkit.train.checkpoint import earlier, load_newest, save_checkpoint
from cnnkit.train.conditions import conditions, differences, first_conditions
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import ALONE, World
from cnnkit.train.interrupt import stop_requested
from cnnkit.train.lanes import image_size, make_stepper
from cnnkit.train.metrics import evaluate
from cnnkit.train.objective import balanced_weights
from cnnkit.train.schedule import learning_rate
from cnnkit.train.state import Resumed, has_other_images, require_fit
from cnnkit.train.step import Step
from cnnkit.train.sums import EpochSums

__all__ = ["Trainer"]

LOOK_SECONDS = 0.2  # between looks at the losses, which may wait for the device
AGREE_STEPS = 8  # between the moments when several processes agree on whether to stop


class Trainer:
    """Trains a net (returning logits) on shuffled batches and remembers the best weights.

    `save_best(net, record)` is called after each epoch with a new best validation accuracy (every epoch, if no
    image is set aside). `checkpoint` is written at the start, after each epoch, on Ctrl-C or SIGTERM, and as often as
    the settings say. In a `world` of several processes each has a Trainer with its part of the batches; the main one
    alone has `callbacks` and writes. `plan` says how steps are computed (`plan_training` chooses one); the default is torch's own way.
    `images` is a digest of what is trained on and chosen by: a run that is resumed compares it.
    """

    def __init__(
        self,
        net: nn.Module,
        train: Batches,
        validation: Batches | None,
        config: TrainConfig,
        *,
        checkpoint: Path,
        callbacks: Sequence[Any] = (),
        save_best: Callable[[nn.Module, EpochRecord], None],
        world: World = ALONE,
        num_classes: int | None = None,
        plan: Plan | None = None,
        images: str = "",
    ):
        net = unwrapped(net)
        self.train, self.validation, self.config, self.world, self.images = train, validation, config, world, images
        self.checkpoint, self.callbacks, self.save_best = checkpoint, Callbacks(callbacks), save_best
        weights = None
        if config.class_weights == "balanced":
            classes = num_classes or int(train.labels.max()) + 1
            weights = balanced_weights(train.labels.cpu(), classes).to(next(net.parameters()).device)
        self.plan = plan or plain_plan(config)
        self.stepper = make_stepper(
            net, config, self.plan, image_size(train), train.preprocess.scale_and_shift(), world, weights
        )
        self.net, self.optimizer = self.stepper.net, self.stepper.optimizer
        self.epoch, self.step = 1, 0  # the next step to take
        self.best: tuple[float, float] | None = None  # accuracy, minus loss
        self.best_epoch = 0
        self.total_seconds = 0.0
        self.looked = self.saved = time.monotonic()
        self._clear_sums()

    def resume(self, begun: Mapping[str, Any] | None = None) -> Resumed:
        """Take up the newest whole checkpoint: under the same conditions, on a CPU, the run goes on to the bit.

        Without any it begins; `begun` are the conditions that its folder was made under. If the images have changed,
        the epoch begins anew. Raises CnnkitError if all checkpoints are corrupt or another net's.
        """
        here = (self.config, self.images, self.stepper.device, self.world.size)
        if not self.world.broadcast(any(earlier(self.checkpoint))):
            return Resumed([], differences(begun or {}, first_conditions(self.net, *here)))
        own = (self.stepper, len(self.train), self._settings(), self.images)
        state, wrong = load_newest(self.checkpoint, lambda state: require_fit(state, *own))
        self.stepper.load(state["stepper"])
        self.epoch, self.total_seconds = state["epoch"], state["total_seconds"]
        if has_other_images(state, self.images):
            self._clear_sums()
        else:
            self.step = state["step"]
            self.sums.load(state)
        self.best, self.best_epoch = state["best"] and tuple(state["best"]), state["best_epoch"]
        return Resumed(wrong, differences(state.get("conditions", {}), conditions(*here, self.plan)))

    def run(self) -> str:
        """Train to the last epoch, until patience or time is up or a callback ends it, and return which it was.

        Raises Interrupted after Ctrl-C or SIGTERM, with the checkpoint saved, and CnnkitError when the loss is no
        longer a number or memory is out; the checkpoint and the best weights are then those of before.
        """
        if not self.train.num_images:
            raise UsageError("there is no image to train on: set fewer aside for validation")
        if self.world.broadcast(not any(earlier(self.checkpoint))):
            self._save()
        steps, images = len(self.train), self.train.num_images
        try:
            self.callbacks.on_train_begin(TrainRecord(self.config.epochs, steps, images, self.epoch, self.step))
            with stop_requested() as stop, explain_memory(self.config), threads(self.plan.torch_threads):
                reason = self._train_epochs(stop.is_set)
        except BaseException as error:
            self.callbacks.on_train_end(str(error) or type(error).__name__, failed=True)
            raise
        self.callbacks.on_train_end(reason)
        return reason

    def _train_epochs(self, stopped: Callable[[], bool]) -> str:
        """Train until there is a reason to end, and return it."""
        while self.epoch <= self.config.epochs:
            if ended := self.world.broadcast(self.callbacks.stop):
                return ended
            if self._out_of_patience():
                return f"no better epoch in {self.config.patience} after epoch {self.best_epoch}"
            if self._out_of_time() or (wish := self._train_epoch(stopped)) == "time":
                self._save()
                return f"{self.config.max_time:g} minutes are over"
            if wish:
                self._save()
                continue
            self._finish_epoch()
            if any(self.world.all_gather(stopped())):
                raise Interrupted(f"stopped after epoch {self.epoch - 1}; saved in {self.checkpoint}")
        return "all epochs are done"

    def _out_of_patience(self) -> bool:
        patience = self.config.patience
        return patience is not None and self.best is not None and self.epoch - 1 - self.best_epoch >= patience

    def _out_of_time(self) -> bool:
        most = self.config.max_time
        return self.world.broadcast(most is not None and self.total_seconds > 60 * most)

    def _train_epoch(self, stopped: Callable[[], bool]) -> str:
        """Train to the end of the epoch, and return what ends the run before that: "time", "callback" or nothing."""
        self.stepper.train()
        self.first, self.entered = self.step, time.monotonic()
        for count, x, y in self.stepper.read(self.train, self.epoch, self.step):
            steps = [self._describe(number) for number in range(self.step, self.step + count)]
            self.sums.add(self.step, *self.stepper.take(steps, x, y))
            self.lr, self.step = steps[-1].lr, self.step + count
            self._look()
            if self.step < len(self.train) and (wish := self._wish(stopped())):
                self._require_numbers()
                self._require_finite_weights()
                self._count_seconds()
                if wish in ("time", "callback"):
                    return wish
                self._save()
                if wish == "stop":
                    raise Interrupted(f"stopped in epoch {self.epoch} at step {self.step}; saved in {self.checkpoint}")
        self._require_numbers()
        self._count_seconds()
        return ""

    def _describe(self, number: int) -> Step:
        steps = len(self.train)
        lr = learning_rate(self.config, (self.epoch - 1) * steps + number, steps)
        return Step(number, lr, mix_seed(self.config.seed, self.epoch, number), self.train.sizes[number])

    def _wish(self, stopped: bool) -> str:
        """Return what is due after a step, the same in all processes: stop, callback, time, save, or nothing."""
        due = bool(self.config.checkpoint_steps) and self.step % (self.config.checkpoint_steps or 1) == 0
        if self.world.size > 1 and self.step % AGREE_STEPS and not due:
            return ""
        now = time.monotonic()
        wish = "save" if due else ""
        if self.config.checkpoint_minutes and now - self.saved > 60 * self.config.checkpoint_minutes:
            wish = "save"
        if self.config.max_time and self.total_seconds + now - self.entered > 60 * self.config.max_time:
            wish = "time"
        if self.callbacks.stop:
            wish = "callback"
        if any(self.world.all_gather(stopped)):  # any one may have got the signal
            wish = "stop"
        return self.world.broadcast(wish)

    def _count_seconds(self) -> None:
        now = time.monotonic()
        self.sums.seconds += now - self.entered
        self.total_seconds += now - self.entered
        self.entered, self.first = now, self.step

    def _look(self) -> None:
        """Tell the callbacks where the run stands, a few times a second."""
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
            self.sums.correct.item() / sum(self.train.sizes[: self.step]),
            steps_per_second * self.train.batch_size,
            (steps * self.config.epochs - (self.epoch - 1) * steps - self.step) / steps_per_second,
        )
        self.callbacks.on_step_end(record)

    def _mean_loss(self) -> float:
        return self.sums.mean_loss(self.train.sizes[: self.step], self.stepper.skipped)

    def _finish_epoch(self) -> None:
        self._require_finite_weights()
        best_net = self.stepper.best_net
        self.stepper.measure_statistics(self.train, self.epoch)
        self.world.copy_buffers(best_net)
        self._require_finite_weights()
        metrics = evaluate(best_net, self.validation, self.world, self.stepper.predict) if self.validation else None
        if metrics and not metrics.loss < float("inf"):
            raise self._not_a_number(f"the validation loss is {metrics.loss} after epoch {self.epoch}")
        score = (metrics.accuracy, -metrics.loss) if metrics else None
        is_best = score is None or self.best is None or score > self.best
        record = EpochRecord(
            self.epoch,
            self._mean_loss(),
            self.sums.correct.item() / self.train.num_images,
            metrics.loss if metrics else None,
            metrics.accuracy if metrics else None,
            self.lr,
            round(self.sums.seconds, 3),
            round(self.train.num_images / self.sums.seconds, 1),
            is_best,
        )
        if is_best:
            if self.world.is_main:
                self.save_best(best_net, record)
            self.best, self.best_epoch = score, self.epoch
        if self.world.is_main:
            self.callbacks.on_epoch_end(record)
        self.epoch, self.step = self.epoch + 1, 0
        self._clear_sums()
        self._save()

    def _clear_sums(self) -> None:
        self.sums = EpochSums(len(self.train), self.stepper.device)
        self.stepper.skipped = []

    def _settings(self) -> dict[str, object]:
        return self.config.model_dump(mode="json", include=set(TrainConfig.model_fields))

    def _save(self) -> None:
        self.saved = time.monotonic()
        if self.world.is_main:
            save_checkpoint(self.checkpoint, self._state(), self.config.keep)
        self.world.broadcast(None)  # nobody leaves before it is written

    def _state(self) -> dict[str, Any]:
        return {
            "config": self._settings(),
            "conditions": conditions(self.config, self.images, self.stepper.device, self.world.size, self.plan),
            "stepper": self.stepper.state(),
            "epoch": self.epoch,
            "step": self.step,
            **self.sums.state(),
            "total_seconds": self.total_seconds,
            "best": self.best,
            "best_epoch": self.best_epoch,
        }

    def _require_numbers(self) -> None:
        if wrong := self.sums.first_wrong(self.step, self.stepper.skipped):
            step, loss = wrong
            raise self._not_a_number(f"the loss is {loss} in epoch {self.epoch} at step {step + 1}")

    def _require_finite_weights(self) -> None:
        if found := not_finite(self.stepper.best_net.state_dict()):
            raise self._not_a_number(f"the weights hold {found}, in epoch {self.epoch} after step {self.step}")

    def _not_a_number(self, what: str) -> CnnkitError:
        kept = f"{self.checkpoint} and best/ stay as they were before"
        return CnnkitError(f"{what}; {kept}; try an lr below {self.config.lr:g}, or --clip 1")
