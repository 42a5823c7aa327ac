"""A dry run of a network that records the output, parameters, MACs, memory and receptive field of each module."""

import copy
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, fx, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnkit.anatomy.receptive import Receptive, field_after
from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.core.shape import by
from cnnkit.ops import Conv2D, MultiChannelConv2D

__all__ = ["Anatomy", "Part", "trace"]

Kind = TypeVar("Kind")


@dataclass
class Part:
    """A module of the network with all its submodules, for one image in float32.

    `output` is the shape of the result without the batch, `receptive` its receptive field, None if unknown. `params`
    includes frozen ones, as in PyTorch and torchvision; `statistics` counts the moving means and variances of batch
    normalisation (Keras' total is the sum of both). `macs` counts the multiply-accumulates of convolutions and matrix
    products.

    `inference_bytes` is the peak of the feature maps alive while the part runs: its input, its output, and tensors that
    other branches still need; views and in-place operators take none. PyTorch itself may hold more, such as the input
    of a nested `nn.Sequential` until it returns.
    `training_bytes` is what autograd saves for the backward pass, each tensor once, for the first part that saves it: a
    convolution its input, a ReLU its output, max pooling its input and indices. Weights, statistics, tensors that do
    not grow with the batch and temporary buffers of operators are not counted.
    """

    name: str  # with dots, as `get_submodule` takes it
    kind: str
    params: int
    statistics: int
    output: tuple[int, ...] = ()
    receptive: Receptive | None = field(default_factory=Receptive)
    macs: int = 0
    inference_bytes: int = 0
    training_bytes: int = 0
    parts: list["Part"] = field(default_factory=list)

    @property
    def output_bytes(self) -> int:
        """The size of the output."""
        return 4 * math.prod(self.output)

    @property
    def layers(self) -> list["Part"]:
        """The parts without parts, in the order in which they run."""
        return [layer for part in self.parts for layer in part.layers] if self.parts else [self]

    def rows(self, depth: int | None = None, level: int = 0) -> Iterator[tuple[int, "Part"]]:
        """Yield this part and its parts down to `depth` in the order of a listing, each with its level."""
        yield level, self
        for part in self.parts if depth is None or level < depth else ():
            yield from part.rows(depth, level + 1)


@dataclass
class Anatomy(Part):
    """The network as a whole, for one input size C x H x W."""

    input: tuple[int, int, int] = (0, 0, 0)

    @property
    def stages(self) -> list[Part]:
        """The named children of the network."""
        return self.parts


def trace(net: nn.Module, input_size: tuple[int, int, int]) -> Anatomy:
    """Run `net` on the meta device, which computes shapes only, for one image of `input_size` C x H x W.

    The network is not changed, and no memory is allocated for weights or features. `training_bytes` refers to training
    mode, where frozen layers save less, all else to evaluation mode. MACs are half of torch's FLOP count. Raises
    UsageError if the network does not accept such an image, or if its code cannot be traced, for instance because it
    branches on values.
    """
    net = unwrapped(net)
    if not isinstance(input_size, Sequence) or len(input_size) != 3:
        raise UsageError(f"input_size must be C x H x W, such as (3, 224, 224), not {input_size!r}")
    try:
        with torch.device("meta"):  # for tensors that the network's code creates
            shadow = _on_meta(net if next(net.children(), None) else nn.Sequential(net))
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                recorder = _Recorder(shadow.eval(), input_size, counter)
                recorder.run(_images(1, input_size))
            saved = _SavedBytes(shadow.train())  # the third image's share, as channel statistics do not grow
            two, three = (saved.measure(_images(count, input_size)) for count in (2, 3))
    except UsageError as error:
        raise UsageError(_first_line(error)) from error
    except (RuntimeError, ValueError, TypeError) as error:
        raise UsageError(f"the network does not accept an image of {by(*input_size)}: {_first_line(error)}") from error
    for key, part in recorder.parts.items():
        part.training_bytes = three[key] - two[key]
        if (node := recorder.returned.get(key)) in recorder.seen:
            part.output, part.receptive = recorder.seen[node]
    return recorder.whole


def _first_line(error: Exception) -> str:
    """Return the message of an error, without the traces that torch adds."""
    return str(error).strip().partition("\n")[0]


def _on_meta(net: nn.Module) -> nn.Module:
    """Copy the network to the meta device, with floating-point tensors as float32."""

    def shape(tensor: Tensor) -> Tensor:
        return tensor.detach().to("meta", torch.float32 if tensor.is_floating_point() else tensor.dtype)

    memo: dict[int, Any] = {id(buffer): shape(buffer) for buffer in net.buffers()}
    memo |= {id(weight): nn.Parameter(shape(weight), weight.requires_grad) for weight in net.parameters()}
    return copy.deepcopy(net, memo)


def _images(count: int, size: tuple[int, int, int]) -> Tensor:
    return torch.empty(count, *size, dtype=torch.float32, device="meta")


