"""Networks that are not of the zoo: a name that stays the same for the same module, and says so for another."""

import hashlib

from torch import nn
from torch.nn.parameter import is_lazy

from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped

__all__ = ["foreign_name", "is_foreign", "require_same"]

PREFIX = "python:"


def foreign_name(net: nn.Module) -> str:
    """Return what settings and bundles call a module: its class, and a digest of its layers and tensors' shapes.

    Raises UsageError for a module whose weights have no shape yet.
    """
    net = unwrapped(net)
    tensors = [*net.named_parameters(), *net.named_buffers()]
    if any(is_lazy(tensor) for _, tensor in tensors):
        raise UsageError("the network has layers without weights yet (Lazy...): run it once on a batch of images first")
    facts = [repr(net), *((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors)]
    return f"{PREFIX}{type(net).__qualname__}:{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def is_foreign(name: str) -> bool:
    """Say whether a name is one that `foreign_name` gave."""
    return name.startswith(PREFIX)


def require_same(net: nn.Module, name: str) -> None:
    """Raise UsageError unless the module is the one that was called so."""
    if (own := foreign_name(net)) != name:
        raise UsageError(
            f"net is another one than the run was trained with: {own.removeprefix(PREFIX)}, not "
            f"{name.removeprefix(PREFIX)} (its class, and a digest of its layers)"
        )
