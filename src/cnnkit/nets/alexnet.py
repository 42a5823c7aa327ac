"""AlexNet as defined in chapter 5.6, and as in torchvision.

Krizhevsky, Sutskever, Hinton: ImageNet classification with deep convolutional neural networks, 2012, figure 2.
torchvision's widths are from Krizhevsky: One weird trick for parallelizing convolutional neural networks, 2014.
"""

from collections import OrderedDict

from torch import nn

from cnnkit.core.errors import pick
from cnnkit.core.shape import Pair, output_size, pair
from cnnkit.nets.blocks import Head, classifier, dense_layers

__all__ = ["alexnet"]

POOL = (3, 2)  # window, stride
ROWS = {  # channels, kernel, stride, padding, pooled
    "chapter": (
        (96, 11, 4, 0, True),
        (256, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ),
    "torchvision": (
        (64, 11, 4, 2, True),
        (192, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ),
}
ADAPTED = {"chapter": None, "torchvision": 6}  # rows and columns of the last map after adaptive pooling


def alexnet(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 224,
    layout: str = "chapter",
    dropout: float = 0.5,
    head: Head = "logits",
) -> nn.Sequential:
    """AlexNet: five convolutions, two hidden dense layers of 4,096 with dropout.

    `layout` is "chapter" or "torchvision", which pools the last map to 6 x 6 for images of any size. The chapter's
    head is a sigmoid: `head="as_written"`.

    stage  output            alexnet
    conv1  96 x 26 x 26       11,712
    conv2  256 x 12 x 12     614,656
    conv3  384 x 12 x 12     885,120
    conv4  384 x 12 x 12   1,327,488
    conv5  256 x 5 x 5       884,992
    dense  4096           42,999,808
    head   10                 40,970
    total                 46,764,746

    stage  output         alexnet.tv
    conv1  64 x 27 x 27       23,296
    conv2  192 x 13 x 13     307,392
    conv3  384 x 13 x 13     663,936
    conv4  256 x 13 x 13     884,992
    conv5  256 x 6 x 6       590,080
    pool   256 x 6 x 6             0
    dense  4096           54,534,144
    head   1000            4,097,000
    total                 61,100,840
    """
    size = pair(image_size, "image_size")
    stages = OrderedDict[str, nn.Module]()
    channels = in_channels
    for number, (wider, kernel, stride, padding, pooled) in enumerate(pick(ROWS, layout, "layout"), start=1):
        layers: list[nn.Module] = [nn.Conv2d(channels, wider, kernel, stride, padding), nn.ReLU()]
        size = output_size(size, kernel, stride, padding)
        if pooled:
            layers.append(nn.MaxPool2d(*POOL))
            size = output_size(size, *POOL)
        stages[f"conv{number}"] = nn.Sequential(*layers)
        channels = wider
    if adapted := ADAPTED[layout]:
        stages["pool"] = nn.AdaptiveAvgPool2d(adapted)
        size = adapted, adapted
    stages["dense"] = dense_layers(channels * size[0] * size[1], dropout=dropout, drop_first=layout == "torchvision")
    stages["head"] = classifier(4096, num_classes, head, nn.Sigmoid())
    return nn.Sequential(stages)
