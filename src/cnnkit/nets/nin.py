"""Network in network as defined in chapter 5.8.

Lin, Chen, Yan: Network in network, 2014, figure 2. Kernel sizes and widths are AlexNet's.
"""

from collections import OrderedDict

from torch import nn

from cnnkit.core.errors import unknown
from cnnkit.core.shape import Pair
from cnnkit.nets.blocks import Head
from cnnkit.ops.dropout import Dropout

__all__ = ["nin", "nin_block"]

ROWS = ((96, 11, 4, 0), (256, 5, 1, 2), (384, 3, 1, 1))  # channels, kernel, stride, padding
HEAD = (3, 1, 1)  # kernel, stride, padding


def nin_block(
    in_channels: int, channels: int, kernel: int, stride: int = 1, padding: int = 0, last_relu: bool = True
) -> nn.Sequential:
    """Return a convolution and two 1x1 convolutions, each with ReLU (chapter 5.8.1).

    N x C x H x W to N x `channels` x h x w. Without `last_relu` the output may be negative.
    """
    layers: list[nn.Module] = [nn.Conv2d(in_channels, channels, kernel, stride, padding), nn.ReLU()]
    layers += [nn.Conv2d(channels, channels, 1), nn.ReLU(), nn.Conv2d(channels, channels, 1)]
    return nn.Sequential(*layers, *([nn.ReLU()] if last_relu else []))


def nin(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 224,
    dropout: float = 0.5,
    head: Head = "logits",
) -> nn.Sequential:
    """Network in network: no dense layer; each class is a channel of the last block, whose mean is the logit.

    The chapter's last block ends with ReLU, which makes all logits non-negative: `head="as_written"`.

    stage  output               nin
    conv1  96 x 26 x 26      30,336
    conv2  256 x 12 x 12    746,240
    conv3  384 x 5 x 5    1,180,800
    head   10                34,790
    total                 1,992,166
    """
    if head not in ("logits", "as_written"):
        raise unknown("head", head, ("logits", "as_written"))
    stages = OrderedDict[str, nn.Module]()
    channels = in_channels
    for number, (wider, kernel, stride, padding) in enumerate(ROWS, start=1):
        block = nin_block(channels, wider, kernel, stride, padding)
        stages[f"conv{number}"] = nn.Sequential(*block, nn.MaxPool2d(3, 2))
        channels = wider
    classes = nin_block(channels, num_classes, *HEAD, last_relu=head == "as_written")
    stages["head"] = nn.Sequential(Dropout(dropout), *classes, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return nn.Sequential(stages)
