"""Search spaces, and sweeps by the command line."""

import json
from pathlib import Path

from cnnkit.experiment.sweep.study import Study
from helpers.cli import Cli

FIXED = 'net = "lenet"\nepochs = 2\nbatch_size = 256\n'
LR = "lr = {low = 1e-3, high = 0.1, log = true}\n"


def write(space: str, fixed: str = FIXED, path: str = "space.toml") -> str:
    Path(path).write_text(f"{fixed}\n[space]\n{space}")
    return path


def search(cli: Cli, *arguments: object) -> list[dict]:
    result = cli("sweep", "-c", "space.toml", "--json", *arguments)
    assert result.code == 0, result.err
    return json.loads(result.out)["trials"]


def joined(storage: str, total: int) -> Study:
    return Study(storage, "study", total, 0, "none", {"lr": 1})
