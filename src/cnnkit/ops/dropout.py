"""Dropout with cheaper random numbers on a CPU, where torch draws them one by one and spends most of its time on it."""

import torch
from torch import Tensor, nn

from cnnkit.core.modes import is_recorded

__all__ = ["Dropout"]

LEVELS = 2**16  # of a random number: 64 random bits give four


class Dropout(nn.Dropout):
    """`nn.Dropout`; on a CPU the probability is rounded to a multiple of 1/65,536.

    Kept entries are divided by the probability of keeping them (Srivastava et al. 2014, section 10).
    """

    def forward(self, input: Tensor) -> Tensor:
        """Set random entries to 0 in training mode."""
        dropped = round(self.p * LEVELS)
        fast = self.training and 0 < dropped < LEVELS and input.device.type == "cpu" and input.is_floating_point()
        if not fast or is_recorded():
            return super().forward(input)
        words = torch.empty(-(-input.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.int16)[: input.numel()] >= dropped - LEVELS // 2
        factors = kept.to(input.dtype).mul_(LEVELS / (LEVELS - dropped))
        like = torch.empty_like(input)  # dense, in the input's order of strides
        return input * factors.as_strided(like.shape, like.stride())
