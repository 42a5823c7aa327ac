"""LeNet as defined in chapter 5.5, and with batch normalisation (chapter 5.10).

LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document recognition, 1998, figure 2. The chapter
replaces the paper's trainable subsampling with max pooling, and its radial basis outputs with a dense layer.
"""

from collections import OrderedDict
from itertools import pairwise

from torch import nn

from cnnkit.core.errors import pick
from cnnkit.core.shape import Pair, output_size, pair
from cnnkit.nets.blocks import Head, Norm, batch_norms, classifier

__all__ = ["lenet", "lenet_bn"]

CONV, KERNEL, POOL = (6, 16), 5, 2
DENSE = (120, 84)
ACTIVATIONS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


def lenet(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 28,
    activation: str = "sigmoid",
    head: Head = "logits",
) -> nn.Sequential:
    """LeNet of chapter 5.5: two valid 5x5 convolutions, sigmoid, 2x2 max pooling, three dense layers.

    The chapter's head is a sigmoid: `head="as_written"`. `activation` may also be "tanh", as in the paper, or "relu".

    stage  output        lenet
    conv1  6 x 12 x 12     156
    conv2  16 x 4 x 4    2,416
    dense  84           41,004
    head   10              850
    total               44,426
    """
    return _lenet(in_channels, num_classes, image_size, head, pick(ACTIVATIONS, activation, "activation"))


def lenet_bn(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 28,
    norm: str = "torch",
    decay: float = 0.9,
    epsilon: float = 1e-5,
    head: Head = "logits",
) -> nn.Sequential:
    """LeNet with batch normalisation before each sigmoid, of chapter 5.10.

    `norm` is "torch" or "from_scratch" (`cnnkit.ops.BatchNormalization`). `decay` and `epsilon` default to those of
    5.10.2; the Keras layers of 5.10.3 have 0.99 and 1e-3.

    stage       output       lenet_bn
    conv1       6 x 12 x 12       168
    conv2       16 x 4 x 4      2,448
    dense       84             41,412
    head        10                850
    total                      44,878
    statistics                    452
    """
    return _lenet(in_channels, num_classes, image_size, head, nn.Sigmoid, *batch_norms(norm, decay, epsilon))


def _lenet(
    in_channels: int,
    num_classes: int,
    image_size: Pair,
    head: Head,
    activation: type[nn.Module],
    conv_norm: Norm | None = None,
    dense_norm: Norm | None = None,
) -> nn.Sequential:
    height, width = pair(image_size, "image_size")
    stages = OrderedDict[str, nn.Module]()
    for number, (channels, wider) in enumerate(pairwise((in_channels, *CONV)), start=1):
        stages[f"conv{number}"] = nn.Sequential(
            nn.Conv2d(channels, wider, KERNEL),
            *([conv_norm(wider)] if conv_norm else []),
            activation(),
            nn.MaxPool2d(POOL),
        )
        height, width = output_size(output_size((height, width), KERNEL), POOL, stride=POOL)
    layers: list[nn.Module] = [nn.Flatten()]
    for features, fewer in pairwise((CONV[-1] * height * width, *DENSE)):
        layers += [nn.Linear(features, fewer), *([dense_norm(fewer)] if dense_norm else []), activation()]
    stages["dense"] = nn.Sequential(*layers)
    stages["head"] = classifier(DENSE[-1], num_classes, head, nn.Sigmoid())
    return nn.Sequential(stages)
