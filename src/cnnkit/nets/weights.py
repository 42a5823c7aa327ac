"""Reading files of weights, and loading them into a network that may have another head or other input channels."""

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

# keys under which common training scripts store the weights in a checkpoint
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
PREFIXES = ("module.", "_orig_mod.")  # of DataParallel and similar wrappers, and of torch.compile
OUTER = ("model.", "net.", "network.", "backbone.")  # attributes that hold the network in common training code
COUNTERS = ("num_batches_tracked", "n_averaged")  # that older weights lack, or averaged ones add
Classes = tuple[Sequence[str], Sequence[str]]  # of the network, and of the weights


@dataclass(frozen=True)
class Loaded:
    """The result of loading: tensors loaded, of the network's total, their values; tensors skipped; changes made."""

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
    """Load tensors into the network by name, and return what was loaded.

    The head is the stage of that name, or else the last layer with `num_classes` outputs. With `new_head` it keeps its
    initial weights if the given ones have another head, or none. With `classes`, the head's rows are copied for
    classes of the same name, and the others keep their initial weights. A first convolution for other channels is
    adapted: for 1 channel the given ones are summed, else repeated and scaled so that the output keeps its magnitude.
    Raises DataError, which names tensors and the `source`, for weights of another network.
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
            f"{known:,} of {num_classes:,} classes matched by name{', the others new' * (known < num_classes)}"
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
        hint = "; for a new head pass num_classes" if wrong[0] in head else ""
        raise DataError(f"{source}: {differ}{hint}")
    taken = {key: value for key, value in given.items() if key not in fresh}
    if bad := [key for key in taken if key in floats and not taken[key].to(own[key].dtype).isfinite().all()]:
        raise DataError(f"{source}: NaN or Inf in {some(bad)}")
    net.load_state_dict(own | taken)
    values = sum(value.numel() for value in taken.values())
    return Loaded(len(taken), len(own), values, len(given) - len(taken), tuple(changes))


def read_weights_file(path: Path, source: str = "") -> dict[str, Tensor]:
    """Return the tensors in a .safetensors file or a file of torch.save by name, without running code in it.

    Dictionaries around the weights and prefixes of DataParallel and torch.compile are removed. Raises DataError, which
    names the `source` (by default the file), for a file that is missing, corrupt or not a weights file.
    """
    source = source or str(path)
    try:
        given: Any = read_safetensors(path) if is_safetensors(path) else read_torch(path)
    except FileNotFoundError as error:
        raise DataError(f"{source}: no such file") from error
    except IsADirectoryError as error:
        raise DataError(f"{source}: a folder; pass the weights file in it, such as best/model.safetensors") from error
    except OSError as error:
        raise DataError(f"{source}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise DataError(f"{source}: {error}") from error
    while isinstance(given, Mapping) and (inner := [given[w] for w in WRAPPERS if isinstance(given.get(w), Mapping)]):
        given = inner[0]
    if not isinstance(given, Mapping) or not given or not all(isinstance(key, str) for key in given):
        raise DataError(f"{source}: not a weights file: it must hold a dictionary of tensors")
    if strange := [key for key, value in given.items() if not isinstance(value, Tensor)]:
        raise DataError(f"{source}: not a weights file: these entries are not tensors: {some(strange)}")
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
    """Return the names of the head's tensors."""
    stages = [name for name, _ in net.named_children()]
    if stages and stages[-1] == "head":
        return [key for key in own if key.startswith("head.")]
    layers = [key.rpartition(".")[0] for key, value in own.items() if value.ndim > 1 and len(value) == num_classes]
    return [key for key in own if layers and key.rpartition(".")[0] == layers[-1]]


def _match_classes(own: Mapping[str, Tensor], given: dict[str, Tensor], head: Collection[str], classes: Classes) -> int:
    """Copy the given head's rows of known classes to the network's positions; return the number of known classes."""
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
    """Return a first convolution's weights O x C x kh x kw for the channels of `shape`, if only these differ."""
    if weight.ndim != 4 or not weight.shape[1] or weight[:, 0].shape != (shape[0], *shape[2:]):
        return None
    given, wanted = weight.shape[1], shape[1]
    if wanted == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(wanted) % given] * (given / wanted)
