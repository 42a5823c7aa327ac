"""The device to compute on, and the seeds of all random numbers."""

import hashlib

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError

__all__ = ["mix_seed", "pick_device", "seed_device", "seed_everything", "send", "wait_for"]


def send(tensor: Tensor, device: torch.device) -> Tensor:
    """Return a tensor on the device; a copy to a GPU is asynchronous."""
    if tensor.device.type == "cpu" and device.type == "cuda":
        return tensor.pin_memory().to(device, non_blocking=True)
    return tensor.to(device)


def wait_for(device: torch.device) -> None:
    """Wait for all kernels queued on a GPU; do nothing for other devices."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def pick_device(name: str = "auto", local_rank: int = 0) -> torch.device:
    """Return the device `name`; "auto" is a CUDA device, else the MPS device, else the CPU.

    Of several processes on a machine, each uses the CUDA device of its `local_rank`. Raises UsageError for a name that
    torch does not support or a device that this machine lacks.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    reason = "unknown"
    try:
        device = torch.device(name)
        reason = "unavailable"
        if device.type == "cuda" and device.index is None:
            device = torch.device("cuda", local_rank)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"{reason} device {name!r}; use --device auto or cpu") from error
    return device


def mix_seed(*parts: object) -> int:
    """Hash numbers or strings into one 32-bit seed, as torch's CPU generator uses no more bits.

    >>> mix_seed(0, 1) == mix_seed(0, 1), mix_seed(0, 1) == mix_seed(1, 0)
    (True, False)
    """
    return int.from_bytes(hashlib.blake2b(repr(parts).encode(), digest_size=4).digest())


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device; cnnkit uses no others."""
    torch.manual_seed(seed)


def seed_device(device: torch.device, seed: int) -> None:
    """Seed the generators of the CPU and one device, 100 times as fast as `seed_everything`, for use in each step."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.default_generators[device.index].manual_seed(seed)
    elif device.type == "mps":
        torch.mps.manual_seed(seed)
