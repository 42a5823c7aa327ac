"""`cnnkit lr-find`: a learning rate, found by trying them all in one short run."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cnnkit.experiment.config import RunConfig, merge
from cnnkit.train.config import MAX_RATE

__all__ = ["lr_find"]

MAX_STEPS = 10**6  # a point of the curve each


def lr_find(
    net: str | None = None,
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    output: Path | None = None,
    json: bool = False,
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Find a learning rate: train briefly with ever larger ones, and see where the loss falls the steepest.

    Nothing is kept of the training. All settings of `cnnkit train` apply, but the schedule.

    Parameters
    ----------
    net
        A name from `cnnkit nets`.
    config
        A TOML file of settings, such as a run's config.toml.
    low
        The learning rate to begin with.
    high
        The learning rate to end with; the run ends before it when the loss explodes.
    steps
        Steps in between.
    output
        A file to draw the curve into: .png, .svg or .pdf.
    json
        Print JSON.
    """
    from rich.progress import track

    from cnnkit.cli.console import complain, console, given_flags, print_json
    from cnnkit.core.errors import UsageError
    from cnnkit.experiment.build import build
    from cnnkit.figures import Panel, Plot, Series, text_plot
    from cnnkit.train.lr_find import lr_range_test, suggest_lr

    if not 0 < low < high <= MAX_RATE or not 2 <= steps <= MAX_STEPS:
        raise UsageError(
            f"--low must be above 0 and below --high, this at most {MAX_RATE:g}, and --steps 2 to {MAX_STEPS:,}, "
            f"not {low:g}, {high:g}, {steps}"
        )
    job = build(merge(given_flags(settings, net), config))
    for remark in job.remarks:
        complain(remark)
    test = lr_range_test(job.net, job.training, job.config, low, high, steps)
    hidden = json or not console.is_terminal
    points = [*track(test, "learning rates", steps, console=console, transient=True, disable=hidden)]
    rate = suggest_lr(points)
    if json:
        print_json({"suggestion": rate, "points": [{"lr": lr, "loss": loss} for lr, loss in points]})
        return
    rates, losses = zip(*points, strict=True)
    panel = Panel(job.stem, "learning rate", "loss, smoothed", [Series("loss", rates, losses)], log_x=True)
    print(text_plot(panel))
    console.say(f"the loss falls the steepest at {rate:.2g}: try --lr {rate:.2g}")
    if output:
        Plot([panel]).save(output)
