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

    Each run has its own folder, such as runs/lenet-digits-1, which no other run overwrites:

    - `best/`: a bundle of the best weights, for `cnnkit evaluate` and `cnnkit predict`
    - `last.ckpt`: the latest checkpoint, for --resume; earlier ones are numbered
    - `config.toml`: all settings, also for --config
    - `metrics.jsonl`: the results of each epoch
    - `log.txt`: what was displayed
    - `split.json`: which images are for training, validation and testing
    - `environment.json`: the machine, versions and the command
    - `plan.json`: how steps are computed on this machine

    Ctrl-C saves a checkpoint and stops. With several processes: `torchrun --nproc-per-node 2 -m cnnkit train ...`

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
