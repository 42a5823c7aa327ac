"""A run in its folder: its log, its files and its callbacks."""

import copy
import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, NamedTuple

from torch import nn

from cnnkit.core.errors import Interrupted
from cnnkit.core.text import printable, shell, to_json
from cnnkit.deploy import save_bundle
from cnnkit.experiment.build import Job
from cnnkit.experiment.calibrating import calibrate_run
from cnnkit.experiment.progress import Display, make_display
from cnnkit.experiment.record import SPLIT
from cnnkit.experiment.run_folder import ENVIRONMENT, RunFolder
from cnnkit.nets.foreign import is_foreign
from cnnkit.train import Callback, EpochRecord, Trainer, World, plan_training
from cnnkit.train.autotune.plan import read_plan
from cnnkit.train.tensorboard import TensorBoard

__all__ = ["PYTHON", "SHELL", "Face", "RunInterrupted", "train_job"]

log = logging.getLogger(__name__)
LOGGER = logging.getLogger("cnnkit")


class Face(NamedTuple):
    """The commands that resume and evaluate a run, where "{}" stands for its quoted folder."""

    resume: str
    evaluate: str
    quote: Callable[[str], str]


SHELL = Face("cnnkit train --resume {}", "cnnkit evaluate {}", shell)
PYTHON = Face("cnnkit.fit(resume={})", "run.evaluate()", repr)


class RunInterrupted(Interrupted):
    """A run was stopped and has saved a checkpoint in `folder`."""

    def __init__(self, message: str, folder: RunFolder):
        super().__init__(message)
        self.folder = folder


class MetricsLog(Callback):
    """Appends the results of each epoch to metrics.jsonl, and logs them."""

    def __init__(self, folder: RunFolder, epochs: int):
        self.folder, self.epochs = folder, epochs

    def on_epoch_end(self, record: EpochRecord) -> None:
        """Append a row, and log a line."""
        self.folder.add_metrics(asdict(record))
        validation = ""
        if record.val_loss is not None:
            validation = f"  val loss {record.val_loss:.4f} accuracy {record.val_accuracy:.4f}"
        log.info(
            f"epoch {record.epoch}/{self.epochs}  loss {record.train_loss:.4f} accuracy {record.train_accuracy:.4f}"
            f"{validation}  {record.images_per_second:,.0f} images/s{'  best' if record.best else ''}"
        )


class _RunLog(logging.Handler):
    """Writes the log records of cnnkit to the run's log.txt, and displays them.

    The program's own handlers receive the records that they would receive without a run: those of `level` or above.
    """

    def __init__(self, folder: RunFolder, display: Display, level: int):
        super().__init__(logging.INFO)
        self.folder, self.display, self.least = folder, display, level

    def emit(self, record: logging.LogRecord) -> None:
        line = printable(record.getMessage())
        self.display.say(line)
        self.folder.log([line])
        if record.levelno >= self.least and logging.root.handlers:
            logging.root.callHandlers(record)


