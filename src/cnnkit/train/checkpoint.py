"""Checkpoints: everything that a run needs to go on, in one file that is whole or not there."""

from pathlib import Path
from typing import Any

import torch

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write

__all__ = ["load_checkpoint", "save_checkpoint"]

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts), whole or not at all.

    Raises CnnkitError, and keeps the earlier file, if the disk does not take it.
    """
    content = {"format": FORMAT, **state}
    atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, on the CPU, without running any code from the file.

    Raises CnnkitError if the file is missing, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CnnkitError(f"{path}: there is no checkpoint to continue from") from error
    except Exception as error:  # torch.load meets damage with errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CnnkitError(f"{path}: the checkpoint is damaged ({reason}); best/ may still be good") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CnnkitError(f"{path}: not a checkpoint of format {FORMAT}, which this version of cnnkit reads")
    return state
