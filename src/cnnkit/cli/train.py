"""`cnnkit train`: a network, data and settings in a run folder."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cnnkit.experiment.config import RunConfig

__all__ = ["train"]


def train(
    net: str | None = None,
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    resume: Path | None = None,
    allow_changed_data: Annotated[bool, Parameter(negative=())] = False,
    output: Path = Path("runs"),
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Train a network and keep the best of it.

    The run gets a folder of its own: settings, log, metrics, the split, `last.ckpt` to resume from, and
    `best/`, the weights of the best validation accuracy, for `evaluate` and `predict`. Ctrl-C saves and leaves.
    `torchrun --nproc-per-node 2 -m cnnkit train ...` trains with several processes.

    Parameters
    ----------
    net
        A name from `cnnkit nets`.
    config
        A TOML file of settings, such as a run's config.toml; flags override it, it overrides the recipe.
    resume
        A run folder to continue from its last checkpoint, with its own settings; without a name, the latest in
        --output. --epochs extends it.
    allow_changed_data
        With --resume: go on although images of the run were deleted, replaced or moved to another class since.
    output
        Where run folders are made.
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
