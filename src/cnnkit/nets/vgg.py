"""VGG as defined in chapter 5.7, and as in torchvision.

Simonyan, Zisserman: Very deep convolutional networks for large-scale image recognition, 2015, table 1.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from cnnkit.core.errors import pick
from cnnkit.core.shape import Pair, count, pair
from cnnkit.nets.blocks import TORCHVISION, Head, Norm, classifier, dense_layers

__all__ = ["vgg", "vgg_block"]

# channels of the blocks and width of the hidden dense layers, as multiples of the first block's channels
WIDTHS, DENSE = (1, 2, 4, 8, 8), 64
ROWS = {  # convolutions in each block: columns A, B, D and E of the table
    11: (1, 1, 2, 2, 2),
    13: (2, 2, 2, 2, 2),
    16: (2, 2, 3, 3, 3),
    19: (2, 2, 4, 4, 4),
}
ADAPTED = {"chapter": None, "torchvision": 7}  # rows and columns of the last map after adaptive pooling


def vgg_block(in_channels: int, channels: int, num_convs: int, norm: Norm | None = None) -> nn.Sequential:
    """Return `num_convs` 3x3 convolutions with ReLU, then 2x2 max pooling (chapter 5.7.1).

    N x C x H x W to N x `channels` x H/2 x W/2, rounded down. `norm` builds a normalisation from its width.
    """
    count(num_convs, "num_convs")
    layers: list[nn.Module] = []
    for before in (in_channels, *[channels] * (num_convs - 1)):
        layers += [nn.Conv2d(before, channels, 3, padding=1), *([norm(channels)] if norm else []), nn.ReLU()]
    return nn.Sequential(*layers, nn.MaxPool2d(2))


def vgg(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 224,
    depth: int = 11,
    layout: str = "chapter",
    normalised: bool = False,
    dropout: float = 0.5,
    head: Head = "logits",
    width: int = 64,
) -> nn.Sequential:
    """VGG: five blocks of 3x3 convolutions, two hidden dense layers of 4,096 with dropout.

    `layout` is "chapter" or "torchvision", which pools the last map to 7 x 7 for images of any size; `normalised` adds
    batch normalisation after each convolution. The chapter's head is a sigmoid: `head="as_written"`. conv1 has `width`
    channels, and all other layers scale with it: width 8 makes them an eighth as wide, so that 4,096 becomes 512.

    stage  output                vgg11        vgg13        vgg16        vgg19
    conv1  64 x 112 x 112          640       37,568       37,568       37,568
    conv2  128 x 56 x 56        73,856      221,440      221,440      221,440
    conv3  256 x 28 x 28       885,248      885,248    1,475,328    2,065,408
    conv4  512 x 14 x 14     3,539,968    3,539,968    5,899,776    8,259,584
    conv5  512 x 7 x 7       4,719,616    4,719,616    7,079,424    9,439,232
    dense  4096            119,545,856  119,545,856  119,545,856  119,545,856
    head   10                   40,970       40,970       40,970       40,970
    total                  128,806,154  128,990,666  134,300,362  139,610,058

    stage  output             vgg11.tv     vgg13.tv     vgg16.tv     vgg19.tv
    conv1  64 x 112 x 112        1,792       38,720       38,720       38,720
    conv2  128 x 56 x 56        73,856      221,440      221,440      221,440
    conv3  256 x 28 x 28       885,248      885,248    1,475,328    2,065,408
    conv4  512 x 14 x 14     3,539,968    3,539,968    5,899,776    8,259,584
    conv5  512 x 7 x 7       4,719,616    4,719,616    7,079,424    9,439,232
    pool   512 x 7 x 7               0            0            0            0
    dense  4096            119,545,856  119,545,856  119,545,856  119,545,856
    head   1000              4,097,000    4,097,000    4,097,000    4,097,000
    total                  132,863,336  133,047,848  138,357,544  143,667,240
    """
    rows, columns = (side // 2 ** len(WIDTHS) for side in pair(image_size, "image_size"))
    stages = OrderedDict[str, nn.Module]()
    widths = [times * count(width, "width") for times in WIDTHS]
    for number, ((before, channels), num_convs) in enumerate(
        zip(pairwise((in_channels, *widths)), pick(ROWS, depth, "depth"), strict=True), start=1
    ):
        stages[f"conv{number}"] = vgg_block(before, channels, num_convs, TORCHVISION.norm if normalised else None)
    if adapted := pick(ADAPTED, layout, "layout"):
        stages["pool"] = nn.AdaptiveAvgPool2d(adapted)
        rows = columns = adapted
    stages["dense"] = dense_layers(widths[-1] * rows * columns, DENSE * width, dropout)
    stages["head"] = classifier(DENSE * width, num_classes, head, nn.Sigmoid())
    return nn.Sequential(stages)
