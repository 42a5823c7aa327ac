"""The curves of several runs on common axes."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cnnkit.core.errors import CnnkitError
from cnnkit.experiment.history import panels, read_metrics
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.figures.curves import Panel

__all__ = ["RunCurves", "run_curves"]


@dataclass(frozen=True)
class RunCurves:
    """A panel for each metric, the names of the runs in it, and of those without a finished epoch."""

    panels: list[Panel]
    names: list[str]
    empty: list[str]


def run_curves(runs: Sequence[Path], metrics: Sequence[str]) -> RunCurves:
    """Return the curves of run folders for the named metrics: loss, accuracy, lr, time, speed.

    Raises UsageError for an unknown metric or a folder that is not a run, CnnkitError if no run has a finished epoch.
    """
    panels({}, metrics)  # report a wrong name before reading files
    names = [path.resolve().name for path in runs]
    if len(set(names)) < len(names):
        names = list(map(str, runs))
    rows = {name: read_metrics(RunFolder.open(path).path) for name, path in zip(names, runs, strict=True)}
    empty = [name for name, some in rows.items() if not some]
    if len(empty) == len(rows):
        raise CnnkitError(f"{', '.join(empty)}: no finished epoch yet; there is nothing to plot")
    filled = {name: some for name, some in rows.items() if some}
    return RunCurves(panels(filled, metrics), list(filled), empty)
