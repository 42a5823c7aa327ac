"""How much work a training step is."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from cnnkit.core.modes import eval_mode

__all__ = ["operations"]


def operations(net: nn.Module, image: tuple[int, int, int]) -> int:
    """Return the multiplications and additions of a training step for an image C x H x W: thrice the forward pass."""
    # not in inference mode, in which the counter takes the weights away from parametrized layers
    with eval_mode(net), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *image, device=next(net.parameters()).device))
    return 3 * int(counter.get_total_flops())
