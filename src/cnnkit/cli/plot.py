"""`cnnkit plot`: the training curves of runs."""

from pathlib import Path

__all__ = ["plot"]


def plot(
    *runs: Path,
    output: Path | None = None,
    metric: list[str] | None = None,
) -> None:
    """Plot the training curves of one or more runs in the terminal.

    Several runs share the axes. Training curves are solid, validation curves dashed.

    Parameters
    ----------
    runs
        Run folders.
    output
        Also write the curves to this file, side by side: .png, .svg or .pdf.
    metric
        Metric: loss, accuracy, lr, time or speed; repeat it for more. By default loss and accuracy.
    """
    from cnnkit.cli.console import console
    from cnnkit.core.errors import UsageError
    from cnnkit.figures import Plot, text_plot
    from cnnkit.report import run_curves

    if not runs:
        raise UsageError("no run given; write cnnkit plot RUN (`cnnkit runs` lists them)")
    metrics = metric or ["loss", "accuracy"]
    curves = run_curves(runs, metrics)
    if output:
        Plot(curves.panels, curves.names[0] if len(curves.names) == 1 else "").save(output)
    for panel in curves.panels:
        print(text_plot(panel))
    for name in curves.empty:
        console.say(f"{name}: no finished epoch yet")
    if output:
        console.say(f"{output}: {', '.join(metrics)} of {', '.join(curves.names)}")
