"""GoogLeNet as defined in chapter 5.9, and as in torchvision.

Szegedy et al.: Going deeper with convolutions, 2015, table 1. torchvision adds batch normalisation and, like the
authors' TensorFlow code, uses 3x3 kernels instead of the paper's 5x5.
"""

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from cnnkit.core.errors import pick
from cnnkit.core.shape import Pair
from cnnkit.nets.blocks import KERAS, TORCHVISION, Head, Style, classifier, global_pool
from cnnkit.ops.same import CeilMaxPool2d, SameMaxPool2d

__all__ = ["Inception", "googlenet"]

ROWS = {  # 1x1; 1x1, 3x3; 1x1, 5x5; pooled, 1x1
    "inception3": {
        "3a": (64, (96, 128), (16, 32), 32),
        "3b": (128, (128, 192), (32, 96), 64),
    },
    "inception4": {
        "4a": (192, (96, 208), (16, 48), 64),
        "4b": (160, (112, 224), (24, 64), 64),
        "4c": (128, (128, 256), (24, 64), 64),
        "4d": (112, (144, 288), (32, 64), 64),
        "4e": (256, (160, 320), (32, 128), 128),
    },
    "inception5": {
        "5a": (256, (160, 320), (32, 128), 128),
        "5b": (384, (192, 384), (48, 128), 128),
    },
}


@dataclass(frozen=True)
class _Layout:
    """The differences between the two definitions."""

    style: Style
    normalised: bool
    widest: int  # kernel of the third branch
    pools: Mapping[str, int]  # kernel of the pooling after a stage
    dropout: float

    def unit(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> list[nn.Module]:
        """Return a convolution, batch normalisation if `normalised`, and ReLU."""
        norm = [self.style.norm(channels)] if self.normalised else []
        return [self.style.conv(in_channels, channels, kernel, stride), *norm, nn.ReLU()]

    def pool(self, window: int) -> nn.MaxPool2d:
        """Return max pooling with stride 2 that rounds sizes up."""
        return SameMaxPool2d(window, 2) if self.style.same else CeilMaxPool2d(window, 2)


LAYOUTS = {
    "chapter": _Layout(KERAS, False, 5, {"inception3": 3, "inception4": 3}, dropout=0),
    "torchvision": _Layout(
        replace(TORCHVISION, epsilon=1e-3), True, 3, {"inception3": 3, "inception4": 2}, dropout=0.2
    ),
}


class Inception(nn.Module):
    """Four branches over the same map, concatenated along the channels (chapter 5.9.1).

    1x1; 1x1 then 3x3; 1x1 then 5x5 (3x3 in torchvision's layout); 3x3 pooling then 1x1. Takes N x C x H x W and
    returns N x (c1 + c2[1] + c3[1] + c4) x H x W.
    """

    def __init__(
        self,
        in_channels: int,
        c1: int,
        c2: tuple[int, int],
        c3: tuple[int, int],
        c4: int,
        layout: str = "chapter",
    ):
        super().__init__()
        chosen = pick(LAYOUTS, layout, "layout")
        unit, widest = chosen.unit, chosen.widest
        self.branch1 = nn.Sequential(*unit(in_channels, c1, 1))
        self.branch2 = nn.Sequential(*unit(in_channels, c2[0], 1), *unit(*c2, 3))
        self.branch3 = nn.Sequential(*unit(in_channels, c3[0], 1), *unit(*c3, widest))
        self.branch4 = nn.Sequential(nn.MaxPool2d(3, 1, 1), *unit(in_channels, c4, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of the four branches, concatenated along the channels."""
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x), self.branch4(x)], 1)


def googlenet(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 96,
    layout: str = "chapter",
    head: Head = "logits",
) -> nn.Sequential:
    """GoogLeNet: nine Inception blocks, global average pooling, one dense layer.

    `layout` is "chapter" or "torchvision", with batch normalisation, 3x3 instead of 5x5 kernels, and dropout. The
    auxiliary heads, used only in training, are omitted, as in torchvision after loading published weights.

    stage       output         googlenet
    conv1       64 x 24 x 24       3,200
    conv2       192 x 12 x 12    114,944
    inception3  480 x 6 x 6      552,432
    inception4  832 x 3 x 3    2,809,168
    inception5  1024 x 3 x 3   2,487,536
    pool        1024                   0
    head        10                10,250
    total                      5,977,530

    stage       output         googlenet.tv
    conv1       64 x 56 x 56          9,536
    conv2       192 x 28 x 28       115,200
    inception3  480 x 14 x 14       496,096
    inception4  832 x 7 x 7       2,653,088
    inception5  1024 x 7 x 7      2,325,984
    pool        1024                      0
    head        1000              1,025,000
    total                         6,624,904
    statistics                       14,560
    """
    chosen = pick(LAYOUTS, layout, "layout")
    stages = OrderedDict[str, nn.Module](
        conv1=nn.Sequential(*chosen.unit(in_channels, 64, 7, 2), chosen.pool(3)),
        conv2=nn.Sequential(*chosen.unit(64, 64, 1), *chosen.unit(64, 192, 3), chosen.pool(3)),
    )
    channels = 192
    for stage, rows in ROWS.items():
        blocks = OrderedDict[str, nn.Module]()
        for name, (c1, c2, c3, c4) in rows.items():
            blocks[name] = Inception(channels, c1, c2, c3, c4, layout)
            channels = c1 + c2[1] + c3[1] + c4
        if window := chosen.pools.get(stage):
            blocks["pool"] = chosen.pool(window)
        stages[stage] = nn.Sequential(blocks)
    stages["pool"] = global_pool(dropout=chosen.dropout)
    stages["head"] = classifier(channels, num_classes, head)
    return nn.Sequential(stages)