def train_job(
    job: Job,
    folder: RunFolder,
    world: World,
    *,
    resume: bool = False,
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    face: Face = SHELL,
) -> None:
    """Train in the run's folder and log there; `progress` also displays it, and `callbacks` are called.

    Raises RunInterrupted after Ctrl-C or SIGTERM.
    """

    def save_best(net: nn.Module, record: EpochRecord) -> None:
        metrics = {"epoch": record.epoch, "val_loss": record.val_loss, "val_accuracy": record.val_accuracy}
        save_bundle(folder.best, net, job.bundle.model_copy(update={"metrics": metrics}), {SPLIT: split})

    split = f"{to_json(job.record)}\n".encode()
    # a module of the user's own to load the best weights into, before its layers are prepared for training
    own = copy.deepcopy(job.net) if is_foreign(job.config.net) else None
    quoted = face.quote(str(folder.path))
    again = f"resume with: {face.resume.format(quoted)}"
    display = make_display(progress and world.is_main)
    observers = [MetricsLog(folder, job.config.epochs), display]
    if job.config.tensorboard:
        observers.append(TensorBoard(folder.path / "tensorboard"))
    with folder.locked(world.is_main), _logging(folder, display, world):
        saved = world.broadcast(read_plan(folder.plan) if world.is_main and resume and folder.plan.exists() else None)
        trainer = Trainer(
            job.net,
            job.training,
            job.validation,
            job.config,
            checkpoint=folder.checkpoint,
            callbacks=[*observers, *callbacks] if world.is_main else (),
            save_best=save_best,
            world=world,
            num_classes=len(job.bundle.classes),
            plan=saved or plan_training(job.net, job.training, job.config, world),
            images=job.bundle.split_sha256,
        )
        if world.is_main:
            folder.write_json(folder.plan.name, trainer.plan.model_dump(mode="json"))
        if resume:
            _resume(trainer, job, folder, world)
        log.info(_about(job, world))
        log.info("plan: %s", trainer.plan)
        for remark in job.remarks:
            log.warning("%s", remark)
        if job.start and not (resume and folder.has_begun):
            frozen = sum(p.numel() for p in job.net.parameters() if not p.requires_grad)
            log.info("weights from %s: %s; frozen: %s values", job.start["source"], job.start["loaded"], f"{frozen:,}")
        for path, reason in job.skipped:
            log.warning("skipped: %s: %s", path, reason)
        log.info("run folder: %s", folder.path)
        try:
            why = trainer.run()
        except Interrupted as stop:
            raise RunInterrupted(f"{stop}; {again}", folder) from stop
        if folder.best.exists():
            if world.is_main:
                calibrate_run(folder, job.held_out, own, job.training.device)
            log.info("%s; best weights: %s", why, folder.best)
            log.info("next: %s", face.evaluate.format(quoted))
        else:
            log.info("%s, before the end of the first epoch; %s", why, again)


def _resume(trainer: Trainer, job: Job, folder: RunFolder, world: World) -> None:
    """Resume a run from its newest checkpoint, or start it if it has none yet, and log whether that is exact."""
    initial = world.broadcast(None if folder.has_checkpoint or not world.is_main else folder.read_json(ENVIRONMENT))
    wrong, others = trainer.resume(initial)
    for problem in wrong:
        log.warning("checkpoint skipped: %s", problem)
    where = f"at epoch {trainer.epoch}, step {trainer.step}"
    if trainer.epoch > job.config.epochs:
        log.info("nothing to do: the run has finished its last epoch, %d; --epochs N extends it", job.config.epochs)
    elif others:
        log.warning("resumed %s, not exactly: %s", where, "; ".join(others))
    else:
        log.info("resumed exactly %s (same images, settings, versions, processor and threads)", where)
    if world.is_main:
        folder.write_json(SPLIT, job.record)
        folder.drop_metrics_from(trainer.epoch)


@contextmanager
def _logging(folder: RunFolder, display: Display, world: World) -> Iterator[None]:
    """Write what cnnkit logs to the run's log; with several ranks, only what the main one logs."""
    if not world.is_main:
        yield
        return
    level, effective, propagate = LOGGER.level, LOGGER.getEffectiveLevel(), LOGGER.propagate
    handler = _RunLog(folder, display, effective)
    LOGGER.addHandler(handler)
    LOGGER.setLevel(min(effective, logging.INFO))
    LOGGER.propagate = False
    try:
        yield
    finally:
        LOGGER.removeHandler(handler)
        LOGGER.setLevel(level)
        LOGGER.propagate = propagate


def _about(job: Job, world: World) -> str:
    validation = f"{job.validation.num_images:,} validation images" if job.validation else "no validation images"
    processes = f" in {world.size} processes" if world.size > 1 else ""
    skipped = f", {len(job.skipped):,} skipped" if job.skipped else ""
    return (
        f"{job.config.net} on {job.config.data}: {job.training.num_images:,} training images, {validation}{skipped}, "
        f"batches of {job.config.batch_size}, on {job.training.device}{processes}"
    )
