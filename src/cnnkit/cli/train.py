"""`cnnkit train`: a training run in its own folder."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cnnkit.cli.options import Net
from cnnkit.experiment.config import RunConfig

__all__ = ["train"]


def train(
    net: Net = None,
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    resume: Path | None = None,
    allow_changed_data: Annotated[bool, Parameter(negative=())] = False,
    output: Path = Path("runs"),
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Train a network on images and save the weights with the best validation accuracy.

    Each run gets its own folder with its settings, log, metrics and data split, `last.ckpt` to resume from, and `best/`
    with the best weights for `evaluate` and `predict`. Ctrl-C saves a checkpoint and stops.
    To train with several processes: `torchrun --nproc-per-node 2 -m cnnkit train ...`.

    Parameters
    ----------
    config
        TOML file with settings, such as a run's config.toml; it overrides the recipe, and flags override it.
    resume
        Resume this run from its last checkpoint, with its own settings; without a value, the latest run in --output.
        --epochs extends the run.
    allow_changed_data
        With --resume, continue even if images of the run were deleted, replaced or moved to another class.
    output
        Parent folder of new run folders.
    """
    from cnnkit.cli.console import given_flags
    from cnnkit.experiment.launch import launch

    launch(
        given_flags(settings, net),
        file=config,
        output=output,
        resume=resume,
        allow_changed_data=allow_changed_data,
    )
