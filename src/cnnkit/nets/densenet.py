"""DenseNet as defined in chapter 5.12, and as in torchvision.

Huang, Liu, van der Maaten, Weinberger: Densely connected convolutional networks, 2017, table 1 (DenseNet-BC).
"""

from collections import OrderedDict
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from cnnkit.core.errors import pick
from cnnkit.core.shape import Pair
from cnnkit.nets.blocks import KERAS, TORCHVISION, Head, Style, classifier, global_pool, override
from cnnkit.ops.dropout import Dropout
from cnnkit.ops.same import CeilMaxPool2d

__all__ = ["DenseBlock", "bottleneck", "densenet", "transition"]

ROWS = {  # depth: channels of the stem, growth rate, layers in the four blocks
    37: (64, 32, (4, 4, 4, 4)),  # the chapter's
    121: (64, 32, (6, 12, 24, 16)),
    161: (96, 48, (6, 12, 36, 24)),
    169: (64, 32, (6, 12, 32, 32)),
    201: (64, 32, (6, 12, 48, 32)),
}


@dataclass(frozen=True)
class _Layout:
    """The differences between the two definitions."""

    style: Style
    pool: str  # of a transition
    dropout: float  # after each bottleneck
    last_norm: bool  # batch normalisation and ReLU after the last block


LAYOUTS = {
    "chapter": _Layout(KERAS, "max", 0.5, last_norm=False),
    "torchvision": _Layout(TORCHVISION, "avg", 0.0, last_norm=True),
}


def bottleneck(in_channels: int, growth_rate: int, dropout: float = 0.5, style: Style = KERAS) -> nn.Sequential:
    """Return one layer of a dense block: 1x1 to 4 x `growth_rate` channels, then 3x3 to `growth_rate` channels.

    Normalisation and ReLU precede each convolution. N x C x H x W to N x `growth_rate` x H x W.
    """
    wide = 4 * growth_rate
    layers = OrderedDict[str, nn.Module](
        norm1=style.norm(in_channels),
        relu1=nn.ReLU(),
        conv1=style.conv(in_channels, wide, 1),
        norm2=style.norm(wide),
        relu2=nn.ReLU(),
        conv2=style.conv(wide, growth_rate, 3),
    )
    if dropout:
        layers["dropout"] = Dropout(dropout)
    return nn.Sequential(layers)


class DenseBlock(nn.Sequential):
    """Layers that each take the channels of all layers before them (chapter 5.12.1).

    N x C x H x W to N x (C + num_layers * growth_rate) x H x W.
    """

    def __init__(self, in_channels: int, num_layers: int, growth_rate: int, dropout: float = 0.5, style: Style = KERAS):
        widths = (in_channels + number * growth_rate for number in range(num_layers))
        super().__init__(*(bottleneck(channels, growth_rate, dropout, style) for channels in widths))

    def forward(self, input: Tensor) -> Tensor:
        """Append each layer's output to its input, along the channels."""
        for layer in self:
            input = torch.cat([input, layer(input)], 1)
        return input


def transition(in_channels: int, channels: int, pool: str = "max", style: Style = KERAS) -> nn.Sequential:
    """Return a transition: normalisation, ReLU, 1x1 to `channels`, 2x2 `pool`, "max" or "avg" (chapter 5.12.2).

    The chapter's text and the paper have average pooling, the chapter's code max pooling. The style KERAS rounds odd
    sizes up, TORCHVISION down.
    """
    maximum = CeilMaxPool2d(2, 2) if style.same else nn.MaxPool2d(2)
    pools = {"max": maximum, "avg": nn.AvgPool2d(2, ceil_mode=style.same)}
    last = pick(pools, pool, "transition pooling")
    return nn.Sequential(style.norm(in_channels), nn.ReLU(), style.conv(in_channels, channels, 1), last)


def densenet(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 96,
    depth: int = 37,
    layout: str = "chapter",
    dropout: float | None = None,
    pool: str | None = None,
    decay: float | None = None,
    epsilon: float | None = None,
    head: Head = "logits",
) -> nn.Sequential:
    """DenseNet: a stem, four dense blocks with a transition between each, global average pooling, one dense layer.

    `layout` is "chapter" or "torchvision" and sets the defaults of `dropout`, transition `pool` ("max" or "avg"),
    `decay` and `epsilon`: 0.5, "max", 0.99 and 1e-3 for the chapter; 0, "avg", 0.9 and 1e-5 for torchvision. The
    chapter's head is a softmax: `head="as_written"`.

    stage        output         densenet
    stem         64 x 24 x 24      3,328
    dense1       192 x 24 x 24   207,360
    transition1  96 x 12 x 12     18,912
    dense2       224 x 12 x 12   224,000
    transition2  112 x 6 x 6      25,648
    dense3       240 x 6 x 6     232,320
    transition3  120 x 3 x 3      29,400
    dense4       248 x 3 x 3     236,480
    pool         248                   0
    head         10                2,490
    total                        979,938
    statistics                    10,208

    stage        output          densenet121.tv
    stem         64 x 56 x 56             9,536
    dense1       256 x 56 x 56          335,040
    transition1  128 x 28 x 28           33,280
    dense2       512 x 28 x 28          919,680
    transition2  256 x 14 x 14          132,096
    dense3       1024 x 14 x 14       2,837,760
    transition3  512 x 7 x 7            526,336
    dense4       1024 x 7 x 7         2,158,080
    pool         1024                     2,048
    head         1000                 1,025,000
    total                             7,978,856
    statistics                           83,648
    """
    chosen = override(pick(LAYOUTS, layout, "layout"), dropout=dropout, pool=pool)
    style = override(chosen.style, decay=decay, epsilon=epsilon)
    channels, growth_rate, counts = pick(ROWS, depth, "depth")
    stages = OrderedDict[str, nn.Module](stem=style.stem(in_channels, channels))
    for number, num_layers in enumerate(counts, start=1):
        stages[f"dense{number}"] = DenseBlock(channels, num_layers, growth_rate, chosen.dropout, style)
        channels += num_layers * growth_rate
        if number < len(counts):
            stages[f"transition{number}"] = transition(channels, channels // 2, chosen.pool, style)
            channels //= 2
    stages["pool"] = global_pool(*([style.norm(channels), nn.ReLU()] if chosen.last_norm else []))
    stages["head"] = classifier(channels, num_classes, head, nn.Softmax(1))
    return nn.Sequential(stages)
