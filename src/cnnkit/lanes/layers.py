"""The layers that lanes can compute: one class each, which reads a torch module and writes C++.

To add one, write its C++ in cpp/, a class here, and a row of `LAYERS` from the type of the torch module to the class;
then add a network that contains it to `NETS` in tests/helpers/lanes.py.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple, Self

from torch import nn

from cnnkit.core.shape import output_size
from cnnkit.ops import CompiledMaxPool2d, TunedConv2d
from cnnkit.ops import Dropout as FastDropout

__all__ = ["LAYERS", "Barrier", "Code", "Layer", "Mode", "Size", "Slots", "Unsupported", "require", "require_settings"]

Size = tuple[int, int, int]  # channels, height, width
Mode = Literal["train", "measure", "predict"]


class Unsupported(ValueError):
    """A network that lanes cannot compute; the text is the reason."""


@dataclass(frozen=True)
class Barrier:
    """The end of a phase: all threads wait for each other, then each runs these lines.

    Prediction has no phases: each thread runs the lines once, before its first group of images.
    """

    lines: list[str]


Code = Iterator[str | Barrier]


class Slots(NamedTuple):
    """The C++ expressions for a layer's type and data."""

    number: int
    type: str
    x: str  # input
    y: str  # output
    dy: str  # gradient of the output
    dx: str  # gradient of the input
    weight: str
    bias: str
    gradients: str  # of weight and bias
    statistics: str  # running mean and variance


class Declaration(NamedTuple):
    """A layer's C++ type, and its own variables for each group of images and for each thread."""

    type: str = ""
    workspace: str = ""
    state: str = ""


@dataclass(frozen=True)
class Layer:
    """A layer with the sizes of its input and its output; a subclass for each kind."""

    module: Any
    input: Size
    output: Size

    in_place: ClassVar[bool] = False  # its output may overwrite its input
    backward_reads_output: ClassVar[bool] = False  # so the next layer must not overwrite it
    moves_gradient: ClassVar[bool] = False  # dx is in another buffer than dy
    increasing: ClassVar[bool] = False  # elementwise and monotonically increasing
    takes_maximum: ClassVar[bool] = False  # so it may run before an increasing function instead of after it
    num_statistics: ClassVar[int] = 0  # running mean and variance

    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        """Return the layer for a module and the size of its input; raises Unsupported."""
        return cls(module, input, input)

    def declare(self, at: Slots) -> Declaration:
        """Return what the layer's code needs."""
        return Declaration()

    def forward(self, at: Slots, mode: Mode) -> Code:
        """Yield the lines that compute y."""
        raise NotImplementedError

    def backward(self, at: Slots, first: bool) -> Code:
        """Yield the lines that add to the weight gradients and, except in the `first` layer with any, compute dx."""
        raise NotImplementedError


@dataclass(frozen=True)
class Conv(Layer):
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    moves_gradient = True

    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        require_settings(module, groups=1, dilation=1, padding_mode="zeros")
        require(not isinstance(module.padding, str), "padding must be numbers")
        _require_channels(module.in_channels, input)
        kernel, stride, padding = map(_pair, (module.kernel_size, module.stride, module.padding))
        size = output_size(input[1:], kernel, stride=stride, padding=padding)
        return cls(module, input, (module.out_channels, *size), kernel, stride, padding)

    def _padded(self, at: Slots, otherwise: str) -> str:
        return f"work.padded{at.number}" if any(self.padding) else otherwise

    def declare(self, at: Slots) -> Declaration:
        type_ = _template("Conv", self.input, self.output[0], *self.kernel, *self.stride, *self.padding)
        return Declaration(type_, f"v padded{at.number}[{at.type}::padded];" if any(self.padding) else "")

    def forward(self, at: Slots, mode: Mode) -> Code:
        x = self._padded(at, at.x)
        if x != at.x:
            yield f"{at.type}::pad({at.x}, {x});"
        yield f"{at.type}::forward({x}, {at.y}, {at.weight}, {at.bias});"

    def backward(self, at: Slots, first: bool) -> Code:
        yield f"{at.type}::weight_gradient({self._padded(at, at.x)}, {at.dy}, {at.gradients});"
        if not first:  # dx of the padded input overwrites that input, which is not needed any more
            yield f"{at.type}::input_gradient({at.dy}, {at.dx}, {self._padded(at, at.dx)}, {at.weight});"


class Dense(Conv):
    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        require(input[1:] == (1, 1), "it needs a Flatten before it")
        _require_channels(module.in_features, input)
        return cls(module, input, (module.out_features, 1, 1), kernel=(1, 1), stride=(1, 1), padding=(0, 0))


@dataclass(frozen=True)
class Pool(Layer):
    kernel: tuple[int, int]
    stride: tuple[int, int]

    moves_gradient = True
    template: ClassVar[str]

    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        require_settings(module, padding=0, ceil_mode=False, dilation=1, return_indices=False, divisor_override=None)
        kernel, stride = _pair(module.kernel_size), _pair(module.stride)
        return cls(module, input, (input[0], *output_size(input[1:], kernel, stride=stride)), kernel, stride)

    def declare(self, at: Slots) -> Declaration:
        return Declaration(_template(self.template, self.input, *self.kernel, *self.stride))

    def forward(self, at: Slots, mode: Mode) -> Code:
        yield f"{at.type}::forward({at.x}, {at.y});"

    def backward(self, at: Slots, first: bool) -> Code:
        yield f"{at.type}::backward({at.x}, {at.dy}, {at.dx});"


