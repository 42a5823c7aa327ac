"""Which device computes, and the one seed behind every random number."""

import hashlib

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError

__all__ = ["mix_seed", "pick_device", "seed_device", "seed_everything", "send", "wait_for"]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; where that is a GPU, without waiting until it has finished what it is at."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def wait_for(device: torch.device) -> None:
    """Wait until a GPU has done what it was asked for."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Return the device called `name`; "auto" is a CUDA device, the MPS device or the CPU, whichever is here first.

    Of several processes on a machine each takes the CUDA device of its `local_rank`.
    Raises UsageError for a name torch does not know or a device that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used here; try auto, cpu or cuda") from error
    return device


def mix_seed(*parts: object) -> int:
    """Hash numbers or words into one seed of 32 bits, all that torch's CPU generator keeps.

    >>> mix_seed(0, 1) == mix_seed(0, 1), mix_seed(0, 1) == mix_seed(1, 0)
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device; nothing in cnnkit draws from another one."""
    torch.manual_seed(seed)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the CPU's generator and the device's: a hundredth of the time of `seed_everything`, for use in each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
