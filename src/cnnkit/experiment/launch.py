"""Start or resume a run, in one process or many: the common path of the command line and of Python."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.extras import require
from cnnkit.data import is_handed_in, keep, place
from cnnkit.deploy import amend_bundle
from cnnkit.experiment.build import DATA, NOTHING, START, Given, Job, build, places
from cnnkit.experiment.config import RunConfig, merge, resolve
from cnnkit.experiment.record import SPLIT
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.training import SHELL, Face, train_job
from cnnkit.train.autotune.choose import requested_plan
from cnnkit.train.conditions import first_conditions
from cnnkit.train.config import explain
from cnnkit.train.distributed import ALONE, World, join_world
from cnnkit.train.lanes import image_size
from cnnkit.train.optimizer import freeze, make_optimizer
from cnnkit.train.state import RESUMABLE_SETTINGS

__all__ = ["begin_folder", "launch"]

LATEST = "latest"
STARTED_HERE: set[Path] = set()  # by this process, which may train more than once


def launch(
    settings: dict[str, Any],
    *,
    file: Path | None = None,
    output: Path = Path("runs"),
    resume: Path | None = None,
    allow_changed_data: bool = False,
    given: Given = NOTHING,
    callbacks: Sequence[Any] = (),
    progress: bool = True,
    face: Face = SHELL,
) -> RunFolder:
    """Train with these settings, on top of those of a TOML file, in a new run folder in `output`; or resume a run.

    `resume` is the folder of a run, or "latest" for the last one in `output`. A resumed run has its own settings, of
    which only some may change; if its images have changed, it needs `allow_changed_data`. Started by torchrun, this
    process is one rank of several, and a restart of the job resumes the run that the job had started. Raises UsageError
    for settings, DataError for data that cannot be used, RunInterrupted after Ctrl-C.
    """
    training = {"callbacks": callbacks, "progress": progress, "face": face}
    world = join_world()
    try:
        with world.explain_lost_rank():
            if resume is None and world.job:
                resume = world.broadcast(_started(output, world.job, merge(settings | given.places(), file)))
                settings, file = ({}, None) if resume else (settings, file)
            if resume is None:
                if allow_changed_data:
                    raise UsageError("--allow-changed-data needs --resume")
                return _start(merge(settings | given.places(), file), output, world, given, training)
            if file:
                raise UsageError("settings of a resumed run cannot change: remove --config")
            latest = str(resume) == LATEST and not resume.exists()
            folder = RunFolder(world.broadcast(RunFolder.latest(output).path)) if latest else RunFolder.open(resume)
            _require_resumable(folder, settings)
            return _resume(folder, settings, world, given, allow_changed_data, training)
    finally:
        world.leave()


def begin_folder(job: Job, parent: Path, given: Given = NOTHING, world: World = ALONE) -> tuple[RunFolder, Job]:
    """Make a run's folder with everything that the run needs to start, even if it is killed before that.

    Return it, and the job with the paths of its data. Raises CnnkitError if the folder cannot be written.
    """
    with RunFolder.drafted(parent, job.stem) as (draft, path):
        saved = {}
        for name, value in given.data_by_name().items():
            table = f"{name}.csv"
            saved[name] = str((path / table).absolute()) if keep(value, draft.path / table) else place(value)
        in_bundle = {name: value for name, value in saved.items() if name in DATA}
        config, bundle = job.config.model_copy(update=saved), job.bundle.model_copy(update=in_bundle)
        job = replace(job, config=config, bundle=bundle)
        draft.write_settings(job.config.model_dump(mode="json"))
        draft.write_json(SPLIT, job.record)
        if job.start:
            draft.write_json(START, job.start)
        here = (job.config, job.bundle.split_sha256, job.training.device, world.size)
        draft.write_environment(first_conditions(job.net, *here), world.job)
    return RunFolder(path), job


def _started(output: Path, token: str, config: RunConfig) -> Path | None:
    """Return the run that an earlier start of this job, with the same settings, has started."""
    # settings that were not given have been filled in since
    given = {
        name: value
        for name, value in (config.model_dump(mode="json") | places(config)).items()
        if value not in (None, "auto") and not (name in DATA and is_handed_in(value))
    }
    for run in RunFolder.of_job(output, token):
        saved = run.settings()
        if run.path.absolute() not in STARTED_HERE and all(saved.get(name) == value for name, value in given.items()):
            return run.path
    return None


def _start(config: RunConfig, output: Path, world: World, given: Given, training: dict[str, Any]) -> RunFolder:
    job = build(config, world, given, progress=training["progress"])
    _require_trainable(job)
    path = output
    if world.is_main:
        folder, job = begin_folder(job, output, given, world)
        path = folder.path
    folder = RunFolder(world.broadcast(path))
    STARTED_HERE.add(folder.path.absolute())
    train_job(job, folder, world, **training)
    return folder


def _require_trainable(job: Job) -> None:
    """Raise UsageError for settings that this network or machine does not support, before there is a run folder."""
    if job.config.tensorboard:
        require("tensorboard", "track")
    freeze(job.net, job.config.freeze)
    make_optimizer(job.net, job.config)
    requested_plan(job.net, image_size(job.training), job.config, job.training)


def _require_resumable(folder: RunFolder, settings: dict[str, Any]) -> None:
    """Raise UsageError for settings that a resumed run cannot change."""
    free = {*RESUMABLE_SETTINGS, *DATA, "max_pixels", "workers", "tensorboard"}  # the content of data is compared
    saved = folder.settings()
    try:
        asked = RunConfig(**settings)
    except ValidationError as error:
        raise explain(error, RunConfig) from error
    values = asked.model_dump(mode="json", include=set(settings)) | places(asked)
    values = {name: value for name, value in values.items() if name in settings}
    if others := sorted(name for name, value in values.items() if name not in free and saved.get(name) != value):
        wrong, free_ones = (
            ", ".join(f"--{name}" for name in names).replace("_", "-") for names in (others, sorted(free))
        )
        line = f"settings of a resumed run cannot change: remove {wrong}; only {free_ones} can"
        raise UsageError(line.replace("--net", "the network name"))


def _resume(
    folder: RunFolder,
    settings: dict[str, Any],
    world: World,
    given: Given,
    allow_changed_data: bool,
    training: dict[str, Any],
) -> RunFolder:
    if not world.broadcast(folder.can_go_on):
        raise CnnkitError(f"{folder.path} has no checkpoint to resume from; start from --weights {folder.best}")
    config = resolve(settings, folder.settings(), folder.config_file)
    job = build(config, world, given, folder, training["progress"], allow_changed_data)
    if settings and world.is_main:
        folder.write_settings(job.config.model_dump(mode="json"))
        if folder.best.exists():
            amend_bundle(folder.best, **{name: getattr(job.bundle, name) for name in DATA})
    train_job(job, folder, world, resume=True, **training)
    return folder
