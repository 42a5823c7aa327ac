"""ResNet as defined in chapter 5.11, as in torchvision, and with pre-activation.

He, Zhang, Ren, Sun: Deep residual learning for image recognition, 2016, table 1. torchvision has the bottleneck's
stride in the 3x3 convolution, not in the first 1x1 ("ResNet 1.5"). Pre-activation: the same authors, Identity mappings
in deep residual networks, 2016, figure 1b and appendix.
"""

from collections import OrderedDict
from dataclasses import dataclass

from torch import Tensor, nn

from cnnkit.core.errors import pick
from cnnkit.core.shape import Pair, count
from cnnkit.nets.blocks import KERAS, TORCHVISION, Head, Style, classifier, global_pool, override

__all__ = ["BASIC", "BOTTLENECK", "Residual", "resnet"]

Convs = tuple[tuple[int, int, bool], ...]
# a block's convolutions: multiple of the stage's width, kernel, whether it has the stride
BASIC: Convs = ((1, 3, True), (1, 3, False))
BOTTLENECK: Convs = ((1, 1, False), (1, 3, True), (4, 1, False))

WIDTHS = {"conv2": 1, "conv3": 2, "conv4": 4, "conv5": 8}  # times the first stage's
ROWS = {  # blocks in conv2 to conv5
    18: (BASIC, (2, 2, 2, 2)),
    34: (BASIC, (3, 4, 6, 3)),
    50: (BOTTLENECK, (3, 4, 6, 3)),
    101: (BOTTLENECK, (3, 4, 23, 3)),
    152: (BOTTLENECK, (3, 8, 36, 3)),
}


@dataclass(frozen=True)
class _Layout:
    """The differences between the definitions."""

    style: Style
    shortcut_norm: bool = False  # batch normalisation after a shortcut's 1x1 convolution
    preactivated: bool = False  # batch normalisation and ReLU before the convolutions


LAYOUTS = {
    "chapter": _Layout(KERAS),
    "torchvision": _Layout(TORCHVISION, shortcut_norm=True),
    "preactivation": _Layout(TORCHVISION, preactivated=True),
}


