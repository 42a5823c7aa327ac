"""`cnnkit sweep`: many short runs that search for the best settings."""

import math
import shlex
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cnnkit.cli.settings import RunConfig, resolve
from cnnkit.core.errors import CnnkitError, Interrupted, UsageError
from cnnkit.train.record import read_toml
from cnnkit.train.space import Choices, Space, flatten, overlay, parse_space

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from cnnkit.cli.trial import Worker
    from cnnkit.train.study import Study

__all__ = ["sweep"]

TABLES = ("model_kwargs", "stage_lr")
BEST = 10  # trials in the table
ALIKE = 5  # failures for one reason, and nothing but them, that end a sweep
POLL_SECONDS = 2  # between looks at what other workers have come to


def sweep(
    net: str | None = None,
    *,
    config: Annotated[Path, Parameter(alias="-c")],
    trials: int,
    storage: str | None = None,
    name: str | None = None,
    output: Path = Path("runs"),
    pruner: Literal["median", "hyperband", "none"] = "median",
    timeout: float | None = None,
    json: bool = False,
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Search for the settings with the best validation accuracy: many runs, the hopeless ones ended early.

    The same command, given again, goes on where it was; given several times at once, on one machine or on many that
    share the storage, all work on the same trials. Ctrl-C saves and leaves.

    Parameters
    ----------
    net
        A name from `cnnkit nets`.
    config
        A TOML file of settings, as for `cnnkit train`, with a table [space] of those to vary: choices, such as
        optimizer = ["sgd", "adamw"], or ranges, such as lr = {low = 1e-4, high = 0.1, log = true}.
    trials
        Trials of the whole study, by all workers together.
    storage
        Where the study is kept: sqlite:///FILE, postgresql://USER@HOST/DATABASE, or a file that ends in .journal or
        .log; without it, study.journal beside the runs.
    name
        Of the study, and of the folder in --output that its runs are made in; without it, the file's.
    output
        Where that folder is made.
    pruner
        What ends hopeless trials after an epoch: below the median of the others, hyperband, or none.
    timeout
        Begin no trial after this many minutes.
    json
        Print the trials as JSON at the end.
    """
    from cnnkit.core.extras import require

    require("optuna", "search")
    import optuna
    from rich.console import Console

    from cnnkit.cli.console import console
    from cnnkit.cli.trial import Worker
    from cnnkit.train.interrupt import stop_requested
    from cnnkit.train.study import Study

    if trials < 1:
        raise UsageError(f"--trials must be at least 1, not {trials}")
    if timeout is not None and not timeout > 0:
        raise UsageError(f"--timeout must be above 0, not {timeout:g}")
    name = name or config.stem
    if Path(name).name != name or name.startswith("."):
        raise UsageError(f"--name {name!r} cannot be the name of a folder")
    given, space = _read(config, settings, net)
    _check(given, space)
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    folder = output / name
    study = Study(
        storage or str(folder / "study.journal"), name, trials, given.get("seed", 0), pruner, _about(given, space)
    )
    screen = Console(stderr=True, highlight=False) if json else console
    with stop_requested() as stop:
        worker = Worker(study, given, space, folder, stop)
        deadline = time.monotonic() + 60 * timeout if timeout else math.inf
        _work(worker, deadline, partial(screen.print, markup=False, soft_wrap=True))
    _report(study, name, json)
    if stop.is_set():
        raise Interrupted("stopped; the same command goes on with the study")


def _read(config: Path, settings: RunConfig, net: str | None) -> tuple[dict[str, Any], Space]:
    """Return the settings that are the same for all trials, and those to vary."""
    given = read_toml(config)
    space = parse_space(given.pop("space", None), TABLES)
    flags = settings.model_dump(mode="json", include=settings.model_fields_set) | ({"net": net} if net else {})
    given = overlay(given, flatten(flags, TABLES))
    fixed = given.keys() | flatten(given, TABLES).keys()
    if twice := sorted(name for name in space if name in fixed):
        raise UsageError(f"{', '.join(twice)}: fixed, and in [space] of {config}; leave out one of the two")
    if "net" not in space and not given.get("net"):
        raise UsageError(f"which network? write cnnkit sweep NET, or net into {config}; `cnnkit nets` lists them")
    return given, space


def _check(given: dict[str, Any], space: Space) -> None:
    """Raise UsageError for what is wrong with a setting alone or with what all trials share, DataError for the data.

    Settings that do not go together may do so with others of the space: trials will tell.
    """
    from pydantic import ValidationError

    from cnnkit.core.device import pick_device
    from cnnkit.data.augment import Augment
    from cnnkit.nets import entry
    from cnnkit.train.config import explain
    from cnnkit.train.recipes import recipe

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
    if (wrong := _trouble(first)) and wrong == _trouble(last):  # they have in common what is the same for all
        raise UsageError(wrong)


def _trouble(settings: dict[str, Any]) -> str | None:
    """Return what keeps a run with these settings from training, unless it is that they do not go together."""
    from cnnkit.cli.job import prepare

    try:
        config = resolve(settings)
    except UsageError:
        return None
    try:
        validation = prepare(config).validation
    except UsageError as error:
        return str(error)
    return None if validation is not None else "there is no image to choose by: set --validation above 0"


def _about(given: dict[str, Any], space: Space) -> dict[str, Any]:
    """Return what all workers must agree on."""
    from cnnkit.cli.trial import ELSEWHERE

    varied = {
        name: list(dimension.values) if isinstance(dimension, Choices) else dimension.model_dump()
        for name, dimension in space.items()
    }
    return {name: value for name, value in given.items() if name not in ELSEWHERE} | varied


def _work(worker: "Worker", deadline: float, say: Callable[[str], None]) -> None:
    """Take one trial after the other until all are done, time is up, or the worker is to stop."""
    from cnnkit.train.study import TakenOver

    study, waiting, reasons = worker.study, False, []
    while not worker.stop.is_set() and time.monotonic() < deadline:
        trial = study.claim()
        if trial is None:
            if not study.others:
                return
            if not waiting:
                say(f"waiting for {study.others} trial(s) of other workers")
            waiting = True
            worker.stop.wait(POLL_SECONDS)
            continue
        try:
            ended = worker.attempt(trial)
        except TakenOver:
            say(f"trial {trial.number}  another worker has taken it over")
            continue
        say(_line(ended))
        reasons.append(ended.user_attrs["reason"] if ended.state.name == "FAIL" else None)
        if len(reasons) == ALIKE and reasons[0] and len(set(reasons)) == 1:
            raise CnnkitError(f"the first {ALIKE} trials failed, all alike: {reasons[0]}")


def _line(trial: "FrozenTrial") -> str:
    value = "-" if trial.value is None else f"{trial.value:.4f}"
    words = [f"{name}={_show(setting)}" for name, setting in trial.params.items()]
    return f"trial {trial.number}  {value}  {' '.join(words)}  {trial.user_attrs.get('reason', 'done')}"


def _show(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _report(study: "Study", name: str, json: bool) -> None:
    """Print the best trials, or all as JSON."""
    from cnnkit.cli.console import page, print_json, table

    results = study.results()
    done = sorted((t for t in results if t.state.name == "COMPLETE"), key=lambda trial: -(trial.value or 0))
    importances = study.importances()
    if json:
        facts = {"study": name, "best": _facts(done[0]) if done else None, "importances": importances}
        print_json(facts | {"trials": [_facts(trial) for trial in results]})
        return
    counts = Counter(trial.state.name for trial in results)
    words = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    came = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    page.print(f"{name}: {', '.join(came) or 'no trial yet'}", markup=False)
    if not done:
        return
    names = list(done[0].params)
    listing = table(["trial", "val", *names, "run"], text=0)
    for trial in done[:BEST]:
        shown = [_show(trial.params.get(setting, "")) for setting in names]
        listing.add_row(str(trial.number), f"{trial.value:.4f}", *shown, _run_of(trial))
    page.print(listing)
    if importances:
        page.print("what mattered: " + ", ".join(f"{setting} {share:.0%}" for setting, share in importances.items()))
    again = shlex.quote(f"{_run_of(done[0])}/config.toml")
    page.print(f"train the best again: cnnkit train -c {again}", markup=False, soft_wrap=True)


def _facts(trial: "FrozenTrial") -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state.name.lower(),
        "value": trial.value,
        "params": trial.params,
        "epochs": trial.last_step,
        "run": trial.user_attrs.get("run"),
        "reason": trial.user_attrs.get("reason"),
    }


def _run_of(trial: "FrozenTrial") -> str:
    path = Path(trial.user_attrs["run"])
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
