"""`cnnkit train`: marry a network, a data set and the trainer in a run folder."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cnnkit.cli.settings import RunConfig, resolve
from cnnkit.core.errors import DataError, Interrupted, UsageError
from cnnkit.train.record import Run, read_toml

if TYPE_CHECKING:
    from torch import nn

    from cnnkit.cli.job import Job
    from cnnkit.train import EpochRecord, Observer, World

__all__ = ["merge", "train", "train_job"]

LATEST = Path("latest")


def train(
    net: str | None = None,
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Train a network and keep the best of it.

    The run gets a folder of its own: settings, log, metrics, the split, `last.ckpt` to resume from, and
    `best/`, the weights of the best validation accuracy, for `evaluate` and `predict`. Ctrl-C saves and leaves.
    `torchrun --nproc-per-node 2 -m cnnkit train ...` trains with several processes.

    Parameters
    ----------
    net
        A name from `cnnkit nets`.
    config
        A TOML file of settings, such as a run's config.toml; flags override it, it overrides the recipe.
    resume
        A run folder to continue from its last checkpoint, with its own settings; without a name, the latest in
        --output. --epochs extends it.
    output
        Where run folders are made.
    """
    from cnnkit.train.distributed import join_world

    given = settings.model_dump(mode="json", include=settings.model_fields_set) | ({"net": net} if net else {})
    world = join_world()
    try:
        with world.kept_together():
            if resume is None and world.job:
                resume = world.share(_begun(output, world.job, merge(given, config)))
                given, config = ({}, None) if resume else (given, config)
            if resume is None:
                _begin(merge(given, config), output, world)
            elif config:
                raise UsageError("--resume takes the run's own settings: leave --config out")
            else:
                _require_free(given)
                latest = resume == LATEST and not resume.exists()
                _go_on(Run(world.share(Run.latest(output).path)) if latest else Run.open(resume), given, world)
    finally:
        world.leave()


def merge(given: dict[str, Any], config: Path | None) -> RunConfig:
    """Return the settings in full: flags on top of a file on top of its recipe on top of the defaults."""
    file = read_toml(config) if config else {}
    if "recipe" in given and file.get("recipe", given["recipe"]) != given["recipe"]:
        raise UsageError(f"{config} says recipe {file['recipe']!r}, --recipe {given['recipe']!r}: leave out one")
    for table in ("model_kwargs", "stage_lr"):  # one by one, as the other settings
        if table in given and isinstance(file.get(table), dict):
            given = given | {table: file[table] | given[table]}
    return resolve(file | given)


def _begun(output: Path, job: str, config: RunConfig) -> Path | None:
    """Return the run that an earlier start of this job, with the same settings, has begun."""
    from cnnkit.cli.job import place

    asked = config.model_dump(mode="json") | {"data": place(config.data)}
    told = {name: value for name, value in asked.items() if value not in (None, "auto")}  # the others were filled in
    for run in Run.of_job(output, job):
        saved = run.settings()
        if all(saved.get(name) == value for name, value in told.items()):
            return run.path
    return None


def _begin(config: RunConfig, output: Path, world: "World") -> None:
    from cnnkit.cli.job import prepare

    job = prepare(config, world)
    path = output
    if world.is_main:
        run = Run.create(output, job.stem, job.config.model_dump(mode="json"), world.job)
        run.write_json("split.json", job.split)
        path = run.path
    train_job(job, Run(world.share(path)), world)


def _require_free(given: dict[str, Any]) -> None:
    """Raise UsageError for settings that a run cannot change any more."""
    from cnnkit.train.loop import FREE

    free = FREE | {"workers", "tensorboard"}
    if others := given.keys() - free:
        raise UsageError(
            f"--resume takes the run's own settings; leave the others out: {', '.join(sorted(others))} "
            f"(it may have another {', '.join(sorted(free))})"
        )


def _go_on(run: Run, given: dict[str, Any], world: "World") -> None:
    from cnnkit.cli.job import prepare

    job = prepare(resolve(run.settings() | given), world, resumed=True)
    if run.read_json("split.json") != job.split:
        raise DataError(f"{job.config.data} is not the data that {run.path} was split from (split.json)")
    if given and world.is_main:
        run.write_settings(job.config.model_dump(mode="json"))
    train_job(job, run, world, resume=True)


def train_job(job: "Job", run: Run, world: "World", resume: bool = False, observers: "Sequence[Observer]" = ()) -> None:
    """Train in the run's folder, and say so as it goes, also to `observers`.

    Raises Interrupted, with what to type to go on, after Ctrl-C or SIGTERM.
    """
    from cnnkit.cli.progress import Display, Silent
    from cnnkit.deploy import save_bundle
    from cnnkit.train import Trainer
    from cnnkit.train.observe import Observers
    from cnnkit.train.plan import read_plan
    from cnnkit.train.tensorboard import TensorBoardObserver

    if job.config.tensorboard and world.is_main:
        observers = [TensorBoardObserver(run.path / "tensorboard", len(job.training)), *observers]

    def save_best(net: "nn.Module", record: "EpochRecord") -> None:
        metrics = {"epoch": record.epoch, "val_loss": record.val_loss, "val_accuracy": record.val_accuracy}
        save_bundle(run.best, net, job.bundle.model_copy(update={"metrics": metrics}))

    with run.locked(world.is_main), Display(run, job.config) if world.is_main else Silent() as display:
        trainer = Trainer(
            job.net,
            job.training,
            job.validation,
            job.config,
            checkpoint=run.checkpoint,
            observer=Observers(display, *observers),
            save_best=save_best,
            world=world,
            num_classes=len(job.bundle.classes),
            plan=read_plan(run.plan) if resume and run.plan.exists() else None,
            say=display.say,
        )
        if world.is_main:
            run.write_json(run.plan.name, trainer.plan.model_dump(mode="json"))
        if resume:
            for problem in trainer.resume():
                display.say(f"passed over: {problem}")
            if world.is_main:
                run.drop_metrics_from(trainer.epoch)
        display.say(_about(job, world))
        display.say(f"plan: {trainer.plan}")
        for path, reason in job.skipped:
            display.say(f"left out: {path}: {reason}")
        display.say(f"run folder: {run.path}")
        try:
            why = trainer.run()
        except Interrupted as stop:
            raise Interrupted(f"{stop}; go on with: cnnkit train --resume {run.path}") from stop
        if run.best.exists():
            display.say(f"done: {why}; the best weights are in {run.best}\nnext: cnnkit evaluate {run.path}")
        else:
            display.say(f"{why}, before the first epoch was; go on with: cnnkit train --resume {run.path}")


def _about(job: "Job", world: "World") -> str:
    validation = f"{job.validation.num_images:,} to choose the best epoch by" if job.validation else "none aside"
    together = f" in {world.size} processes" if world.size > 1 else ""
    left_out = f", {len(job.skipped):,} left out" if job.skipped else ""
    return (
        f"{job.config.net} on {job.config.data}: {job.training.num_images:,} images to train on, {validation}"
        f"{left_out}, batches of {job.config.batch_size}, on {job.training.device}{together}"
    )
