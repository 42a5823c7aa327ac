"""The memory format of maps."""

from typing import Literal

import torch
from torch import Tensor

__all__ = ["FORMATS", "MemoryFormat", "lay_out"]

MemoryFormat = Literal["channels_last", "contiguous"]
FORMATS: dict[MemoryFormat, torch.memory_format] = {
    "channels_last": torch.channels_last,
    "contiguous": torch.contiguous_format,
}


def lay_out(x: Tensor, memory_format: MemoryFormat = "channels_last") -> Tensor:
    """Return maps N x C x H x W with the strides of the format; maps of one channel are not copied."""
    _, channels, height, width = x.shape
    if channels > 1:
        return x.contiguous(memory_format=FORMATS[memory_format])
    pixel = 1 if memory_format == "channels_last" else height * width
    return x.contiguous().as_strided(x.shape, (height * width, pixel, width, 1))
