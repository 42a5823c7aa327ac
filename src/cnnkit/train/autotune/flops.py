"""The number of operations of a training step."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnkit.core.modes import eval_mode

__all__ = ["operations"]


def operations(net: nn.Module, image: tuple[int, int, int]) -> int:
    """Return the multiplications and additions of a training step on an image C x H x W: three forward passes."""
    # not in inference mode, where the counter removes the weights of parametrized layers
    with eval_mode(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *image, device=next(net.parameters()).device))
    return 3 * int(counter.get_total_flops())
