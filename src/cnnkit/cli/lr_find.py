"""`cnnkit lr-find`: a learning rate from a short run in which it grows."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cnnkit.cli.options import ConfigFile, Json, Net
from cnnkit.experiment.config import RunConfig, merge
from cnnkit.train.config import MAX_RATE

__all__ = ["lr_find"]

MAX_STEPS = 10**6  # points of the curve


def lr_find(
    net: Net = None,
    *,
    config: ConfigFile = None,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    output: Path | None = None,
    json: Json = False,
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Find a learning rate with a short run in which it grows from step to step.

    The loss is plotted against the learning rate, and the rate where it falls fastest is suggested for --lr of `cnnkit
    train`. The trained weights are discarded. All settings of `cnnkit train` apply except the schedule.

    Parameters
    ----------
    low
        First learning rate.
    high
        Last learning rate; the run stops earlier if the loss diverges.
    steps
        Number of training steps.
    output
        Write the curve to this file: .png, .svg or .pdf.
    """
    from rich.progress import track

    from cnnkit.cli.console import complain, console, given_flags, print_json
    from cnnkit.core.errors import UsageError
    from cnnkit.experiment.build import build
    from cnnkit.figures import Panel, Plot, Series, text_plot
    from cnnkit.train.lr_find import lr_range_test, suggest_lr

    if not 0 < low < high <= MAX_RATE or not 2 <= steps <= MAX_STEPS:
        raise UsageError(
            f"--low must be above 0 and below --high, --high at most {MAX_RATE:g}, and --steps 2 to {MAX_STEPS:,}; "
            f"got --low {low:g} --high {high:g} --steps {steps}"
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
    panel = Panel(job.stem, "learning rate", "smoothed loss", [Series("loss", rates, losses)], log_x=True)
    print(text_plot(panel))
    console.say(f"the loss falls fastest at {rate:.2g}: try --lr {rate:.2g}")
    if output:
        Plot([panel]).save(output)
