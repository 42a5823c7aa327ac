"""The moving average of the weights, which often predicts better than the last of them."""

import copy

import torch
from torch import nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """A copy of a net whose weights follow it slowly: average <- decay * average + (1 - decay) * weights.

    The decay of the first steps is smaller, (1 + t) / (10 + t), so that the random start is soon forgotten. Moving
    statistics are averages already and are copied.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.net = copy.deepcopy(net).requires_grad_(False).eval()

    @torch.no_grad()
    def follow(self, net: nn.Module) -> None:
        """Take a step towards the weights of `net`."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([*self.net.parameters()], [*net.parameters()], 1 - decay)
        for own, new in zip(self.net.buffers(), net.buffers(), strict=True):
            own.copy_(new)