class Residual(nn.Module):
    """Residual block: relu(body(x) + x), where `body` is a few convolutions (chapter 5.11.1).

    Takes N x C x H x W; returns N x (width * convs[-1][0]) x ceil(H / stride) x ceil(W / stride). If the shape changes,
    the shortcut is a 1x1 convolution. `convs` is `BASIC` or `BOTTLENECK`; `layout` "chapter", "torchvision" or
    "preactivation", which has no ReLU after the sum, and whose `first` block omits the normalisation and ReLU that the
    stem has applied. `style`, such as `KERAS` or `TORCHVISION`, replaces the layout's.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        stride: int = 1,
        convs: Convs = BASIC,
        layout: str = "chapter",
        first: bool = False,
        style: Style | None = None,
    ):
        super().__init__()
        chosen = pick(LAYOUTS, layout, "layout")
        style, pre = style or chosen.style, chosen.preactivated
        layers = OrderedDict[str, nn.Module]()
        channels = in_channels
        for number, (factor, kernel, strided) in enumerate(convs):
            if number:
                layers |= {f"norm{number + pre}": style.norm(channels), f"relu{number + pre}": nn.ReLU()}
            layers[f"conv{number + 1}"] = style.conv(channels, factor * width, kernel, stride if strided else 1)
            channels = factor * width
        if not pre:
            layers[f"norm{len(convs)}"] = style.norm(channels)
        self.before = nn.Sequential(*([style.norm(in_channels), nn.ReLU()] if pre and not first else []))
        self.body = nn.Sequential(layers)
        self.shortcut: nn.Sequential | None = None
        if stride > 1 or in_channels != channels:
            norm = [style.norm(channels)] if chosen.shortcut_norm else []
            self.shortcut = nn.Sequential(style.conv(in_channels, channels, 1, stride), *norm)
        self.after = nn.Identity() if pre else nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        """Return the sum of the body and the shortcut, after ReLU unless pre-activated."""
        seen = self.before(x)
        total: Tensor = self.after(self.body(seen) + (x if self.shortcut is None else self.shortcut(seen)))
        return total


def resnet(
    in_channels: int = 1,
    num_classes: int = 10,
    image_size: Pair = 224,
    depth: int = 18,
    layout: str = "chapter",
    decay: float | None = None,
    epsilon: float | None = None,
    width: int = 64,
    stem: str = "imagenet",
    head: Head = "logits",
) -> nn.Sequential:
    """ResNet: a stem, four stages of residual blocks, global average pooling, one dense layer.

    `layout` is "chapter", "torchvision" or "preactivation". `decay` and `epsilon` of batch normalisation default to
    Keras' in the chapter's layout (0.99, 1e-3), to torch's in the others (0.9, 1e-5). conv2 has `width` channels, each
    later stage twice as many as the one before. The `stem` "imagenet" divides height and width by 4; "cifar" is one
    3x3 convolution that keeps them, for small images (section 4.2). The chapter's head is a softmax:
    `head="as_written"`.

    stage       output           resnet18    resnet34
    stem        64 x 56 x 56        3,328       3,328
    conv2       64 x 56 x 56      148,224     222,336
    conv3       128 x 28 x 28     525,952   1,117,312
    conv4       256 x 14 x 14   2,100,480   6,825,216
    conv5       512 x 7 x 7     8,395,264  13,116,928
    pool        512                     0           0
    head        10                  5,130       5,130
    total                      11,178,378  21,290,250
    statistics                      7,808      15,232

    stage       output         resnet18.tv  resnet34.tv
    stem        64 x 56 x 56         9,536        9,536
    conv2       64 x 56 x 56       147,968      221,952
    conv3       128 x 28 x 28      525,568    1,116,416
    conv4       256 x 14 x 14    2,099,712    6,822,400
    conv5       512 x 7 x 7      8,393,728   13,114,368
    pool        512                      0            0
    head        1000               513,000      513,000
    total                       11,689,512   21,797,672
    statistics                       9,600       17,024

    stage       output          resnet50.tv  resnet101.tv  resnet152.tv
    stem        64 x 56 x 56          9,536         9,536         9,536
    conv2       256 x 56 x 56       215,808       215,808       215,808
    conv3       512 x 28 x 28     1,219,584     1,219,584     2,339,840
    conv4       1024 x 14 x 14    7,098,368    26,090,496    40,613,888
    conv5       2048 x 7 x 7     14,964,736    14,964,736    14,964,736
    pool        2048                      0             0             0
    head        1000              2,049,000     2,049,000     2,049,000
    total                        25,557,032    44,549,160    60,192,808
    statistics                       53,120       105,344       151,424

    stage       output         resnet18_preact
    stem        64 x 56 x 56             9,536
    conv2       64 x 56 x 56           147,840
    conv3       128 x 28 x 28          525,184
    conv4       256 x 14 x 14        2,098,944
    conv5       512 x 7 x 7          8,392,192
    pool        512                      1,024
    head        1000                   513,000
    total                           11,687,720
    statistics                           7,808
    """
    chosen = pick(LAYOUTS, layout, "layout")
    style = override(chosen.style, decay=decay, epsilon=epsilon)
    convs, counts = pick(ROWS, depth, "depth")
    channels = count(width, "width")
    first_layers = pick({"imagenet": style.stem, "cifar": style.small_stem}, stem, "stem")
    stages = OrderedDict[str, nn.Module](stem=first_layers(in_channels, width))
    for (stage, times), number_of_blocks in zip(WIDTHS.items(), counts, strict=True):
        blocks = []
        for number in range(number_of_blocks):
            first = stage == "conv2" and number == 0
            stride = 2 if number == 0 and not first else 1
            blocks.append(Residual(channels, times * width, stride, convs, layout, first, style))
            channels = times * width * convs[-1][0]
        stages[stage] = nn.Sequential(*blocks)
    stages["pool"] = global_pool(*([style.norm(channels), nn.ReLU()] if chosen.preactivated else []))
    stages["head"] = classifier(channels, num_classes, head, nn.Softmax(1))
    return nn.Sequential(stages)
