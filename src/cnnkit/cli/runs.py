"""`cnnkit runs`: a table of runs."""

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.console import console, page, print_json, table
from cnnkit.cli.options import Json

if TYPE_CHECKING:
    from rich.table import Table

    from cnnkit.report import RunSummary

__all__ = ["runs"]


def runs(
    folder: Path = Path("runs"),
    *,
    sort: list[str] | None = None,
    json: Json = False,
) -> None:
    """Compare the runs in a folder: epochs, validation and test accuracy, training time, start and state.

    - `val`: best validation accuracy
    - `at`: epoch with this accuracy, whose weights are saved
    - `test`: test accuracy, if the run has been evaluated
    - `state`: done, running, stopped (the run can be resumed) or corrupt

    Parameters
    ----------
    folder
        Folder with run folders up to two levels down, or one run folder.
    sort
        Sort by run, net, data, val or test (best first), time (shortest first) or started (the default); repeat it to
        break ties.
    """
    from cnnkit.report import list_runs, sort_runs

    found = sort_runs(list_runs(folder), sort or [])
    if json:
        print_json([_facts(run) for run in found])
    elif found:
        page.print(_listing(found), width=max(80, console.width) if console.is_terminal else None)
        for run in found:
            if run.problem:
                page.say(f"{run.name}: {run.problem}")
    else:
        console.say(f"no runs in {folder}; create one with cnnkit train")


def _facts(run: "RunSummary") -> dict[str, Any]:
    started = datetime.fromtimestamp(run.started, UTC).isoformat(timespec="seconds")
    return asdict(run) | {"path": str(run.path), "started": started}


def _listing(found: "list[RunSummary]") -> "Table":
    listing = table(["run", "net", "data", "epochs", "val", "at", "test", "time", "started", "state"], text=3)
    listing.padding, listing.pad_edge = (0, 0), False  # to fit 80 columns
    for run in found:
        minutes, seconds = divmod(round(run.seconds), 60)
        listing.add_row(
            run.name,
            run.net or "?",
            Path(run.data).name if run.data else "?",
            f"{run.epochs}/{run.epochs_asked or '?'}",
            "-" if run.val_accuracy is None else f"{run.val_accuracy:.4f}",
            "-" if run.best_epoch is None else str(run.best_epoch),
            "-" if run.test_accuracy is None else f"{run.test_accuracy:.4f}",
            f"{minutes // 60}:{minutes % 60:02}:{seconds:02}",
            _short(run.started),
            run.state,
        )
    return listing


def _short(time: float) -> str:
    """Format a time of this year as month, day and time, an earlier one as a date."""
    moment = datetime.fromtimestamp(time)
    return moment.strftime("%m-%d %H:%M" if moment.year == datetime.now().year else "%Y-%m-%d")
