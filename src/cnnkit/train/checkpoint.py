"""Checkpoints: everything that a run needs to go on, in files that are whole or not there."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils._pytree import keystr, tree_flatten_with_path

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write

__all__ = ["digest", "earlier", "load_checkpoint", "load_newest", "save_checkpoint"]

FORMAT = 2


def save_checkpoint(path: Path, state: dict[str, Any], keep: int = 1) -> None:
    """Write `state` (tensors, numbers, strings, lists, dicts), whole or not at all, and keep the `keep` newest files.

    The one before `last.ckpt` is called `last.1.ckpt`, and so on. Raises CnnkitError, and keeps the earlier files, if
    the disk does not take it.
    """
    content = {"format": FORMAT, "sha256": digest(state), **state}
    new = path.with_name(f"{path.stem}.new{path.suffix}")
    atomic_write(new, lambda file: torch.save(content, file))
    kept = [path, *(_numbered(path, number) for number in range(1, keep))]
    for older, newer in zip(kept[:0:-1], kept[-2::-1], strict=True):
        if newer.exists():
            newer.replace(older)
    new.replace(path)


def earlier(path: Path) -> Iterator[Path]:
    """Yield the checkpoint files that are there, the newest first."""
    kept = {
        candidate.stem.rpartition(".")[2]: candidate for candidate in path.parent.glob(f"{path.stem}.*{path.suffix}")
    }
    numbered = sorted((name for name in kept if name.isdecimal()), key=int)
    candidates = [path, *(kept[name] for name in ("new", *numbered) if name in kept)]
    yield from (candidate for candidate in candidates if candidate.exists())


def load_newest(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Return the state in the newest undamaged file of `path` and those kept before it, and what was wrong with others.

    Raises CnnkitError if there is none.
    """
    wrong: list[str] = []
    for candidate in earlier(path):
        try:
            return load_checkpoint(candidate), wrong
        except CnnkitError as error:
            wrong.append(str(error))
    if not wrong:
        raise CnnkitError(f"{path}: there is no checkpoint to continue from; start the run anew")
    raise CnnkitError(f"{'; '.join(wrong)}; best/ may still be good")


def load_checkpoint(path: Path) -> dict[str, Any]:
    """Return what `save_checkpoint` wrote, on the CPU, without running any code from the file.

    Raises CnnkitError if the file is missing, damaged, or of another format.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError as error:
        raise CnnkitError(f"{path}: there is no such checkpoint") from error
    except Exception as error:  # torch.load meets damage with errors of many types
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CnnkitError(f"{path}: the checkpoint is damaged ({reason})") from error
    if not isinstance(state, dict) or state.get("format") != FORMAT:
        raise CnnkitError(f"{path}: not a checkpoint of format {FORMAT}, which this version of cnnkit reads")
    if state.pop("sha256") != digest({name: value for name, value in state.items() if name != "format"}):
        raise CnnkitError(f"{path}: the checkpoint is damaged (its sha256 is another)")
    return state


def _numbered(path: Path, number: int) -> Path:
    return path.with_name(f"{path.stem}.{number}{path.suffix}")


def digest(state: dict[str, Any]) -> str:
    """Return the SHA-256 of all that the state holds; torch's own reader does not check the tensors' bytes."""
    found = hashlib.sha256()
    for path, leaf in tree_flatten_with_path(state)[0]:
        found.update(keystr(path).encode())
        if isinstance(leaf, torch.Tensor):
            found.update(leaf.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
        else:
            found.update(repr(leaf).encode())
    return found.hexdigest()
