"""`cnnkit plot`: the curves of runs."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cnnkit.core.errors import CnnkitError, UsageError, unknown

if TYPE_CHECKING:
    from cnnkit.report import Panel

Rows = list[dict[str, Any]]

__all__ = ["plot"]

METRICS = {  # title, label with its unit, and the figures of metrics.jsonl: training, validation
    "loss": ("Loss", "cross entropy (nats)", "train_loss", "val_loss"),
    "accuracy": ("Accuracy", "share of the images", "train_accuracy", "val_accuracy"),
    "lr": ("Learning rate", "at the end of the epoch", "lr"),
    "time": ("Time", "training time per epoch (s)", "seconds"),
    "speed": ("Speed", "training images per second", "images_per_second"),
}


def plot(
    *runs: Path,
    output: Path | None = None,
    metric: Annotated[list[str] | None, Parameter(negative=())] = None,
) -> None:
    """Draw the curves of one or several runs in the terminal: training solid, validation dashed.

    Parameters
    ----------
    runs
        Run folders.
    output
        A picture to draw too, side by side: .png, .svg or .pdf.
    metric
        loss, accuracy, lr, time or speed; give it again for more. Without it, loss and accuracy.
    """
    from cnnkit.cli.console import console
    from cnnkit.report import print_plot, save_figure

    metrics = metric or ["loss", "accuracy"]
    for name in metrics:
        if name not in METRICS:
            raise unknown("metric", name, METRICS)
    rows, empty = _read(runs)
    panels = [_panel(name, rows) for name in metrics]
    if output:
        save_figure(output, panels, title=next(iter(rows)) if len(rows) == 1 else "")
    for panel in panels:
        print_plot(panel)
    for name in empty:
        console.print(f"{name}: no epoch is finished yet", markup=False, soft_wrap=True)
    if output:
        console.print(f"{output}: {', '.join(metrics)} of {', '.join(rows)}", markup=False, soft_wrap=True)


def _read(runs: tuple[Path, ...]) -> tuple[dict[str, Rows], list[str]]:
    """Return the metrics of the runs by a short name, and the names of those that have none yet."""
    from cnnkit.report import read_metrics
    from cnnkit.train.record import Run

    if not runs:
        raise UsageError("which runs? write cnnkit plot RUN; `cnnkit runs` lists them")
    names = [path.resolve().name for path in runs]
    if len(set(names)) < len(names):
        names = list(map(str, runs))
    rows = {name: read_metrics(Run.open(path).path) for name, path in zip(names, runs, strict=True)}
    empty = [name for name, some in rows.items() if not some]
    if len(empty) == len(rows):
        raise CnnkitError(f"{', '.join(empty)}: no epoch is finished yet; there is nothing to draw")
    return {name: some for name, some in rows.items() if some}, empty


def _panel(metric: str, rows: dict[str, Rows]) -> "Panel":
    from cnnkit.report import Panel, Series

    title, unit, *keys = METRICS[metric]
    series = []
    for colour, (name, some) in enumerate(rows.items()):
        for dashed, key in enumerate(keys):
            label = "validation" if dashed else "training"
            points = [(row["epoch"], row[key]) for row in some if row[key] is not None]
            if points:
                x, y = zip(*points, strict=True)
                series.append(Series(label if len(rows) == 1 else f"{name} {label}", x, y, bool(dashed), colour))
    return Panel(title, "epoch", unit, series)
