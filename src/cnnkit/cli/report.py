"""`cnnkit report`: a page that shows whether a trained network can be trusted."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cnnkit.cli.options import Json

__all__ = ["report"]


def report(
    run: Annotated[Path, Parameter(help="Run folder.")],
    *,
    split: Literal["train", "validation", "test"] | None = None,
    output: Path | None = None,
    json: Json = False,
) -> None:
    """Write a report on a run as one HTML page: accuracy, mistakes, calibration, explanations, data, settings.

    The page needs no other file and no connection, and has at most 2 MB. The numbers are written beside it as JSON.
    Nothing is trained; the network runs on the split only if the run folder has no predictions of its weights.

    Parameters
    ----------
    split
        Split of the run's own data; by default test, or validation if there are no test images.
    output
        Output file; by default report.html in the run folder.
    """
    from cnnkit.cli.console import console, print_json
    from cnnkit.core.places import expanded
    from cnnkit.report import run_report

    made = run_report(run, split)
    target = made.save(output and expanded(output))
    if json:
        print_json(made.to_dict())
        return
    for sentence in made.headline.sentences:
        console.say(sentence)
    console.say(f"{target}: {target.stat().st_size / 1e6:.2f} MB")
