"""Hyperparameter search: many runs of one study, the poor ones pruned early."""

import logging
import math
import time
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial
from pydantic import ValidationError

from cnnkit.core.device import pick_device
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.text import counted, without_passwords
from cnnkit.data import Augment
from cnnkit.experiment.build import build
from cnnkit.experiment.config import TABLES, RunConfig, resolve
from cnnkit.experiment.recipes import recipe
from cnnkit.experiment.run_folder import read_toml
from cnnkit.experiment.sweep.space import Choices, Space, flatten, overlay, parse_space
from cnnkit.experiment.sweep.study import PrunerName, Study, TakenOver
from cnnkit.experiment.sweep.trial import MACHINE_SETTINGS, Worker
from cnnkit.nets import entry
from cnnkit.train.config import explain
from cnnkit.train.interrupt import stop_requested

__all__ = ["search", "shown"]

MAX_TRIALS = 10**6  # every worker holds all of them
SAME_FAILURES = 5  # the search ends if this many first trials fail for the same reason
POLL_SECONDS = 2  # between queries for other workers' results

log = logging.getLogger(__name__)


def search(
    config: Path,
    settings: dict[str, Any],
    trials: int,
    *,
    storage: str | None = None,
    name: str | None = None,
    output: Path = Path("runs"),
    pruner: PrunerName = "median",
    timeout: float | None = None,
) -> tuple[Study, bool]:
    """Work on a study until all its trials are done; return it, and whether Ctrl-C stopped it earlier.

    `config` is a TOML file with settings and a table [space] of those to vary; `settings` override it. `name` defaults
    to the file's name, `storage` to a journal beside the runs, which are created in `output`/`name`. No trial starts
    after `timeout` minutes. Each finished trial is logged. Raises UsageError for invalid settings, CnnkitError if the
    first trials all fail for the same reason or the storage cannot be used.
    """
    if not 1 <= trials <= MAX_TRIALS:
        raise UsageError(f"--trials must be from 1 to {MAX_TRIALS:,}, not {trials}")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout must be above 0, not {timeout:g}")
    name = name or config.stem
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"--name {name!r} is not a valid folder name")
    given, space = _read(config, settings)
    _check(given, space)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = output / name
    study = Study(
        storage or str(folder / "study.journal"), name, trials, given.get("seed", 0), pruner, _about(given, space)
    )
    with stop_requested() as stop:
        worker = Worker(study, given, space, folder, stop)
        _work(worker, time.monotonic() + 60 * timeout if timeout else math.inf)
    return study, stop.is_set()


def _read(config: Path, settings: dict[str, Any]) -> tuple[dict[str, Any], Space]:
    """Return the fixed settings, and the space of those to vary."""
    given = read_toml(config)
    space = parse_space(given.pop("space", None), TABLES)
    given = overlay(given, flatten(settings, TABLES))
    fixed = given.keys() | flatten(given, TABLES).keys()
    if twice := sorted(name for name in space if name in fixed):
        raise UsageError(f"{', '.join(twice)}: both fixed and in [space] of {config}; remove one of them")
    if "net" not in space and not given.get("net"):
        raise UsageError(f"no network given; write cnnkit sweep NET, or add net to {config} (`cnnkit nets` lists them)")
    return given, space


def _check(given: dict[str, Any], space: Space) -> None:
    """Raise UsageError for a setting that is invalid by itself or in all trials, DataError for a problem of the data.

    Combinations of settings are left to the trials, as another combination in the space may be valid.
    """
    alone = [{name: value} for name, dimension in space.items() for value in dimension.samples]
    for changes in ({}, *alone):
        settings = overlay(given, changes)
        try:
            config = RunConfig(**(recipe(str(settings.get("recipe", "default"))) | settings))
        except ValidationError as error:
            if any(row["loc"] for row in error.errors()):
                raise explain(error, RunConfig) from error
            continue
        pick_device(config.device)
        if config.net:
            pixels = config.image_size or entry(config.net).input[1]
            Augment(config.augment, (pixels, pixels))
    first, last = (
        overlay(given, {name: dimension.samples[end] for name, dimension in space.items()}) for end in (0, -1)
    )
    if (problem := _problem(first)) and problem == _problem(last):  # the cause is a fixed setting
        raise UsageError(problem)


def _problem(settings: dict[str, Any]) -> str | None:
    """Return why a run with these settings cannot train, unless the settings contradict each other."""
    try:
        config = resolve(settings)
    except UsageError:
        return None
    try:
        validation = build(config).validation
    except UsageError as error:
        return str(error)
    return None if validation is not None else "a sweep needs validation images: set --validation above 0"


def _about(given: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return the settings that must be the same for all workers; the study stores them, so without passwords."""
    varied = {
        name: list(dimension.values) if isinstance(dimension, Choices) else dimension.model_dump()
        for name, dimension in space.items()
    }
    shared = {name: value for name, value in given.items() if name not in MACHINE_SETTINGS} | varied
    return {name: _without_passwords(value) for name, value in shared.items()}


def _without_passwords(value: Any) -> Any:
    if isinstance(value, list):
        return [_without_passwords(one) for one in value]
    return without_passwords(value) if isinstance(value, str) else value


def _work(worker: Worker, deadline: float) -> None:
    """Run trials until all are done, the deadline has passed, or the worker is stopped."""
    study, waiting, reasons = worker.study, False, []
    while not worker.stop.is_set() and time.monotonic() < deadline:
        trial = study.claim()
        if trial is None:
            if not study.others:
                return
            if not waiting:
                log.info("waiting for %s of other workers", counted(study.others, "trial"))
            waiting = True
            worker.stop.wait(POLL_SECONDS)
            continue
        try:
            ended = worker.attempt(trial)
        except TakenOver:
            log.info("trial %s  taken over by another worker", trial.number)
            continue
        log.info(_line(ended))
        reasons.append(ended.user_attrs["reason"] if ended.state.name == "FAIL" else None)
        if len(reasons) == SAME_FAILURES and reasons[0] and len(set(reasons)) == 1:
            raise CnnkitError(f"the first {SAME_FAILURES} trials all failed: {reasons[0]}")


def _line(trial: FrozenTrial) -> str:
    value = "-" if trial.value is None else f"{trial.value:.4f}"
    words = [f"{name}={shown(setting)}" for name, setting in trial.params.items()]
    return f"trial {trial.number}  {value}  {' '.join(words)}  {trial.user_attrs.get('reason', 'done')}"


def shown(value: Any) -> str:
    """Format the value of a setting for display."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
