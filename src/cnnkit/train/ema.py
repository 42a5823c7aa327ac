"""An exponential moving average of the weights, which often predicts better than the last weights."""

import copy

import torch
from torch import nn

__all__ = ["MovingAverage"]


class MovingAverage:
    """A copy of a net with averaged weights: average <- decay * average + (1 - decay) * weights.

    In the first steps the decay is smaller, (1 + t) / (10 + t), so that the random initial weights fade soon. Buffers,
    such as moving statistics, are copied.
    """

    def __init__(self, net: nn.Module, decay: float):
        self.decay, self.steps = decay, 0
        self.net = copy.deepcopy(net).requires_grad_(False).eval()

    @torch.no_grad()
    def update(self, net: nn.Module) -> None:
        """Update the average with the weights of `net`."""
        self.steps += 1
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        torch._foreach_lerp_([*self.net.parameters()], [*net.parameters()], 1 - decay)
        for own, new in zip(self.net.buffers(), net.buffers(), strict=True):
            own.copy_(new)
