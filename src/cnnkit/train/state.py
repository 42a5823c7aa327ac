"""The schema of the state in a checkpoint: a run loads all of it or none of it."""

from collections.abc import Mapping
from typing import Annotated, Any, NamedTuple

import torch
from pydantic import BaseModel, ConfigDict, Field, JsonValue
from torch import Tensor

from cnnkit.core.finite import not_finite
from cnnkit.core.limits import MAX_EPOCHS
from cnnkit.core.schema import Count, Number, Word, brief, validated
from cnnkit.core.text import some
from cnnkit.train.step import Stepper
from cnnkit.train.sums import EpochSums

__all__ = ["RESUMABLE_SETTINGS", "Resumed", "has_other_images", "require_fit"]

# settings that may change when a run is resumed
RESUMABLE_SETTINGS = {
    "epochs",
    "patience",
    "max_time",
    "device",
    "accumulate",
    "checkpoint_steps",
    "checkpoint_minutes",
    "keep",
}

Tensors = dict[Word, Any]  # a network's, by name; the extra state of a layer may be anything
Seconds = Annotated[float, Field(strict=True, ge=0, le=1e12)]


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Group(BaseModel):
    params: list[Count]  # everything else follows from the settings


class _Optimizer(_Plain):
    state: dict[Count, dict[Word, Any]]
    param_groups: list[_Group]


class _Average(_Plain):
    steps: Count
    net: Tensors


class _Stepper(_Plain):
    net: Tensors
    optimizer: _Optimizer
    scaler: dict[Word, Count | Number]
    average: _Average | None
    skipped: list[Count]
    num_skipped: Count


class _State(_Plain):
    format: Count
    config: dict[Word, JsonValue]
    conditions: dict[Word, JsonValue] = {}
    stepper: _Stepper
    epoch: Annotated[int, Field(strict=True, ge=1, le=MAX_EPOCHS + 1)]
    step: Count
    seconds: Seconds
    losses: Any
    correct: Any
    total_seconds: Seconds
    best: tuple[Number, Number] | None
    best_epoch: Count


class Resumed(NamedTuple):
    """How a run resumes: why newer checkpoints cannot be used, and what keeps it from being bit-exact."""

    wrong: list[str]
    differences: list[str]


def has_other_images(state: Mapping[str, Any], images: str) -> bool:
    """Return whether a state was saved in a run on images with another digest."""
    then = state.get("conditions")
    return isinstance(then, Mapping) and then.get("images", images) != images


def require_fit(
    state: Mapping[str, Any], stepper: Stepper, steps: int, settings: Mapping[str, Any], images: str
) -> None:
    """Raise ValueError, saying what is wrong, unless a stepper can load a state, in epochs of `steps` steps.

    If the state has other `images` (a digest), its epoch is not resumed and may have another number of steps. Its
    settings must be those of the training, except for RESUMABLE_SETTINGS. Loading it cannot fail afterwards: types,
    ranges, names, shapes and dtypes are the stepper's.
    """
    plain = validated(_State, state)
    for name, value in plain.config.items():
        if name not in settings or (name not in RESUMABLE_SETTINGS and value != settings[name]):
            raise ValueError(f"its {name} is {brief(value)}, here {brief(settings.get(name))}")
    own, found = stepper.state(), plain.stepper
    if has_other_images(state, images) and isinstance(plain.losses, Tensor) and plain.losses.ndim:
        steps = len(plain.losses)
    if plain.step >= max(steps, 1) or any(step >= plain.step for step in found.skipped):
        raise ValueError(f"it is at step {plain.step:,} of an epoch, which has {steps:,} here")
    if plain.best_epoch >= plain.epoch or (plain.best is not None and not plain.best_epoch):
        raise ValueError(f"its best epoch is {plain.best_epoch:,}, but it is in epoch {plain.epoch:,}")
    sums = EpochSums([1] * steps, torch.device("cpu"))
    _require_alike({"losses": plain.losses, "correct": plain.correct}, {"losses": sums.losses, "correct": sums.correct})
    sums.load(state)
    if wrong := sums.first_nonfinite(plain.step, found.skipped):
        raise ValueError(f"its loss at step {wrong[0] + 1:,} is {wrong[1]}")
    _require_weights(found.net, own["net"])
    if (found.average is None) != (own["average"] is None):
        raise ValueError("only one of the two has a moving average of the weights")
    if found.average:
        _require_weights(found.average.net, own["average"]["net"])
    if own["scaler"]:
        _require_scale(found.scaler, own["scaler"])
    _require_optimizer(found.optimizer, stepper.optimizer)


def _require_scale(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    if found.keys() != own.keys():
        raise ValueError(f"its loss scale has {some(sorted(found)) or 'nothing'}")
    for name, value in found.items():
        least = 0 if name == "_growth_tracker" else 1e-30
        if type(value) is not type(own[name]) or not least <= value < 2**31 + (name == "scale") * 1e38:
            raise ValueError(f"{name} of its loss scale is {brief(value)}")


def _require_weights(found: Tensors, own: Mapping[str, Any]) -> None:
    _require_alike(found, own)
    if wrong := not_finite({name: value for name, value in found.items() if isinstance(value, Tensor)}):
        raise ValueError(f"its weights hold {wrong}")


def _require_alike(found: Mapping[str, Any], own: Mapping[str, Any]) -> None:
    """Raise ValueError unless tensors have the names, shapes and dtypes of `own`."""
    if lacks := [name for name in own if name not in found]:
        raise ValueError(f"it lacks {some(lacks)}")
    if more := [name for name in found if name not in own]:
        raise ValueError(f"it has {some(more)}, which the network does not have")
    for name, value in found.items():
        if isinstance(own[name], Tensor):
            _require_tensor(name, value, own[name].shape, own[name].dtype)


def _require_tensor(name: str, value: Any, shape: torch.Size, dtype: torch.dtype) -> None:
    if not isinstance(value, Tensor) or value.layout != torch.strided or value.device.type != "cpu":
        raise ValueError(f"{name} is not a dense tensor")
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{name} is {tuple(value.shape)} of {value.dtype}, here {tuple(shape)} of {dtype}")


def _require_optimizer(found: _Optimizer, own: torch.optim.Optimizer) -> None:
    """Raise ValueError unless the optimiser could have reached this state by steps."""
    groups = own.state_dict()["param_groups"]
    if [group.params for group in found.param_groups] != [group["params"] for group in groups]:
        raise ValueError("its optimizer has other parameter groups")
    weights = [weight for group in own.param_groups for weight in group["params"]]
    template = _state_of_a_weight(own)
    for number, state in found.state.items():
        if number >= len(weights) or (state and state.keys() != template.keys()):
            raise ValueError(f"its optimizer has {some(sorted(state)) or 'nothing'} for weight {number:,}")
        for name, value in state.items():
            like = weights[number] if template[name].ndim else template[name]
            _require_tensor(f"{name} of weight {number:,}", value, like.shape, like.dtype)
            if value.isnan().any() or (not template[name].ndim and not 0 <= value < 2**53):
                raise ValueError(f"{name} of weight {number:,} has a value that no step results in")


def _state_of_a_weight(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Return an optimiser's state of a weight, found by a step on one: tensors of its shape, and scalars."""
    group = optimizer.param_groups[0]
    weight = torch.zeros(2, device=group["params"][0].device, requires_grad=True)
    weight.grad = torch.zeros_like(weight)
    kind: Any = type(optimizer)
    twin: torch.optim.Optimizer = kind([group | {"params": [weight]}])
    twin.step()
    return {name: value for name, value in twin.state[weight].items() if isinstance(value, Tensor)}
