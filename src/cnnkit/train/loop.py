"""The training loop: epochs, validation, and checkpoints from which a killed or stopped run resumes."""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import CnnkitError, Interrupted, UsageError
from cnnkit.core.finite import not_finite
from cnnkit.core.modules import unwrapped
from cnnkit.core.text import counted
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
from cnnkit.train.stopping import Stopping
from cnnkit.train.sums import EpochSums

__all__ = ["Trainer"]

REPORT_SECONDS = 0.2  # between reports of the losses, each of which waits for a GPU


class Trainer:
    """Trains a net (returning logits) on shuffled batches and remembers the best weights.

    `save_best(net, record)` is called after each epoch with a new best validation accuracy (without validation: after
    every epoch). `checkpoint` is written at the start, after each epoch, on Ctrl-C or SIGTERM, and as often as the
    settings say. In a `world` of several ranks each has a Trainer with its part of the batches; only the main one calls
    `callbacks` and writes. `plan` is how to compute steps, as `plan_training` returns; by default torch's own.
    `images` is a digest of the training and validation images, which a resumed run compares.
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
        if plan is None and (config.engine == "lanes" or config.plan not in ("auto", "off")):
            raise UsageError("engine lanes and plan files need plan=cnnkit.train.plan_training(net, train, config)")
        self.plan = plan or plain_plan(config)
        self.stepper = make_stepper(
            net, config, self.plan, image_size(train), train.preprocess.scale_and_shift(), world, weights
        )
        self.net, self.optimizer = self.stepper.net, self.stepper.optimizer
        self.epoch, self.step = 1, 0  # the next step to take
        self.best: tuple[float, float] | None = None  # accuracy, minus loss
        self.best_epoch = 0
        self.total_seconds = 0.0
        self.reported = time.monotonic()
        self.stopping = Stopping(config, world, self.callbacks)
        self._clear_sums()

    def resume(self, initial: Mapping[str, Any] | None = None) -> Resumed:
        """Load the newest intact checkpoint: under the same conditions, on a CPU, the run continues bit for bit.

        Without a checkpoint the run starts; `initial` are the conditions that its folder was made under. If the images
        have changed, the epoch starts again. Raises CnnkitError if no checkpoint can be used.
        """
        here = (self.config, self.images, self.stepper.device, self.world.size)
        if not self.world.broadcast(any(earlier(self.checkpoint))):
            return Resumed([], differences(initial or {}, first_conditions(self.net, *here)))
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

        Raises Interrupted after Ctrl-C or SIGTERM, with the checkpoint saved, and CnnkitError when the loss is NaN/Inf
        or memory is out; the checkpoint and the best weights are then the earlier ones.
        """
        if not self.train.num_images:
            raise UsageError("no training images left: lower --validation")
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

    def _train_epochs(self, signalled: Callable[[], bool]) -> str:
        """Train until there is a reason to stop, and return it."""
        while self.epoch <= self.config.epochs:
            best_epoch = self.best_epoch if self.best else None
            if reason := self.stopping.before_epoch(self.epoch, best_epoch, self.total_seconds):
                return reason
            if reason := self._train_epoch(signalled):
                return reason
            self._finish_epoch()
            if any(self.world.all_gather(signalled())):
                raise Interrupted(f"stopped after epoch {self.epoch - 1}; saved in {self.checkpoint}")
        return f"finished {counted(self.config.epochs, 'epoch')}"

    def _train_epoch(self, signalled: Callable[[], bool]) -> str:
        """Train to the end of the epoch, or return why the run stops before it, with a checkpoint saved."""
        self.stepper.train()
        self.sums.start(self.step)
        for count, x, y in self.stepper.read(self.train, self.epoch, self.step):
            steps = [self._describe(number) for number in range(self.step, self.step + count)]
            self.sums.add(self.step, *self.stepper.take(steps, x, y))
            self.lr, self.step = steps[-1].lr, self.step + count
            self._report()
            seconds = self.total_seconds + self.sums.elapsed
            if self.step < len(self.train) and (pause := self.stopping.after_step(self.step, seconds, signalled())):
                self._stop_clock()
                self._require_finite_weights()
                self._save()
                if pause.interrupted:
                    raise Interrupted(f"stopped in epoch {self.epoch} at step {self.step}; saved in {self.checkpoint}")
                if pause.reason:
                    return pause.reason
        self._stop_clock()
        return ""

    def _describe(self, number: int) -> Step:
        steps = len(self.train)
        lr = learning_rate(self.config, (self.epoch - 1) * steps + number, steps)
        return Step(number, lr, mix_seed(self.config.seed, self.epoch, number), self.train.sizes[number])

    def _stop_clock(self) -> None:
        self._require_finite_losses()  # first, as it waits for a GPU to finish its steps
        self.total_seconds += self.sums.stop(self.step)

    def _report(self) -> None:
        """Report the epoch so far to the callbacks, a few times a second."""
        now = time.monotonic()
        if now - self.reported < REPORT_SECONDS or not self.world.is_main:
            return
        self.reported = now
        self._require_finite_losses()
        steps, speed = len(self.train), (self.step - self.sums.first) / self.sums.elapsed  # steps per second
        record = StepRecord(
            self.epoch,
            self.step,
            steps,
            self.sums.mean_loss(self.step, self.stepper.skipped),
            self.sums.accuracy(self.step),
            speed * self.train.batch_size,
            (steps * (self.config.epochs - self.epoch + 1) - self.step) / speed,
        )
        self.callbacks.on_step_end(record)

    def _finish_epoch(self) -> None:
        """Validate the weights, save them if they are the best so far, report the epoch and save a checkpoint."""
        self._require_finite_weights()
        best_net = self.stepper.best_net
        self.stepper.measure_statistics(self.train, self.epoch)
        self.world.copy_buffers(best_net)
        self._require_finite_weights()
        metrics = evaluate(best_net, self.validation, self.world, self.stepper.predict) if self.validation else None
        if metrics and not metrics.loss < float("inf"):
            raise self._diverged(f"the validation loss is {metrics.loss} after epoch {self.epoch}")
        score = (metrics.accuracy, -metrics.loss) if metrics else None
        is_best = score is None or self.best is None or score > self.best
        record = EpochRecord(
            self.epoch,
            self.sums.mean_loss(self.step, self.stepper.skipped),
            self.sums.accuracy(self.step),
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
        self.sums = EpochSums(self.train.sizes, self.stepper.device)
        self.stepper.skipped = []

    def _settings(self) -> dict[str, object]:
        return self.config.model_dump(mode="json", include=set(TrainConfig.model_fields))

    def _save(self) -> None:
        self.stopping.checkpoint_saved()
        if self.world.is_main:
            save_checkpoint(self.checkpoint, self._state(), self.config.keep)
        self.world.broadcast(None)  # no rank leaves before it is written

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

    def _require_finite_losses(self) -> None:
        if found := self.sums.first_nonfinite(self.step, self.stepper.skipped):
            step, loss = found
            raise self._diverged(f"the loss is {loss} in epoch {self.epoch} at step {step + 1}")

    def _require_finite_weights(self) -> None:
        if found := not_finite(self.stepper.best_net.state_dict()):
            raise self._diverged(f"the weights hold {found}, in epoch {self.epoch} after step {self.step}")

    def _diverged(self, what: str) -> CnnkitError:
        saved = f"{self.checkpoint} and best/ are from before the divergence"
        return CnnkitError(f"{what}; {saved}; try an lr below {self.config.lr:g}, or --clip 1")
