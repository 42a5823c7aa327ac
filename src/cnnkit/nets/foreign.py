"""Names for modules that are not in the zoo: equal for equal modules, different for others."""

import hashlib

from torch import nn
from torch.nn.parameter import is_lazy

from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped

__all__ = ["foreign_name", "is_foreign", "require_same"]

PREFIX = "python:"


def foreign_name(net: nn.Module) -> str:
    """Return the name of a module in settings and bundles: its class, and a digest of its layers and tensor shapes.

    Raises UsageError for a module with lazy weights, which have no shape yet.
    """
    net = unwrapped(net)
    tensors = [*net.named_parameters(), *net.named_buffers()]
    if any(is_lazy(tensor) for _, tensor in tensors):
        raise UsageError("the network has lazy layers without weights: run it once on a batch of images first")
    facts = [repr(net), *((name, tuple(tensor.shape), str(tensor.dtype)) for name, tensor in tensors)]
    return f"{PREFIX}{type(net).__qualname__}:{hashlib.sha256(repr(facts).encode()).hexdigest()[:16]}"


def is_foreign(name: str) -> bool:
    """Return whether a name comes from `foreign_name`."""
    return name.startswith(PREFIX)


def require_same(net: nn.Module, name: str) -> None:
    """Raise UsageError unless the module has this name."""
    if (own := foreign_name(net)) != name:
        raise UsageError(
            f"net is not the module that the run was trained with: its class and digest are "
            f"{own.removeprefix(PREFIX)}, not {name.removeprefix(PREFIX)}"
        )