class MaxPool(Pool):
    template = "MaxPool"
    takes_maximum = True


class AvgPool(Pool):
    template = "AvgPool"


class GlobalAvgPool(AvgPool):
    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        require_settings(module, output_size=1)
        return cls(module, input, (input[0], 1, 1), kernel=input[1:], stride=input[1:])


class Norm(Layer):
    num_statistics = 2

    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        require_settings(module, affine=True, track_running_stats=True)
        require(module.momentum is not None, "momentum must be a number")
        _require_channels(module.num_features, input)
        return super().read(module, input)

    def declare(self, at: Slots) -> Declaration:
        name = f"norm{at.number};"
        return Declaration(_template("Norm", self.input), f"{at.type}::Partial {name}", f"{at.type}::Batch {name}")

    def forward(self, at: Slots, mode: Mode) -> Code:
        eps, momentum = _float(self.module.eps), _float(self.module.momentum)
        batch = f"state.norm{at.number}"
        if mode == "predict":
            yield Barrier([f"{at.type}::use_running({at.statistics}, {eps}, {batch});"])
        else:
            yield f"{at.type}::measure({at.x}, work.norm{at.number}, work.mask, work.images);"
            update = f"update_running({batch}, {momentum}" if mode == "train" else f"copy_statistics({batch}"
            merge = f"{at.type}::merge({self._partials(at)}, groups, {eps}, {batch});"
            yield Barrier([merge, f"if (main) {at.type}::{update}, {at.statistics});"])
        yield f"{at.type}::forward({at.x}, {at.y}, {batch}, {at.weight}, {at.bias});"

    def backward(self, at: Slots, first: bool) -> Code:
        batch = f"state.norm{at.number}"
        yield f"{at.type}::weight_gradient({at.x}, {at.dy}, {batch}, work.norm{at.number}, {at.gradients});"
        yield Barrier([f"{at.type}::merge_gradients({self._partials(at)}, groups, {batch});"])
        yield f"{at.type}::input_gradient({at.x}, {at.dy}, work.mask, {batch}, {at.weight});"

    def _partials(self, at: Slots) -> str:
        return f"[&](int g) -> const {at.type}::Partial& {{ return workspaces[g].norm{at.number}; }}"


class Activation(Layer):
    in_place = True
    backward_reads_output = True
    increasing = True

    @property
    def _arguments(self) -> str:
        return f"{type(self.module).__name__}, {math.prod(self.output)}"  # the function has its name in C++ too

    def forward(self, at: Slots, mode: Mode) -> Code:
        if at.x != at.y:
            yield f"memcpy({at.y}, {at.x}, sizeof {at.y});"
        yield f"activate<{self._arguments}>({at.y});"

    def backward(self, at: Slots, first: bool) -> Code:
        yield f"activate_backward<{self._arguments}>({at.y}, {at.dy});"


class Dropout(Layer):
    @classmethod
    def read(cls, module: Any, input: Size) -> Self:
        require(0 <= module.p < 1, "p must be below 1")
        return super().read(module, input)

    def _drop(self, at: Slots, x: str, y: str) -> str:
        seed = f"seed + {at.number * 0x9E3779B9 % 2**32}u"
        return f"dropout<{math.prod(self.output)}>({x}, {y}, {_float(self.module.p)}, {seed}, work.first);"

    def forward(self, at: Slots, mode: Mode) -> Code:
        yield self._drop(at, at.x, at.y) if mode == "train" else f"memcpy({at.y}, {at.x}, sizeof {at.y});"

    def backward(self, at: Slots, first: bool) -> Code:
        yield self._drop(at, at.dy, at.dy)


LAYERS: dict[type[nn.Module], type[Layer]] = {
    **dict.fromkeys((nn.Conv2d, TunedConv2d), Conv),
    nn.Linear: Dense,
    **dict.fromkeys((nn.MaxPool2d, CompiledMaxPool2d), MaxPool),
    nn.AvgPool2d: AvgPool,
    nn.AdaptiveAvgPool2d: GlobalAvgPool,
    **dict.fromkeys((nn.BatchNorm1d, nn.BatchNorm2d), Norm),
    **dict.fromkeys((nn.ReLU, nn.Sigmoid, nn.Tanh), Activation),
    **dict.fromkeys((nn.Dropout, FastDropout), Dropout),
}


def require(condition: bool, reason: str) -> None:
    """Raise Unsupported with the reason unless the condition holds."""
    if not condition:
        raise Unsupported(reason)


def require_settings(module: nn.Module, **settings: Any) -> None:
    """Raise Unsupported unless the module has these values, once or for height and width, or no such setting."""
    for name, value in settings.items():
        require(getattr(module, name, value) in (value, (value, value)), f"{name} must be {value!r}")


def _require_channels(expected: int, input: Size) -> None:
    require(expected == input[0], f"it expects {expected} channels or features, not {input[0]}")


def _pair(value: Any) -> tuple[int, int]:
    """Return a setting for height and width that is given as one number or two."""
    return (value, value) if isinstance(value, int) else (value[0], value[1])


def _float(value: Any) -> str:
    return f"{float(value)!r}f"


def _template(name: str, input: Size, *arguments: int) -> str:
    shape = f"Shape<{', '.join(map(str, input))}>"
    return f"{name}<{', '.join([shape, *map(str, arguments)])}>"
