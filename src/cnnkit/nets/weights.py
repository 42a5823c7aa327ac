"""Tensors out of files of weights, and a network that takes them: its head may be another, and its input channels."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import DataError
from cnnkit.core.tensors import is_safetensors, read_safetensors, read_torch
from cnnkit.core.text import some

__all__ = ["Classes", "Loaded", "give_weights", "read_weights_file"]

# where the scripts of the field put the weights in a checkpoint
WRAPPERS = (
    "state_dict",
    "model_state_dict",
    "model",
    "net",
    "stepper",
    "model_ema",
    "state_dict_ema",
    "ema",
    "weights",
)
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and its like, and of torch.compile
OUTER = ("model.", "net.", "network.", "backbone.")  # what a training loop may call the network that it holds
COUNTERS = ("num_batches_tracked", "n_averaged")  # which older or averaged weights lack or have besides
Classes = tuple[Sequence[str], Sequence[str]]  # of the network, and of the weights


@dataclass(frozen=True)
class Loaded:
    """What a network took: tensors, of how many, with how many values; how many it left; and what was changed."""

    tensors: int
    total: int
    values: int
    skipped: int
    changes: tuple[str, ...]

    def __str__(self) -> str:
        words = f"{self.tensors:,} of {self.total:,} tensors loaded ({self.values:,} values), {self.skipped:,} skipped"
        return "; ".join([words, *self.changes])


def give_weights(
    net: nn.Module,
    given: Mapping[str, Tensor],
    source: str,
    num_classes: int,
    *,
    new_head: bool = False,
    classes: Classes | None = None,
) -> Loaded:
    """Load tensors, by the names of the network's own, and return what became of them.

    The head is what is called so, or else the last layer with `num_classes` outputs. With `new_head` it stays as it
    was initialised if the weights have another, or none. With the names of the `classes`, what the head knows of
    classes of the same name is taken over, and the others stay as initialised. A first convolution for other channels
    takes the sum of the given ones for 1, else these in turn, scaled so that the output keeps its size. Raises
    DataError, which names tensors, for weights of another network; `source` says where they come from.
    """
    own, given = net.state_dict(), dict(given)
    floats = {key for key, value in own.items() if value.is_floating_point()}
    whole = [key for key, value in given.items() if key in floats and not value.is_floating_point()]
    if kinds := [f"{key} is {given[key].dtype}, not {own[key].dtype}".replace("torch.", "") for key in whole]:
        raise DataError(f"{source}: {some(kinds)}")
    head = _head(net, own, num_classes)
    changes: list[str] = []
    fresh: set[str] = set()
    others = classes is not None and tuple(classes[0]) != tuple(classes[1])
    if classes and others and (known := _match_classes(own, given, head, classes)):
        changes.append(
            f"{known:,} of {num_classes:,} classes are known by name{', the others new' * (known < num_classes)}"
        )
    wrong = [key for key in own if key in given and given[key].shape != own[key].shape]
    unfit = any(key in head for key in wrong) or not any(key in given for key in head)
    if new_head and (unfit or (others and not changes)):
        fresh = set(head)
        changes.append(f"the head is new, for {num_classes:,} classes")
    missing = [key for key in own if key not in given and key not in fresh and not key.endswith(COUNTERS)]
    unknown = [key for key in given if key not in own]
    if missing or unknown:
        verbs = [f"{verb} {some(keys)}" for verb, keys in (("lacks", missing), ("has also", unknown)) if keys]
        raise DataError(f"{source}: {'; '.join(verbs)}")
    first = next((key for key, value in own.items() if value.ndim == 4), None)
    if first in wrong and (adapted := _adapted(given[first], own[first].shape)) is not None:
        changes.append(f"{first} is adapted from {given[first].shape[1]} to {own[first].shape[1]} channels")
        given[first] = adapted
    if wrong := [key for key in wrong if key not in fresh and given[key].shape != own[key].shape]:
        differ = some([f"{key} is {tuple(given[key].shape)}, not {tuple(own[key].shape)}" for key in wrong])
        hint = "; for a new head give num_classes" if wrong[0] in head else ""
        raise DataError(f"{source}: {differ}{hint}")
    taken = {key: value for key, value in given.items() if key not in fresh}
    if bad := [key for key in taken if key in floats and not taken[key].to(own[key].dtype).isfinite().all()]:
        raise DataError(f"{source}: NaN or Inf in {some(bad)}")
    net.load_state_dict(own | taken)
    values = sum(value.numel() for value in taken.values())
    return Loaded(len(taken), len(own), values, len(given) - len(taken), tuple(changes))


def read_weights_file(path: Path, source: str = "") -> dict[str, Tensor]:
    """Return the tensors in a .safetensors file or in one that torch.save wrote, by name; no code in it is run.

    What a training wraps around a network's state is taken off: a dictionary around it, and what DataParallel or
    torch.compile put in front of its names. Raises DataError, which names the file or the `source` that it came from,
    for what is missing, corrupt or no weights.
    """
    source = source or str(path)
    try:
        given: Any = read_safetensors(path) if is_safetensors(path) else read_torch(path)
    except FileNotFoundError as error:
        raise DataError(f"{source}: no such file of weights") from error
    except IsADirectoryError as error:
        raise DataError(
            f"{source}: a folder; name the file of weights in it, such as best/model.safetensors"
        ) from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error
    while isinstance(given, Mapping) and (inner := [given[w] for w in WRAPPERS if isinstance(given.get(w), Mapping)]):
        given = inner[0]
    if not isinstance(given, Mapping) or not given or not all(isinstance(key, str) for key in given):
        raise DataError(f"{source}: not a file of weights: it must hold tensors by name")
    if strange := [key for key, value in given.items() if not isinstance(value, Tensor)]:
        raise DataError(f"{source}: not a file of weights: {some(strange)} hold no tensors")
    named = {_bare(key): value for key, value in given.items() if key != "n_averaged"}  # AveragedModel's own counter
    for outer in OUTER:
        if all(key.startswith(outer) for key in named):
            named = {key.removeprefix(outer): value for key, value in named.items()}
    return named


def _bare(key: str) -> str:
    while prefix := next((prefix for prefix in PREFIXES if key.startswith(prefix)), ""):
        key = key.removeprefix(prefix)
    return key


def _head(net: nn.Module, own: Mapping[str, Tensor], num_classes: int) -> list[str]:
    """Return the names of the tensors that give the classes."""
    stages = [name for name, _ in net.named_children()]
    if stages and stages[-1] == "head":
        return [key for key in own if key.startswith("head.")]
    layers = [key.rpartition(".")[0] for key, value in own.items() if value.ndim > 1 and len(value) == num_classes]
    return [key for key in own if layers and key.rpartition(".")[0] == layers[-1]]


def _match_classes(own: Mapping[str, Tensor], given: dict[str, Tensor], head: Collection[str], classes: Classes) -> int:
    """Put what the given head knows of each class where the network has it; return how many classes it knows."""
    ours, theirs = classes
    pairs = [(ours.index(name), theirs.index(name)) for name in ours if name in theirs]
    layers = {key.rpartition(".")[0] for key in head}
    fits = all(key in given and given[key].shape[1:] == own[key].shape[1:] for key in head)
    if len(layers) > 1 or not fits or not pairs:
        return 0
    to, source = (torch.tensor(rows) for rows in zip(*pairs, strict=True))
    for key in head:
        rows = own[key].clone()
        rows[to] = given[key][source].to(rows.device, rows.dtype)
        given[key] = rows
    return len(pairs)


def _adapted(weight: Tensor, shape: torch.Size) -> Tensor | None:
    """Return a first convolution's weights O x C x kh x kw for the channels of `shape`, if that is all that differs."""
    if weight.ndim != 4 or not weight.shape[1] or weight[:, 0].shape != (shape[0], *shape[2:]):
        return None
    given, wanted = weight.shape[1], shape[1]
    if wanted == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(wanted) % given] * (given / wanted)
