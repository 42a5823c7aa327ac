"""What the bits of a training depend on, besides its settings and data: compared when a run is resumed."""

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
from cnnkit.train.checkpoint import digest
from cnnkit.train.plan import Plan

__all__ = ["Conditions", "conditions", "differences", "first_conditions"]

Conditions = dict[str, Any]
# what is too long to be told, and what is said of it
OTHER = {
    "plan": "another plan",
    "instructions": "other instructions or caches of the processor",
    "initial_weights": "other initial weights",
}


def first_conditions(net: nn.Module, device: torch.device, processes: int) -> Conditions:
    """Return what the bits depend on at the first step, where `net` has its initial weights."""
    return conditions(device, processes) | {"initial_weights": digest(dict(unwrapped(net).state_dict()))}


def conditions(device: torch.device, processes: int, plan: Plan | None = None) -> Conditions:
    """Return what the bits depend on here, with the plan once there is one."""
    threads = (plan and plan.torch_threads) or torch.get_num_threads()
    facts: Conditions = {
        "cnnkit": __version__,
        "torch": str(torch.__version__),  # a class of its own
        "Pillow": PIL.__version__,
        "device": device.type,
        "processor": processor_name(),
        "instructions": hashlib.sha256(processor().encode()).hexdigest()[:8],
        "processes": processes,
        "threads": threads,
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
