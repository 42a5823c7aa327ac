"""`cnnkit sweep`: a hyperparameter search over many runs."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Parameter

from cnnkit.cli.console import console, given_flags, page, print_json, printing_logs, table
from cnnkit.cli.options import Net
from cnnkit.core.console import PatientConsole
from cnnkit.core.errors import Interrupted
from cnnkit.core.extras import require
from cnnkit.core.text import shell
from cnnkit.experiment.config import RunConfig

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

    from cnnkit.experiment.sweep.study import Study

__all__ = ["sweep"]

BEST = 10  # trials in the table


def sweep(
    net: Net = None,
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
    """Search for the best settings: train many runs, and stop those early whose validation accuracy is poor.

    The runs of a search are the trials of a study. Each is an ordinary run in the study's folder. Run the same command
    again to resume a study, or several times at once, on one machine or on several that share the storage, to work on
    it in parallel. Ctrl-C saves and stops.

    Parameters
    ----------
    config
        TOML file with settings, as for `cnnkit train`, and a table [space] of settings to vary: choices, such as
        optimizer = ["sgd", "adamw"], or ranges, such as lr = {low = 1e-4, high = 0.1, log = true}.
    trials
        Number of trials of the study, over all workers.
    storage
        Storage of the study: sqlite:///FILE, postgresql://USER@HOST/DATABASE, or a file that ends in .journal or .log;
        by default study.journal beside the runs.
    name
        Name of the study and of its folder in --output; by default the name of the config file.
    output
        Parent folder of the study's folder.
    pruner
        Prune trials after an epoch if they are below the median of the others, by hyperband, or not at all.
    timeout
        Start no trial after this many minutes.
    json
        Print the trials as JSON at the end.
    """
    require("optuna", "search")
    from cnnkit.experiment.sweep.search import search

    options: dict[str, Any] = {"storage": storage, "name": name, "output": output, "pruner": pruner, "timeout": timeout}
    with printing_logs("cnnkit.experiment.sweep", PatientConsole(stderr=True) if json else console):
        study, stopped = search(config, given_flags(settings, net), trials, **options)
    _report(study, name or config.stem, json)
    if stopped:
        raise Interrupted("stopped; run the same command to resume the study")


def _report(study: "Study", name: str, json: bool) -> None:
    """Print the best trials, or all as JSON."""
    from cnnkit.experiment.sweep.search import shown

    results = study.results()
    done = sorted((t for t in results if t.state.name == "COMPLETE"), key=lambda trial: -(trial.value or 0))
    importances = study.importances()
    if json:
        facts = {"study": name, "best": _facts(done[0]) if done else None, "importances": importances}
        print_json(facts | {"trials": [_facts(trial) for trial in results]})
        return
    counts = Counter(trial.state.name for trial in results)
    words = {"COMPLETE": "done", "PRUNED": "pruned", "FAIL": "failed", "RUNNING": "running"}
    states = [f"{counts[state]} {word}" for state, word in words.items() if counts[state]]
    page.print(f"{name}: {', '.join(states) or 'no trials yet'}")
    if not done:
        return
    names = list(done[0].params)
    listing = table(["trial", "val", *names, "run"], text=0)
    for trial in done[:BEST]:
        values = [shown(trial.params.get(setting, "")) for setting in names]
        listing.add_row(str(trial.number), f"{trial.value:.4f}", *values, _run_of(trial))
    page.print(listing)
    if importances:
        page.print("importance: " + ", ".join(f"{setting} {share:.0%}" for setting, share in importances.items()))
    again = shell(f"{_run_of(done[0])}/config.toml")
    page.say(f"to train the best settings again: cnnkit train -c {again}")


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
    path = Path(str(trial.user_attrs.get("run", "")))
    return str(path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path)
