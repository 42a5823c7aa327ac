"""One dry run of a network: what each layer makes, holds, costs and sees."""

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnkit.anatomy.receptive import Receptive, join, through
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.shape import by
from cnnkit.ops import Conv2D, MultiChannelConv2D

__all__ = ["Anatomy", "Layer", "Stage", "trace"]


@dataclass(frozen=True)
class Layer:
    """One layer: its output without the batch, what it holds and what it costs for one image."""

    name: str
    kind: str
    output: tuple[int, ...]
    params: int
    statistics: int  # moving means and variances
    macs: int  # multiply-accumulates of convolutions and matrix products
    receptive: Receptive


class _Totals:
    """Sums over layers."""

    layers: list[Layer]

    @property
    def params(self) -> int:
        """Parameters, frozen ones too, as PyTorch and torchvision count."""
        return sum(layer.params for layer in self.layers)

    @property
    def statistics(self) -> int:
        """Moving means and variances of batch normalisation; Keras' total is `params + statistics`."""
        return sum(layer.statistics for layer in self.layers)

    @property
    def macs(self) -> int:
        """Multiply-accumulates for one image."""
        return sum(layer.macs for layer in self.layers)


@dataclass
class Stage(_Totals):
    """A named child of the network and its layers."""

    name: str
    output: tuple[int, ...]
    receptive: Receptive
    layers: list[Layer] = field(default_factory=list)


@dataclass
class Anatomy(_Totals):
    """The stages of a network, and all their layers, for one input size C x H x W."""

    input: tuple[int, int, int]
    stages: list[Stage]

    def __post_init__(self) -> None:
        self.layers = [layer for stage in self.stages for layer in stage.layers]


def trace(net: nn.Module, input_size: tuple[int, int, int]) -> Anatomy:
    """Run `net` on the meta device, which computes shapes only, for one image of `input_size` C x H x W.

    The net is not changed and no memory is taken for weights or features. MACs are torch's FLOP counter halved.
    Receptive fields count the windows of layers: use `nn.MaxPool2d`, not `F.max_pool2d`. Raises UsageError if the net
    cannot take such an image, or its code cannot be followed (branches that depend on values).
    """
    shadow = _on_meta(net if next(net.children(), None) else nn.Sequential(net)).eval()
    try:
        graph = _Tracer().trace(shadow)
    except (fx.proxy.TraceError, TypeError) as error:
        raise UsageError(f"the network's code cannot be followed: {error}") from error
    recorder = _Recorder(fx.GraphModule(shadow, graph), input_size)
    try:
        recorder.run(torch.empty(1, *input_size, device="meta"))
    except CnnkitError:
        raise
    except (RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"the network cannot take an image of {by(*input_size)}: {reason}") from error
    return Anatomy(input_size, list(recorder.stages.values()))


def _on_meta(net: nn.Module) -> nn.Module:
    """Copy the net's structure; its tensors become shapes."""
    tensors = [*net.parameters(), *net.buffers()]
    memo: dict[int, Any] = {
        id(tensor): nn.Parameter(tensor.detach().to("meta"), tensor.requires_grad)
        if isinstance(tensor, nn.Parameter)
        else tensor.to("meta")
        for tensor in tensors
    }
    return copy.deepcopy(net, memo)


class _Tracer(fx.Tracer):
    """Follows the code down to the modules that have no parts, whatever library they are from."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return next(m.children(), None) is None


class _Recorder(fx.Interpreter):
    """Runs the graph node by node and notes each layer, its stage, and the field it sees."""

    def __init__(self, module: fx.GraphModule, input_size: tuple[int, int, int]):
        super().__init__(module)
        self.whole = Receptive(input_size[1:], (0, 0), (0, 0))
        self.fields: dict[fx.Node, Receptive] = {}
        self.stages: dict[str, Stage] = {}

    def run_node(self, n: fx.Node) -> Any:
        with FlopCounterMode(display=False) as counter:
            result = super().run_node(n)
        if n.op == "output" or not isinstance(result, Tensor):
            return result
        layer = self.module.get_submodule(str(n.target)) if n.op == "call_module" else None
        if n.op == "get_attr":  # a parameter of the network's own
            return result
        self.fields[n] = receptive = self._field(n, layer, result)
        output = tuple(result.shape[1:])
        stack = list(n.meta.get("nn_module_stack", {}))
        if not stack:
            return result
        name = stack[0].split(".")[0]
        stage = self.stages.setdefault(name, Stage(name, output, receptive))
        stage.output, stage.receptive = output, receptive
        if layer is not None:
            path = str(n.target).partition(".")[2] or name
            macs = counter.get_total_flops() // 2
            if isinstance(layer, Conv2D | MultiChannelConv2D):  # sums of products, not the calls that torch counts
                macs = result.shape[-2:].numel() * layer.weight.numel()
            stage.layers.append(_layer(path, layer, output, macs, receptive))
        return result

    def _field(self, n: fx.Node, layer: nn.Module | None, result: Tensor) -> Receptive:
        if n.op == "placeholder":
            return Receptive()
        before = [self.fields[node] for node in n.all_input_nodes if node in self.fields]
        maps = [shape[-2:] for shape in self._shapes(n) if len(shape) == 4]
        if result.ndim < 4 or not before or not maps:
            return self.whole
        size = max(maps, key=math.prod)
        joined = join(before)
        if isinstance(layer, nn.AdaptiveAvgPool2d | nn.AdaptiveMaxPool2d) and size != result.shape[-2:]:
            return self.whole
        if joined == self.whole:
            return joined
        field = joined if layer is None else through(joined, layer, (size[0], size[1]))
        if field == joined and size != result.shape[-2:]:
            raise UsageError(f"the receptive field behind {n.name} is not known: it resizes without a window layer")
        return field

    def _shapes(self, n: fx.Node) -> list[torch.Size]:
        values = (self.env.get(node) for node in n.all_input_nodes)
        return [value.shape for value in values if isinstance(value, Tensor)]


def _layer(name: str, layer: nn.Module, output: tuple[int, ...], macs: int, receptive: Receptive) -> Layer:
    def count(tensors: Iterator[Tensor]) -> int:
        return sum(tensor.numel() for tensor in tensors if tensor.is_floating_point())

    return Layer(name, type(layer).__name__, output, count(layer.parameters()), count(layer.buffers()), macs, receptive)
