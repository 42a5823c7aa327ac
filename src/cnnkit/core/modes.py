"""Modes of execution: evaluation mode as a context, and whether torch is recording a program."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["eval_mode", "is_recorded", "prediction_mode"]


@contextmanager
def prediction_mode(net: nn.Module) -> Iterator[None]:
    """Put `net` into evaluation mode without gradients, and restore the mode of each module at the end."""
    with eval_mode(net), torch.inference_mode():
        yield


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Put `net` into evaluation mode, and restore the mode of each module at the end."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True


def is_recorded() -> bool:
    """Return whether torch is compiling, exporting or tracing.

    Sizes may then be symbolic, so that nothing may branch on them, and code that torch cannot trace would be missing
    from the program.
    """
    tracing: bool = torch.jit.is_tracing()  # type: ignore[attr-defined, no-untyped-call]  # gaps in torch's stubs
    return torch.compiler.is_compiling() or tracing
