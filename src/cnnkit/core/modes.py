"""A net in prediction mode for a while, each of its modules put back as it was."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

__all__ = ["eval_mode", "prediction_mode"]


@contextmanager
def prediction_mode(net: nn.Module) -> Iterator[None]:
    """Put `net` into evaluation mode, without gradients, and each of its modules back into its own mode."""
    with eval_mode(net), torch.inference_mode():
        yield


@contextmanager
def eval_mode(net: nn.Module) -> Iterator[None]:
    """Put `net` into evaluation mode, and each of its modules back into its own mode."""
    training = [module for module in net.modules() if module.training]
    net.eval()
    try:
        yield
    finally:
        for module in training:
            module.training = True
