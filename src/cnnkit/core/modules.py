"""Networks as callers pass them, possibly wrapped."""

from typing import Any

from torch import nn
from torch.nn.parallel import DataParallel, DistributedDataParallel

from cnnkit.core.errors import UsageError

__all__ = ["unwrapped"]


def unwrapped(net: Any) -> nn.Module:
    """Return the network that `torch.compile`, `DataParallel` or `DistributedDataParallel` wraps, or `net` itself.

    It shares the weights, under their original names. Raises UsageError for anything but a module, such as the name of
    a network.
    """
    inner = net
    while isinstance(inner, nn.Module):
        if isinstance(inner, DataParallel | DistributedDataParallel):
            inner = inner.module
        elif "_orig_mod" in inner._modules:  # of torch.compile, whose class takes a second to import
            inner = inner._modules["_orig_mod"]
        else:
            return inner
    raise UsageError(f"net must be an nn.Module, such as cnnkit.create('lenet'), not {net!r}")
