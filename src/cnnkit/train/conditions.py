"""What the bits of a training depend on, besides fixed settings: compared when a run is resumed."""

import hashlib
from collections.abc import Mapping
from typing import Any

import PIL
import torch
from torch import nn

from cnnkit import __version__
from cnnkit.core.compiler import compiler_version
from cnnkit.core.modules import unwrapped
from cnnkit.core.processor import processor, processor_name
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.checkpoint import digest
from cnnkit.train.config import TrainConfig

__all__ = ["Conditions", "conditions", "differences", "first_conditions"]

Conditions = dict[str, Any]
STEADY = ("constant", "step")  # schedules that do not depend on when a training ends
# what is too long to be told, and what is said of it
OTHER = {
    "images": "the images have changed",
    "plan": "another plan",
    "instructions": "other instructions or caches of the processor",
    "initial_weights": "other initial weights",
}


def first_conditions(
    net: nn.Module, config: TrainConfig, images: str, device: torch.device, processes: int
) -> Conditions:
    """Return what the bits depend on at the first step, where `net` has its initial weights."""
    weights = digest(dict(unwrapped(net).state_dict()))
    return conditions(config, images, device, processes) | {"initial_weights": weights}


def conditions(
    config: TrainConfig, images: str, device: torch.device, processes: int, plan: Plan | None = None
) -> Conditions:
    """Return what the bits depend on here: `images` is a digest of the images, the plan is known once there is one.

    Of the settings those count that a resumed run may change.
    """
    threads = (plan and plan.torch_threads) or torch.get_num_threads()
    facts: Conditions = {
        "images": images,
        "cnnkit": __version__,
        "torch": str(torch.__version__),  # a class of its own
        "Pillow": PIL.__version__,
        "device": device.type,
        "processor": processor_name(),
        "instructions": hashlib.sha256(processor().encode()).hexdigest()[:8],
        "processes": processes,
        "threads": threads,
        "accumulate": config.accumulate,
        "epochs": None if config.schedule in STEADY else config.epochs,
    }
    if plan is None:
        return facts
    compiled = plan.engine == "lanes" or plan.pooling == "compiled"
    return facts | {"plan": plan.model_dump(mode="json"), "compiler": compiler_version() if compiled else ""}


def differences(then: Mapping[str, Any], now: Conditions) -> list[str]:
    """Return what keeps a resumed run from the same bits: what has changed since `then`, in words."""
    if not then.keys() >= now.keys():
        return ["the run is of an earlier version, which did not note what its bits depend on"]
    others = [name for name, value in now.items() if then[name] != value]
    named = [
        OTHER[name] if name in OTHER else f"{name} {now[name]} instead of {then[name]}"
        for name in others
        if not (name == "instructions" and "processor" in others)
    ]
    order = [] if now["device"] == "cpu" else [f"{now['device']} adds up in no fixed order"]
    return named + order
