"""Building blocks that several networks share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from torch import nn

from cnnkit.core.errors import unknown
from cnnkit.core.shape import count
from cnnkit.ops.dropout import Dropout
from cnnkit.ops.layers import BatchNormalization, check_constants
from cnnkit.ops.same import SameConv2d, SameMaxPool2d

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

__all__ = [
    "KERAS",
    "TORCHVISION",
    "Head",
    "Norm",
    "Style",
    "batch_norms",
    "classifier",
    "dense_layers",
    "global_pool",
    "override",
]

Norm = Callable[[int], nn.Module]
Head = Literal["logits", "as_written"]
Data = TypeVar("Data", bound="DataclassInstance")


@dataclass(frozen=True)
class Style:
    """The padding, biases and batch normalisation of a definition."""

    same: bool  # strided windows padded as TensorFlow's "same"; else by half the kernel on all sides
    bias: bool  # of the convolutions
    decay: float  # of the moving statistics: 1 - torch's momentum
    epsilon: float

    def __post_init__(self) -> None:
        check_constants(self.decay, self.epsilon)

    def conv(self, in_channels: int, channels: int, kernel: int, stride: int = 1) -> nn.Conv2d:
        """Return a convolution with output size ceil(n / stride); raises UsageError for arguments below 1."""
        for name, number in {"in_channels": in_channels, "channels": channels, "stride": stride}.items():
            count(number, name)
        if self.same and stride > 1 and kernel > 1:  # one pixel needs no padding
            return SameConv2d(in_channels, channels, kernel, stride, bias=self.bias)
        return nn.Conv2d(in_channels, channels, kernel, stride, kernel // 2, bias=self.bias)

    def pool(self) -> nn.MaxPool2d:
        """Return the 3x3 max pooling with stride 2 at the end of a stem."""
        return SameMaxPool2d(3, 2) if self.same else nn.MaxPool2d(3, 2, 1)

    def norm(self, channels: int) -> nn.BatchNorm2d:
        """Return the batch normalisation after a convolution."""
        return nn.BatchNorm2d(channels, self.epsilon, 1 - self.decay)

    def stem(self, in_channels: int, channels: int) -> nn.Sequential:
        """Return the stem of ResNet and DenseNet: 7x7 / 2, batch normalisation, ReLU, 3x3 / 2 max pooling."""
        return nn.Sequential(self.conv(in_channels, channels, 7, 2), self.norm(channels), nn.ReLU(), self.pool())

    def small_stem(self, in_channels: int, channels: int) -> nn.Sequential:
        """Return a stem for small images that keeps their size: 3x3, batch normalisation, ReLU."""
        return nn.Sequential(self.conv(in_channels, channels, 3), self.norm(channels), nn.ReLU())


def override(row: Data, **own: object) -> Data:
    """Return a copy of the dataclass with the given values; None keeps its own."""
    return replace(row, **{name: value for name, value in own.items() if value is not None})


KERAS = Style(same=True, bias=True, decay=0.99, epsilon=1e-3)
TORCHVISION = Style(same=False, bias=False, decay=0.9, epsilon=1e-5)


def batch_norms(norm: str, decay: float, epsilon: float) -> tuple[Norm, Norm]:
    """Return builders of batch normalisation after a convolution and after a dense layer, which take its width.

    `norm` is "torch" (`nn.BatchNorm2d`, `nn.BatchNorm1d`; momentum 1 - decay) or "from_scratch" (chapter 5.10.2).
    """
    if norm == "by_hand":  # its name in bundles of version 0.1
        norm = "from_scratch"
    if norm not in ("torch", "from_scratch"):
        raise unknown("norm", norm, ("torch", "from_scratch"))
    check_constants(decay, epsilon)
    if norm == "from_scratch":

        def from_scratch(width: int) -> nn.Module:
            return BatchNormalization(decay, epsilon, num_features=width)

        return from_scratch, from_scratch
    constants: dict[str, Any] = {"momentum": 1 - decay, "eps": epsilon}
    return partial(nn.BatchNorm2d, **constants), partial(nn.BatchNorm1d, **constants)


def classifier(features: int, num_classes: int, head: Head, written: nn.Module | None = None) -> nn.Module:
    """Return the dense layer to the logits; `head` "as_written" adds the chapter's activation `written` after it."""
    if head not in ("logits", "as_written"):
        raise unknown("head", head, ("logits", "as_written"))
    linear = nn.Linear(features, num_classes)
    return nn.Sequential(linear, written) if head == "as_written" and written else linear


def dense_layers(features: int, width: int = 4096, dropout: float = 0.5, drop_first: bool = False) -> nn.Sequential:
    """Return the two hidden dense layers of AlexNet and VGG: flatten, then twice dense, ReLU and dropout.

    `drop_first` puts the dropout before each dense layer.
    """
    layers: list[nn.Module] = [nn.Flatten()]
    for inputs in (features, width):
        layer = [nn.Linear(inputs, width), nn.ReLU()]
        layers += [Dropout(dropout), *layer] if drop_first else [*layer, Dropout(dropout)]
    return nn.Sequential(*layers)


def global_pool(*before: nn.Module, dropout: float = 0) -> nn.Sequential:
    """Return global average pooling to N x C, with the layers `before` ahead of it and dropout after it."""
    after = [Dropout(dropout)] if dropout else []
    return nn.Sequential(*before, nn.AdaptiveAvgPool2d(1), nn.Flatten(), *after)