class _Tracer(fx.Tracer):
    """Traces down to standard layers and classes derived from them; records what the modules above return."""

    def __init__(self) -> None:
        super().__init__()
        self.returned: dict[str, fx.Node] = {}  # by the modules' keys

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        def noting(*args: Any, **kwargs: Any) -> Any:
            result = forward(*args, **kwargs)
            for proxy in _each(fx.Proxy, result):
                self.returned.setdefault(next(reversed(self.module_stack)), proxy.node)
            return result

        return super().call_module(m, noting, args, kwargs)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        kinds = type(m).__mro__[: type(m).__mro__.index(nn.Module)]
        standard = any(kind.__module__.startswith(("torch.nn.", "cnnkit.ops.")) for kind in kinds)
        return standard and not isinstance(m, nn.Sequential | nn.ModuleList | nn.ModuleDict)


class _Run(fx.Interpreter):
    """Runs the network operator by operator, with the modules around each: their keys, paths and kinds."""

    def __init__(self, net: nn.Module):
        tracer = _Tracer()
        try:
            graph = tracer.trace(net)
        except (fx.proxy.TraceError, TypeError) as error:
            raise UsageError(f"the network's code cannot be traced: {error}") from error
        super().__init__(net, graph=graph)
        self.returned = tracer.returned
        self.net = net
        self.weights = {tensor.untyped_storage() for tensor in (*net.parameters(), *net.buffers())}
        self.around: dict[str, tuple[str, Any]] = {}

    def run_node(self, n: fx.Node) -> Any:
        self.around = n.meta.get("nn_module_stack", {})
        return super().run_node(n)


class _Recorder(_Run):
    """Records output, MACs, receptive field and live memory of each module."""

    def __init__(self, net: nn.Module, input_size: tuple[int, int, int], counter: FlopCounterMode):
        super().__init__(net)
        self.counter = counter
        self.everything = Receptive(input_size[1:], (0, 0), (0, 0))
        self.seen: dict[fx.Node | None, tuple[tuple[int, ...], Receptive | None]] = {}  # what depends on the image
        self.whole = Anatomy("", type(net).__name__, *_holds(net), input=input_size)
        self.parts: dict[str, Part] = {"": self.whole}

    def run_node(self, n: fx.Node) -> Any:
        before = self.counter.get_total_flops()
        result = super().run_node(n)
        if n.op == "output":
            self.returned[""] = next(_each(fx.Node, n.args), n)
        if n.op in ("get_attr", "output"):
            return result
        macs = (self.counter.get_total_flops() - before) // 2
        layer = self.submodules[str(n.target)] if n.op == "call_module" else None
        if layer is not None:
            self.returned[next(reversed(self.around))] = n
        if isinstance(layer, Conv2D | MultiChannelConv2D):  # torch does not count their sums of products
            macs = result.shape[-2:].numel() * layer.weight.numel()
        self._look(n, layer, next(_each(Tensor, result), None))
        alive = {tensor.untyped_storage() for tensor in _each(Tensor, [result, *self.env.values()])} - self.weights
        for part in self._parts():
            part.macs += macs
            part.inference_bytes = max(part.inference_bytes, sum(storage.nbytes() for storage in alive))
        return result

    def _parts(self) -> list[Part]:
        """Return the parts around the current operator, outermost first; new ones are added to the tree."""
        parts: list[Part] = [self.whole]
        for key, (path, _) in self.around.items():
            if key not in self.parts:
                module = self.net.get_submodule(path)
                self.parts[key] = Part(path, type(module).__name__, *_holds(module))
                parts[-1].parts.append(self.parts[key])
            parts.append(self.parts[key])
        return parts

    def _look(self, n: fx.Node, layer: nn.Module | None, made: Tensor | None) -> None:
        """Record the output and receptive field of a node, if it depends on the image and not on weights alone."""
        feeds = [node for node in n.all_input_nodes if node in self.seen]
        if made is None or not (feeds or n.op == "placeholder"):
            return
        seen: Receptive | None = Receptive()
        if feeds:
            fields = [self.seen[node][1] for node in feeds]
            maps = [tensor for node in feeds for tensor in _each(Tensor, self.env[node]) if tensor.ndim > 3]
            args, kwargs = self.fetch_args_kwargs_from_env(n)
            seen = field_after(layer or n.target, args, kwargs, fields, maps, made, self.everything)
        self.seen[n] = tuple(made.shape[1:]), seen


class _SavedBytes(_Run):
    """Counts the bytes that autograd saves, by module."""

    def measure(self, images: Tensor) -> Counter[str]:
        """Return the bytes for these images, by the modules' keys."""
        self.seen, self.bytes = set(self.weights), Counter[str]()
        with torch.enable_grad(), torch.autograd.graph.saved_tensors_hooks(self._save, lambda tensor: tensor):
            self.run(images)
        return self.bytes

    def _save(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage not in self.seen:
            self.seen.add(storage)
            self.bytes.update(dict.fromkeys(("", *self.around), storage.nbytes()))
        return tensor


def _holds(module: nn.Module) -> tuple[int, int]:
    """Return the numbers of parameters and of moving statistics."""
    statistics = (buffer for buffer in module.buffers() if buffer.is_floating_point())
    return sum(weight.numel() for weight in module.parameters()), sum(buffer.numel() for buffer in statistics)


def _each(kind: type[Kind], value: Any) -> Iterator[Kind]:
    """Yield the objects of this kind in a value of the graph."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, tuple | list | dict):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _each(kind, item)
