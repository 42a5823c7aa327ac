"""Checkpoints: everything that a run needs to resume, in files that are complete or absent."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write
from cnnkit.core.memory import free_bytes
from cnnkit.core.tensors import read_torch

__all__ = ["digest", "earlier", "load_checkpoint", "load_newest", "save_checkpoint"]

FORMAT = 2


def save_checkpoint(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts) atomically, and keep the `keep` newest files.

    The previous `last.ckpt` becomes `last.1.ckpt`, and so on. Raises CnnkitError, and leaves the earlier files, if it
    cannot be written.
    """
    content = {"format": FORMAT, "sha256": digest(state), **state}
    new = path.with_name(f"{path.stem}.new{path.suffix}")
    atomic_write(new, lambda file: torch.save(content, file))
    files = [path, *(path.with_name(f"{path.stem}.{number}{path.suffix}") for number in range(1, keep))]
    for older, newer in zip(files[:0:-1], files[-2::-1], strict=True):
        if newer.exists():
            newer.replace(older)
    new.replace(path)


def earlier(path: Path) -> Iterator[Path]:
    """Yield the checkpoint files that exist, the newest first."""
    found = {file.stem.rpartition(".")[2]: file for file in path.parent.glob(f"{path.stem}.*{path.suffix}")}
    numbered = sorted((name for name in found if name.isdecimal()), key=int)
    candidates = [path, *(found[name] for name in ("new", *numbered) if name in found)]
    yield from (candidate for candidate in candidates if candidate.exists())


def load_newest(path: Path, require: Callable[[dict[str, Any]], None]) -> tuple[dict[str, Any], list[str]]:
    """Return the newest usable state of `path` and the files before it, and why newer ones cannot be used.

    `require` raises ValueError, with the reason alone, for a state that does not fit. Raises CnnkitError if no state
    can be used.
    """
    wrong: list[str] = []
    for candidate in earlier(path):
        try:
            state = load_checkpoint(candidate)
            require(state)
            return state, wrong
        except CnnkitError as error:
            wrong.append(str(error))
        except ValueError as error:
            wrong.append(f"{candidate}: the checkpoint does not fit this run ({error})")
    if not wrong:
        raise CnnkitError(f"{path}: there is no checkpoint to resume from; start the run again")
    raise CnnkitError(f"{'; '.join(wrong)}; start a new run from the best weights: --weights {path.parent}")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Load what `save_checkpoint` wrote onto the CPU, without running any code from the file.

    Raises CnnkitError if the file is missing, corrupt, or of another format.
    """
    try:
        state = read_torch(path, free_bytes(torch.device("cpu")))
    except OSError as error:
        raise CnnkitError(f"{path}: the checkpoint cannot be read ({error.strerror})") from error
    except ValueError as error:
        reason = str(error).partition(";")[0]  # the rest is about files of weights
        raise CnnkitError(f"{path}: not a usable checkpoint: {reason}") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CnnkitError(f"{path}: not a checkpoint of format {FORMAT}, which this version of cnnkit reads")
    expected = state.pop("sha256", None)
    if expected != digest({name: value for name, value in state.items() if name != "format"}):
        raise CnnkitError(f"{path}: the checkpoint is corrupt (its sha256 does not match)")
    return state


def digest(state: dict[str, Any]) -> str:
    """Return the SHA-256 of everything in the state; torch's reader does not verify the tensors' bytes."""
    found = hashlib.sha256()
    for path, leaf in tree_flatten_with_path(state)[0]:
        found.update(keystr(path).encode("utf-8", "surrogatepass"))
        if isinstance(leaf, torch.Tensor):
            found.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(repr(leaf).encode("utf-8", "surrogatepass"))
    return found.hexdigest()
