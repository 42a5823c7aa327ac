"""Which device computes, and the one seed behind every random number."""

import torch

from cnnkit.core.errors import UsageError

__all__ = ["pick_device", "seed_everything"]


def pick_device(name: str = "auto") -> torch.device:
    """Return the device called `name`; "auto" is the first CUDA or MPS device, else the CPU.

    Raises UsageError for a name torch does not know or a device that this machine lacks.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise UsageError(f"device {name!r} cannot be used here; try auto, cpu or cuda") from error
    return device


def seed_everything(seed: int) -> None:
    """Seed torch's generators on every device; nothing in cnnkit draws from another one."""
    torch.manual_seed(seed)
