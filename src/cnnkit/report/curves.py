"""The curves of several runs over a common axis."""

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
    """A panel for each metric, the short names of the runs in it, and of those that have no epoch yet."""

    panels: list[Panel]
    names: list[str]
    empty: list[str]


def run_curves(runs: Sequence[Path], metrics: Sequence[str]) -> RunCurves:
    """Return the curves of run folders, of the metrics named: loss, accuracy, lr, time, speed.

    Raises UsageError for an unknown metric or a folder that is no run, CnnkitError if no epoch is finished in any.
    """
    panels({}, metrics)  # a wrong name is told before files are read
    names = [path.resolve().name for path in runs]
    if len(set(names)) < len(names):
        names = list(map(str, runs))
    rows = {name: read_metrics(RunFolder.open(path).path) for name, path in zip(names, runs, strict=True)}
    empty = [name for name, some in rows.items() if not some]
    if len(empty) == len(rows):
        raise CnnkitError(f"{', '.join(empty)}: no epoch is finished yet; there is nothing to draw")
    filled = {name: some for name, some in rows.items() if some}
    return RunCurves(panels(filled, metrics), list(filled), empty)
