"""Dropout whose random numbers cost less: on a CPU torch draws one after the other, and this is most of its time."""

import torch
from torch import Tensor, nn

from cnnkit.core.modes import is_recorded

__all__ = ["Dropout"]

LEVELS = 2**16  # of a draw: the drawn bits of a word are four draws


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU the probability is the nearest 65,536th.

    What is kept is divided by the probability of being kept (Srivastava et al. 2014, section 10).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Set random entries to 0 while training."""
        dropped = round(self.p * LEVELS)
        own = self.training and 0 < dropped < LEVELS and input.device.type == "cpu" and input.is_floating_point()
        if not own or is_recorded():
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: input.numel()] >= dropped - LEVELS // 2
        factors = kept.to(input.dtype).mul_(LEVELS / (LEVELS - dropped))
        like = torch.empty_like(input)  # dense, in the input's order of strides
        return input * factors.as_strided(like.shape, like.stride())
