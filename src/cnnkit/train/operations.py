"""How much work a training step is."""

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

__all__ = ["operations"]


def operations(net: nn.Module, image: tuple[int, int, int]) -> int:
    """Return the multiplications and additions of a training step for an image C x H x W: thrice the forward pass."""
    training = [module for module in net.modules() if module.training]
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.eval()(torch.zeros(1, *image, device=next(net.parameters()).device))
    for module in training:
        module.training = True
    return 3 * int(counter.get_total_flops())
