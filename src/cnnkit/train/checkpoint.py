"""Checkpoints: everything that a run needs to go on, in one file that is whole or not there."""

import hashlib
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write

__all__ = ["load_checkpoint", "save_checkpoint"]

FORMAT = 1


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts), whole or not at all.

    Raises CnnkitError, and keeps the earlier file, if the disk does not take it.
    """
    content = {"format": FORMAT, "sha256": _digest(state), **state}
    atomic_write(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, on the CPU, without running any code from the file.

    Raises CnnkitError if the file is missing, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CnnkitError(f"{path}: there is no checkpoint to continue from; start the run anew") from error
    except Exception as error:  # torch.load meets damage with errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CnnkitError(f"{path}: the checkpoint is damaged ({reason}); best/ may still be good") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CnnkitError(f"{path}: not a checkpoint of format {FORMAT}, which this version of cnnkit reads")
    if state.pop("sha256") != _digest({name: value for name, value in state.items() if name != "format"}):
        raise CnnkitError(f"{path}: the checkpoint is damaged (its sha256 is another); best/ may still be good")
    return state


def _digest(state: dict[str, Any]) -> str:
    """Return the SHA-256 of all that the state holds; torch's own reader does not check the tensors' bytes."""
    digest = hashlib.sha256()
    for path, leaf in tree_flatten_with_path(state)[0]:
        digest.update(keystr(path).encode())
        if isinstance(leaf, torch.Tensor):
            digest.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            digest.update(repr(leaf).encode())
    return digest.hexdigest()
