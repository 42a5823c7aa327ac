"""The conditions that a bit-exact resume depends on, besides the fixed settings: versions, processor, images, plan."""

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
STEADY = ("constant", "step")  # schedules that do not depend on the number of epochs
# how to report a difference between values that are too long to print
DESCRIPTIONS = {
    "images": "the images have changed",
    "plan": "a different plan",
    "instructions": "different instructions or caches of the processor",
    "initial_weights": "different initial weights",
}


def first_conditions(
    net: nn.Module, config: TrainConfig, images: str, device: torch.device, processes: int
) -> Conditions:
    """Return the conditions of the first step, where `net` has its initial weights."""
    weights = digest(dict(unwrapped(net).state_dict()))
    return conditions(config, images, device, processes) | {"initial_weights": weights}


def conditions(
    config: TrainConfig, images: str, device: torch.device, processes: int, plan: Plan | None = None
) -> Conditions:
    """Return the conditions in this process; `images` is a digest, `plan` is None before it is chosen.

    Of the settings, only those that a resumed run may change are included.
    """
    threads = (plan and plan.torch_threads) or torch.get_num_threads()
    facts: Conditions = {
        "images": images,
        "cnnkit": __version__,
        "torch": str(torch.__version__),  # torch's is a subclass of str
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
    """Describe what keeps a resumed run from being bit-exact: what has changed since `then`."""
    if not then.keys() >= now.keys():
        return ["the run is from an earlier version, which did not record its conditions"]
    others = [name for name, value in now.items() if then[name] != value]
    named = [
        DESCRIPTIONS.get(name) or f"{name} {now[name]} instead of {then[name]}"
        for name in others
        if not (name == "instructions" and "processor" in others)
    ]
    order = [] if now["device"] == "cpu" else [f"{now['device']} does not sum in a fixed order"]
    return named + order
