"""Anatomy against the zoo's counts, literals by hand, what autograd keeps and receptive fields by brute force."""

import copy
import csv
import functools
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit import ops
from cnnkit.anatomy import Anatomy, Receptive, trace
from cnnkit.core.errors import UsageError
from cnnkit.deploy import Bundle, save_bundle
from cnnkit.nets import ZOO, create
from conftest import Cli, one_line

DEEP = {"densenet121.tv", "densenet161.tv", "densenet169.tv", "densenet201.tv", "resnet101.tv", "resnet152.tv"}
every = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if name in DEEP else []) for name in sorted(ZOO)]
)
FROM_SCRATCH = ops.MultiChannelConv2D


class Branches(nn.Module):
    """Two branches over the same grid and a shortcut around them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 2, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.wide(x), self.pool(x)[:, :1]], dim=1) + x


class Functions(nn.Module):
    """Windows without layers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1, 1, 3, 5))

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(F.pad(x, (0, 2, 1, 0)), self.weight, stride=(1, 2), padding=1)
        x = F.max_pool2d(F.relu(x), 3, 2, 1, ceil_mode=True)
        low, high = torch.cat([x, x], 1).chunk(2, dim=1)
        return F.avg_pool2d(torch.max_pool2d(low + high, (1, 2), stride=1), kernel_size=2)


class Functional(nn.Module):
    """A function as a module, with the parts that it needs."""

    def __init__(self, function: Callable[..., object], *parts: nn.Module) -> None:
        super().__init__()
        self.function, self.inner = function, nn.ModuleList(parts)

    def forward(self, x: Tensor) -> object:
        return self.function(x, *self.inner)


class Shuffle(nn.Module):
    """Channels change their places."""

    def forward(self, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        return x.view(count, 2, channels // 2, height, width).transpose(1, 2).reshape(count, channels, height, width)


NETS = {
    "strides and dilation": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, (3, 1), 1, 0, (2, 1)), nn.AvgPool2d(2)
        ),
        (1, 33, 31),
    ),
    "branches": (
        lambda: nn.Sequential(nn.Conv2d(1, 3, 3, 2), Branches(), nn.Conv2d(3, 1, 3, padding="same")),
        (1, 29, 29),
    ),
    "same with a stride": (
        lambda: nn.Sequential(FROM_SCRATCH(1, 1, 3, stride=2, padding="same"), FROM_SCRATCH(1, 1, 2)),
        (1, 9, 12),
    ),
    "from scratch": (
        lambda: nn.Sequential(FROM_SCRATCH(1, 2, 3, stride=2, padding=(0, 1)), FROM_SCRATCH(2, 1, 2)),
        (1, 20, 20),
    ),
    "pooling from scratch": (
        lambda: nn.Sequential(ops.Pool2D(3, stride=2, padding=1), ops.Pool2D((1, 2)), ops.AdaptiveAvgPool2D((5, 1))),
        (1, 20, 17),
    ),
    "functions": (lambda: nn.Sequential(Functions()), (1, 21, 30)),
    "rounded up": (
        lambda: nn.Sequential(nn.MaxPool2d(3, 2, ceil_mode=True), nn.MaxPool2d(2, 2, ceil_mode=True)),
        (1, 12, 14),
    ),
    "pads": (lambda: nn.Sequential(nn.Sequential(nn.ZeroPad2d((2, 0, 0, 1)), nn.Conv2d(1, 1, 3))), (1, 9, 8)),
    "other pads and pooling": (
        lambda: nn.Sequential(
            nn.Sequential(nn.ReflectionPad2d((1, 0, 1, 1)), nn.Conv2d(1, 1, 3)),
            nn.Sequential(nn.ReplicationPad2d(1), nn.Conv2d(1, 1, (2, 3))),
            nn.LPPool2d(2, 3, stride=2),
            Functional(lambda x: F.lp_pool2d(x, 2, (2, 1))),
        ),
        (1, 18, 21),
    ),
    "pooled to what it is": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(7)), (1, 9, 9)),
    "pooled evenly": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d((3, 7))), (1, 14, 16)),
}


def opened(net: nn.Module) -> nn.Module:
    """Copy a net so that a map is above zero where, and only where, what it sees is; one channel will do for that."""
    net = copy.deepcopy(net)
    for module in net.modules():
        if isinstance(module, nn.Conv2d | FROM_SCRATCH):
            module.weight = nn.Parameter(torch.ones(1, 1, *module.weight.shape[-2:]))
            module.bias = None
            module.forward = lambda x, convolve=module.forward: convolve(x.sum(1, keepdim=True))  # type: ignore[misc]
        elif isinstance(module, nn.ReLU | nn.Sigmoid | nn.BatchNorm2d | nn.Dropout):
            module.forward = lambda x: (x > 0).to(x)  # nothing grows beyond a float
    return net


def check_fields(net: nn.Module, parts: Anatomy) -> int:
    """Light up each line of pixels alone: those that reach an element are its field. Returns how often it looked."""
    _, height, width = parts.input
    checked = 0
    with torch.no_grad():
        for axis, lines in enumerate((height, width)):
            x = torch.eye(lines)
            x = x.view(lines, 1, lines, 1) if axis == 0 else x.view(lines, 1, 1, lines)
            x = x.expand(lines, 1, height, width)
            for (_, stage), part in zip(opened(net).named_children(), parts.stages, strict=True):
                if part.receptive is None or part.receptive.step[axis] == 0:
                    break
                x = stage(x)
                reached = (x > 0).any(1).any(2 - axis)
                used = reached.any(1).nonzero().flatten().tolist()
                assert used[0] == 0
                assert lines - used[-1] <= part.receptive.step[axis]  # what a valid window leaves over
                for at, touched in enumerate(reached.T):
                    first = part.receptive.start[axis] + at * part.receptive.step[axis]
                    last = first + part.receptive.size[axis] - 1
                    seen = touched.nonzero().flatten().tolist()
                    assert (seen[0], seen[-1]) == (max(first, 0), min(last, used[-1])), (part.name, axis, at)
                checked += 1
    return checked


@pytest.mark.parametrize("name", NETS)
def test_receptive_fields_by_brute_force(name: str) -> None:
    make, size = NETS[name]
    net = make()
    assert check_fields(net, trace(net, size)) >= 2


@every
def test_receptive_fields_of_the_zoo_by_brute_force(name: str) -> None:
    """On a strip as high as the net's own input and as narrow as it takes."""
    size = *ZOO[name].input[:2], ZOO[name].smallest
    with torch.device("meta"):
        net = create(name, image_size=size[1:])
    assert check_fields(net, trace(net, size)) >= 4


@pytest.mark.parametrize(
    ("name", "height", "field"),
    [
        ("alexnet", 260, 195), ("vgg16", 256, 212), ("nin", 200, 131), ("googlenet", 800, 715), ("resnet18", 480, 435),
        ("resnet18.tv", 480, 435), ("resnet50.tv", 480, 427), ("densenet", 600, 519),
    ],
)  # fmt: skip
def test_whole_receptive_fields_by_brute_force(name: str, height: int, field: int) -> None:
    """On a strip so high that the largest field, a known number, fits in."""
    size = ZOO[name].input[0], height, ZOO[name].smallest
    with torch.device("meta"):
        net = create(name, image_size=size[1:])
    parts = trace(net, size)
    assert (
        max(stage.receptive.size[0] for stage in parts.stages if stage.receptive and stage.receptive.step[0]) == field
    )
    assert check_fields(net, parts) >= 4


@functools.cache
def traced(name: str) -> Anatomy:
    with torch.device("meta"):
        net = create(name)
    return trace(net, ZOO[name].input)


@every
def test_counts_are_the_zoos_and_all_fields_are_known(name: str) -> None:
    assert (traced(name).macs, traced(name).params) == (ZOO[name].macs, ZOO[name].params)
    assert all(part.receptive for _, part in traced(name).rows())


@every
def test_a_part_is_the_sum_of_its_parts(name: str) -> None:
    for _, part in traced(name).rows():
        for count in ("params", "statistics", "macs", "training_bytes"):
            assert not part.parts or getattr(part, count) == sum(getattr(inner, count) for inner in part.parts)
        assert part.inference_bytes >= max((inner.inference_bytes for inner in part.parts), default=part.output_bytes)


def test_lenet_literals() -> None:
    parts = traced("lenet")
    assert [stage.receptive for stage in parts.stages] == [
        Receptive((6, 6), (2, 2), (0, 0)),
        Receptive((16, 16), (4, 4), (0, 0)),
        Receptive((28, 28), (0, 0), (0, 0)),
        Receptive((28, 28), (0, 0), (0, 0)),
    ]
    assert [stage.macs for stage in parts.stages] == [86_400, 153_600, 40_800, 840]
    assert parts.macs == 24 * 24 * 6 * 25 + 8 * 8 * 16 * 150 + 256 * 120 + 120 * 84 + 84 * 10
    assert [layer.name for layer in parts.layers][:4] == ["conv1.0", "conv1.1", "conv1.2", "conv2.0"]
    assert [layer.name for layer in parts.layers][-2:] == ["dense.4", "head"]
    assert [layer.output_bytes for layer in parts.layers[:3]] == [6 * 24 * 24 * 4, 6 * 24 * 24 * 4, 6 * 12 * 12 * 4]


def test_lenets_memory_by_hand() -> None:
    """A convolution and a dense layer keep their input, a sigmoid its output, pooling 8 bytes for each maximum."""
    kept = {
        "conv1.0": 28 * 28 * 4, "conv1.1": 6 * 24 * 24 * 4, "conv1.2": 6 * 12 * 12 * 8,
        "conv2.0": 6 * 12 * 12 * 4, "conv2.1": 16 * 8 * 8 * 4, "conv2.2": 16 * 4 * 4 * 8,
        "dense.0": 0, "dense.1": 256 * 4, "dense.2": 120 * 4, "dense.3": 0, "dense.4": 84 * 4, "head": 0,
    }  # fmt: skip
    parts = traced("lenet")
    assert {layer.name: layer.training_bytes for layer in parts.layers} == kept
    assert parts.training_bytes == sum(kept.values()) == 35_312
    assert [stage.inference_bytes for stage in parts.stages] == [
        2 * 6 * 24 * 24 * 4, 2 * 16 * 8 * 8 * 4, (256 + 120) * 4, (84 + 10) * 4
    ]  # fmt: skip
    assert parts.inference_bytes == parts.stages[0].inference_bytes


def kept_for_real(net: nn.Module, count: int, size: tuple[int, int, int]) -> int:
    """Count what autograd keeps of a batch, in a real training step."""
    kept = set()

    def keep(tensor: Tensor) -> Tensor:
        kept.add(tensor.untyped_storage())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        net.train()(torch.rand(count, *size))
    held = {tensor.untyped_storage() for tensor in (*net.parameters(), *net.buffers())}
    return sum(storage.nbytes() for storage in kept - held)


@pytest.mark.parametrize("name", ["lenet_bn", "alexnet", "nin", "googlenet", "resnet18", "resnet18_preact", "densenet"])
def test_training_keeps_what_autograd_really_keeps(name: str) -> None:
    channels, size = ZOO[name].input[0], max(32, ZOO[name].smallest)
    net = create(name, image_size=size)
    fewer, more = (kept_for_real(net, count, (channels, size, size)) for count in (2, 3))
    assert trace(net, (channels, size, size)).training_bytes == more - fewer > 0


def test_training_keeps_no_statistics_and_nothing_for_frozen_layers() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.ReLU())
    assert [part.training_bytes for part in trace(net, (1, 4, 4)).parts] == [16 * 4, 2 * 16 * 4, 2 * 16 * 4]
    assert trace(net.requires_grad_(False), (1, 4, 4)).training_bytes == 0
    assert trace(net.double(), (1, 4, 4)).inference_bytes == 2 * 2 * 16 * 4


def test_inference_remembers_what_branches_still_need() -> None:
    """In units of the map: the shortcut's input, a layer's input and its output."""

    class Shortcut(nn.Module):
        def __init__(self, *layers: nn.Module) -> None:
            super().__init__()
            self.body = nn.Sequential(*layers)

        def forward(self, x: Tensor) -> Tensor:
            return self.body(x) + x

    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.ones(4, 8, 8))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.weight

    def convolution() -> nn.Module:
        return nn.Conv2d(4, 4, 3, padding=1)

    def units(*layers: nn.Module) -> list[float]:
        parts = trace(nn.Sequential(*layers), (4, 8, 8))
        return [layer.inference_bytes / (4 * 8 * 8 * 4) for layer in parts.layers] + [parts.inference_bytes / 1024]

    assert units(convolution(), nn.ReLU(), convolution()) == [2, 2, 2, 2]
    assert units(convolution(), nn.ReLU(inplace=True), convolution()) == [2, 1, 2, 2]
    assert units(Scaled(), nn.ReLU()) == [2, 2, 2]
    assert units(Shortcut(convolution(), nn.ReLU(), convolution())) == [2, 3, 3, 3]
    assert units(Shortcut(convolution(), nn.ReLU(inplace=True)), nn.Flatten()) == [2, 2, 1, 3]


def test_the_tree() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(3, 3)

        def forward(self, x: Tensor) -> Tensor:
            return F.relu(self.layer(F.relu(self.layer(x))))

    parts = trace(nn.Sequential(nn.Flatten(), Twice(), nn.Sequential(nn.Linear(3, 2), nn.Sequential())), (1, 1, 3))
    rows = [(level, part.name, part.kind, part.params, part.macs) for level, part in parts.rows()]
    assert rows == [
        (0, "", "Sequential", 20, 24),
        (1, "0", "Flatten", 0, 0),
        (1, "1", "Twice", 12, 18),
        (2, "1.layer", "Linear", 12, 9),
        (2, "1.layer", "Linear", 12, 9),
        (1, "2", "Sequential", 8, 6),
        (2, "2.0", "Linear", 8, 6),
    ]
    assert [row[1] for row in rows if row[0] <= 1] == [part.name for _, part in parts.rows(1)]
    assert [*parts.rows(0)] == [(0, parts)]
    assert [layer.name for layer in parts.layers] == ["0", "1.layer", "1.layer", "2.0"]


@pytest.mark.parametrize("name", ["lenet", "lenet_bn"])
def test_the_net_is_left_as_it_was(name: str) -> None:
    net = create(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trace(net, ZOO[name].input)
    assert net.training
    assert all(value.equal(before[key]) and value.device.type == "cpu" for key, value in net.state_dict().items())


def test_from_scratch_costs_what_torchs_layer_costs() -> None:
    from_scratch, torchs = FROM_SCRATCH(2, 3, (3, 1), stride=2, padding=1), nn.Conv2d(2, 3, (3, 1), 2, 1)
    assert trace(from_scratch, (2, 9, 8)).macs == trace(torchs, (2, 9, 8)).macs > 0
    torchs.requires_grad_(False)
    assert trace(torchs, (2, 9, 8)).params == trace(from_scratch, (2, 9, 8)).params == 21


def test_a_gate_over_channels_sees_the_whole_image_and_keeps_the_map() -> None:
    class Gate(nn.Module):
        def __init__(self, pool: Callable[[Tensor], Tensor]) -> None:
            super().__init__()
            self.pool, self.mix = pool, nn.Conv2d(2, 2, 1)
            self.scale = nn.Parameter(torch.ones(2, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.mix(self.pool(x)).sigmoid() * self.scale

    for pool in (
        nn.AdaptiveAvgPool2d(1),
        lambda x: x.mean((2, 3), keepdim=True),
        lambda x: F.adaptive_max_pool2d(x, 1),
    ):
        parts = trace(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), Gate(pool)), (1, 8, 8))
        assert parts.stages[-1].output == (2, 8, 8)
        assert parts.stages[-1].receptive == Receptive((8, 8), (0, 0), (0, 0))
        assert parts.stages[-1].params == 8


EVERYTHING = Receptive((8, 8), (0, 0), (0, 0))
MIRROR = [7, 6, 5, 4, 3, 2, 1, 0]
KEEP: list[nn.Module | Callable[..., object]] = [
    nn.PReLU(4), nn.GELU(), nn.ReLU(inplace=True), nn.Dropout2d(), nn.Identity(), nn.BatchNorm2d(4), nn.Softmax(1),
    nn.Softmax2d(), nn.GLU(1), nn.ChannelShuffle(2), nn.LocalResponseNorm(2), Shuffle(),
    nn.InstanceNorm2d(4, track_running_stats=True), nn.Conv2d(4, 2, 1), nn.AvgPool2d(1),
    lambda x: 1 - x / 2 + x.pow(2).clamp(max=0.9), lambda x: x.mul_(2).neg_(), lambda x: torch.max(x, -x),
    lambda x: F.softmax(x, -3), lambda x: x.softmax(1), lambda x: F.batch_norm(x, torch.zeros(4), torch.ones(4)),
    lambda x: F.hardswish(x) + torch.ones(8), lambda x: x * x.mean(1, keepdim=True), lambda x: x.permute(1, 0, -2, -1),
    lambda x: x.chunk(2, 1)[1], lambda x: x[:, 1:].unsqueeze(1), lambda x: torch.cat([x, x[:, :1]], 1),
    lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: x.view(x.shape),
    lambda x: x[:, 0:2].reshape(x.size(0), 1, 2, 8, 8),
]  # fmt: skip
MIX: list[nn.Module | Callable[..., object]] = [
    nn.GroupNorm(2, 4), nn.InstanceNorm2d(4), nn.LayerNorm([4, 8, 8]), nn.Linear(8, 8), nn.Linear(8, 5),
    nn.BatchNorm2d(4, track_running_stats=False), nn.Flatten(), nn.AdaptiveMaxPool2d(1),
    lambda x: F.layer_norm(x, (8, 8)), lambda x: F.group_norm(x, 2), lambda x: F.instance_norm(x),
    lambda x: F.linear(x, torch.ones(8, 8)), lambda x: x * x.mean(2, keepdim=True), lambda x: x.sum((2, 3)),
    Functional(lambda x, whole: x * whole(x), nn.Conv2d(4, 4, 8)),
    lambda x: F.interpolate(x, scale_factor=2).amax((2, 3), keepdim=True),
    lambda x: x.flip(2) * x.mean((2, 3), keepdim=True),
]  # fmt: skip
MOVE: list[nn.Module | Callable[..., object]] = [
    nn.Softmax(2), nn.LogSoftmax(-1), nn.Upsample(scale_factor=2), nn.ConvTranspose2d(4, 4, 3, padding=1),
    nn.PixelShuffle(2), nn.AdaptiveAvgPool2d(5), nn.Flatten(2), nn.Sequential(nn.Upsample(scale_factor=2), nn.ReLU()),
    lambda x: x.flip(2), lambda x: torch.roll(x, 1, 3), lambda x: x.transpose(2, 3), lambda x: x.mT,
    lambda x: x[..., 1:], lambda x: x[:, :, MIRROR], lambda x: x.softmax(3),
    lambda x: F.softmax(x, dim=2), lambda x: x.cumsum_(2),
    lambda x: F.conv_transpose2d(x, torch.ones(4, 4, 3, 3), padding=1), lambda x: F.interpolate(x, scale_factor=2),
    lambda x: F.batch_norm(x, None, None, training=True), lambda x: torch.cat([x, x], 2), lambda x: x.flip(2) + x,
    lambda x: x.repeat(1, 2, 1, 1).view(-1, 8, 8, 8).transpose(1, 2), lambda x: x.split(5, 2)[0],
    lambda x: F.avg_pool2d(x, 2) + F.avg_pool2d(x, 5, 1),
    Functional(lambda x, up, after: after(up(x)), nn.Upsample(scale_factor=2), nn.Conv2d(4, 4, 3)),
]  # fmt: skip


def behind_a_window(operator: nn.Module | Callable[..., object]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(4, 4, 3, padding=1), operator if isinstance(operator, nn.Module) else Functional(operator)
    )


@pytest.mark.parametrize("at", range(len(KEEP)))
def test_what_keeps_the_pixels_in_place_keeps_the_field(at: int) -> None:
    net = behind_a_window(KEEP[at])
    assert trace(net, (4, 8, 8)).receptive == Receptive((3, 3), (1, 1), (-1, -1))
    x = torch.rand(1, 4, 8, 8, generator=torch.manual_seed(0), requires_grad=True)
    seen = net.eval()(x)[..., 3, 4].flatten()
    (seen @ torch.rand(seen.shape)).backward()
    assert x.grad is not None
    rows, columns = x.grad[0].abs().sum(0).nonzero().T
    assert (rows.unique().tolist(), columns.unique().tolist()) == ([2, 3, 4], [3, 4, 5])


@pytest.mark.parametrize("at", range(len(MIX)))
def test_what_mixes_the_pixels_sees_everything(at: int) -> None:
    assert trace(behind_a_window(MIX[at]), (4, 8, 8)).receptive == EVERYTHING


@pytest.mark.parametrize("at", range(len(MOVE)))
def test_what_moves_the_pixels_has_no_known_field_but_a_cost(at: int) -> None:
    """Up to a layer that sees everything."""
    net = nn.Sequential(behind_a_window(MOVE[at]), nn.Flatten(), nn.LazyLinear(2))
    net(torch.rand(1, 4, 8, 8))
    parts = trace(net, (4, 8, 8))
    assert [stage.receptive for stage in parts.stages] == [None, EVERYTHING, EVERYTHING]
    assert parts.stages[0].output == tuple(net[0](torch.rand(1, 4, 8, 8)).shape[1:])
    assert parts.stages[2].macs == net[2].in_features * 2
    assert parts.inference_bytes >= parts.stages[0].output_bytes


def test_a_part_is_what_it_returns() -> None:
    def aside(x: Tensor, keep: nn.Module, drop: nn.Module) -> Tensor:
        kept: Tensor = keep(x)
        drop(kept)
        return kept

    inner = Functional(aside, nn.Conv2d(1, 2, 3), nn.Conv2d(2, 5, 3))
    parts = trace(nn.Sequential(inner, nn.ReLU()), (1, 8, 8))
    assert [(part.output, part.receptive) for part in (parts.stages[0], *parts.stages[0].layers)] == [
        ((2, 6, 6), Receptive((3, 3))), ((2, 6, 6), Receptive((3, 3))), ((5, 4, 4), Receptive((5, 5)))
    ]  # fmt: skip
    named = Functional(lambda x, conv, head: {"out": conv(x), "more": head(x)}, nn.Conv2d(1, 2, 3), nn.Conv2d(1, 3, 1))
    assert trace(named, (1, 8, 8)).output == (2, 6, 6)


def test_a_layer_whose_weights_are_made_of_others_is_one_layer() -> None:
    net = nn.Sequential(Shuffle(), nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 2, 3)), Shuffle())
    parts = trace(net, (2, 8, 8))
    assert parts.receptive == Receptive((3, 3), (1, 1), (0, 0))
    assert parts.macs == 6 * 6 * 2 * 2 * 9
    assert [(part.kind, part.params) for part in parts.parts][1] == ("ParametrizedConv2d", 2 * 2 * 9 + 2 + 2)


def test_a_huge_net_costs_no_memory() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 200_000))
    assert trace(net, (3, 224, 224)).macs == 3 * 224 * 224 * 200_000


class Undecided(nn.Module):
    """A module whose code decides by values."""

    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("make", "size", "message"),
    [
        (lambda: create("lenet"), (1, 32, 32), "cannot take an image of 1 x 32 x 32"),
        (lambda: nn.BatchNorm1d(2), (2, 4, 4), "cannot take an image of 2 x 4 x 4"),
        (lambda: nn.GroupNorm(2, 4), (3, 4, 4), "cannot take an image of 3 x 4 x 4"),
        (lambda: ops.Pool2D(5), (1, 4, 4), "the window of 5 x 5 is larger"),
        (lambda: nn.Identity(), (1, 10**20, 4), "cannot take an image of 1 x 1000"),
        (lambda: Undecided(), (1, 4, 4), "cannot be followed"),
        (lambda: ops.BatchNormalization(), (1, 4, 4), "uninitialized parameter"),
    ],
)
def test_errors(make: Callable[[], nn.Module], size: tuple[int, int, int], message: str) -> None:
    with pytest.raises(UsageError, match=message) as raised:
        trace(nn.Sequential(nn.Identity(), nn.Sequential(make(), nn.ReLU())), size)
    assert "\n" not in str(raised.value)


def lines_of(cli: Cli, *arguments: object) -> list[str]:
    """Return what `cnnkit anatomy` prints, with single spaces."""
    result = cli("anatomy", *arguments)
    assert result.code == 0, result.err
    return [" ".join(line.split()) for line in result.out.splitlines()]


def test_the_table(cli: Cli) -> None:
    lines = lines_of(cli, "lenet")
    assert lines[0] == "lenet, input 1 x 28 x 28"
    assert "0 Conv2d 6 x 24 x 24 156 0.4 86,400 30.7 5 x 5 1 0 3.06 16.56" in lines
    assert "conv2 16 x 4 x 4 2,416 5.4 153,600 54.5 16 x 16 4 0 9.38 8.00" in lines
    assert "head Linear 10 850 1.9 840 0.3 all - - 0.00 0.37" in lines
    total = lines.index("total 44,426 100.0 281,640 100.0 34.48 27.00")
    assert lines[total + 1] == "published 60,000 340,908"
    text = " ".join(lines)
    for words in ("published: the paper", "KiB for one image", "weights 173.54 KiB"):
        assert words in text
    assert "and 452 moving statistics: 45,330 as Keras counts" in lines_of(cli, "lenet_bn")


def test_starts_and_larger_units(cli: Cli) -> None:
    lines = lines_of(cli, "resnet18.tv", "--depth", 1)
    assert "stem 64 x 56 x 56 9,536 0.1 118,013,952 6.5 11 x 11 4 -5 8.23 6.12" in lines
    assert "conv5 512 x 7 x 7 8,393,728 71.8 411,041,792 22.7 435 x 435 32 -217 0.86 0.38" in lines
    assert "published 11,689,512 1,814,000,000" in lines
    assert any(line.startswith("MiB for one image") for line in lines)
    lines = lines_of(cli, "resnet18", "--input", "1x225x224")
    assert "0 SameConv2d 64 x 113 x 112 3,200 0.0 39,689,216 2.1 7 x 7 2 -3, -2 0.20 3.28" in lines


STEM = ["stem", "0 SameConv2d", "1 BatchNorm2d", "2 ReLU", "3 SameMaxPool2d", "conv2", "0 Residual"]


@pytest.mark.parametrize(
    ("depth", "first"),
    [
        ([], [*STEM, "body", "conv1 Conv2d"]),
        (["--depth", 2], [*STEM, "1 Residual"]),
        (["--depth", 1], ["stem", "conv2", "conv3", "conv4", "conv5", "pool", "head Linear", "total"]),
        (["--depth", 0], ["total"]),
    ],
)
def test_depths(cli: Cli, depth: list[object], first: list[str]) -> None:
    lines = lines_of(cli, "resnet18", "--markdown", *depth)
    names = [line.split(" | ")[0].removeprefix("| ").replace("&nbsp;", "") for line in lines if line.startswith("|")]
    assert names[2 : 2 + len(first)] == first


def test_a_csv_row_for_each_part(cli: Cli) -> None:
    rows = [*csv.DictReader(io.StringIO(cli("anatomy", "lenet", "--csv").out))]
    assert [row["name"] for row in rows if int(row["level"]) < 2] == ["", "conv1", "conv2", "dense", "head"]
    assert len(rows) == 1 + 4 + 11
    assert rows[5] == {
        "level": "1", "name": "conv2", "kind": "Sequential", "output": "16x4x4", "params": "2416",
        "params_share": str(2416 / 44_426), "statistics": "0", "macs": "153600", "macs_share": str(153_600 / 281_640),
        "output_bytes": "1024", "training_bytes": "9600", "inference_bytes": "8192",
        "field_size_vertical": "16", "field_size_horizontal": "16", "field_step_vertical": "4",
        "field_step_horizontal": "4", "field_start_vertical": "0", "field_start_horizontal": "0",
    }  # fmt: skip
    assert len(cli("anatomy", "lenet", "--csv", "--depth", 0).out.splitlines()) == 2


def test_markdown_is_a_table(cli: Cli) -> None:
    lines = cli("anatomy", "lenet", "--markdown", "--depth", 1).out.splitlines()
    table = [line for line in lines if line.startswith("|")]
    assert {line.count("|") for line in table} == {12}
    assert table[1].replace("-", "") == "| : |" + " : |" * 10
    assert table[3] == "| conv2 | 16 x 4 x 4 | 2,416 | 5.4 | 153,600 | 54.5 | 16 x 16 | 4 | 0 | 9.38 | 8.00 |"


def test_json_holds_the_tree(cli: Cli) -> None:
    report = json.loads(cli("anatomy", "resnet18.tv", "--json", "--depth", 2).out)
    assert (report["net"], report["input"]) == ("resnet18.tv", [3, 224, 224])
    assert report["published"] == {
        "params": 11_689_512,
        "macs": 1_814_000_000,
        "source": ZOO["resnet18.tv"].published.source,
    }
    assert report["training_bytes"] == sum(stage["training_bytes"] for stage in report["stages"])
    conv2 = report["stages"][1]
    assert [(part["name"], part["kind"], part["parts"]) for part in conv2["parts"]] == [
        ("conv2.0", "Residual", []), ("conv2.1", "Residual", [])
    ]  # fmt: skip
    assert conv2["receptive"] == {"size": [43, 43], "step": [4, 4], "start": [-21, -21]}
    assert json.loads(cli("anatomy", "lenet_bn", "--json").out)["published"] is None


def test_a_field_that_is_not_known(cli: Cli) -> None:
    """Five by five pixels of the map, uneven cells of seven."""
    arguments = "vgg11.tv", "--input", "3x160x160", "--depth", 1
    [line] = [line for line in lines_of(cli, *arguments) if line.startswith("pool")]
    assert line.split(" 0 0.0 0 0.0 ")[1].startswith("? - - ")
    [row] = [
        row for row in csv.DictReader(io.StringIO(cli("anatomy", *arguments, "--csv").out)) if row["name"] == "pool"
    ]
    assert [value for key, value in row.items() if key.startswith("field")] == [""] * 6
    [stage] = [
        stage for stage in json.loads(cli("anatomy", *arguments, "--json").out)["stages"] if stage["name"] == "pool"
    ]
    assert stage["receptive"] is None


def test_a_short_name_stands_for_the_zoos(cli: Cli) -> None:
    assert lines_of(cli, "resnet50", "--depth", 0)[0] == "resnet50.tv, input 3 x 224 x 224"


def test_a_bundle_keeps_its_input_and_classes(cli: Cli) -> None:
    card = Bundle(
        net="lenet", arguments={}, in_channels=3, image_size=(32, 40), classes=("a", "b"), mean=(0, 0, 0),
        std=(1, 1, 1), data="", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    save_bundle(Path("own"), create("lenet", in_channels=3, num_classes=2, image_size=(32, 40)), card)
    assert lines_of(cli, "own", "--depth", 0)[0] == "own, input 3 x 32 x 40"
    for option in (["--input", "1x28x28"], ["--num-classes", 2]):
        one_line(cli("anatomy", "own", *option), 2, "own has its own input and classes")


def test_no_number_is_cut_and_no_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from cnnkit.cli import console

    monkeypatch.setattr(console.page, "width", 30)
    out = cli("anatomy", "resnet50.tv").out
    assert "…" not in out
    for words in ("0 AdaptiveAvgPool2d", "norm1 BatchNorm2d", "2048 x 7 x 7", "427 x 427", "4,089,184,256"):
        assert words in out


def test_usage_errors(cli: Cli) -> None:
    one_line(cli("anatomy", "lenet", "--json", "--csv"), 2, "--json, --csv and --markdown", "choose one")
    one_line(cli("anatomy", "lenet", "--csv", "--markdown"), 2, "choose one")
    one_line(cli("anatomy", "lenet", "--depth", "-1"), 2, "--depth", "-1")
    one_line(cli("anatomy", "lenet", "--num-classes", 10**20), 2, "--num-classes must be at most 1,000,000")
    one_line(cli("anatomy", "lenet", "--num-classes", 0), 2, "num_classes must be an int >= 1")
    one_line(cli("anatomy", "lenet", "--input", "1x9999999999x9999999999"), 2, "1x9999999999x9999999999")


class Sequence(nn.Module):
    """Layers with parts of their own, over the rows of a map."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.recurrent = nn.LSTM(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.recurrent(self.attention(x.flatten(1, 2)))[0]


def test_attention_and_recurrent_layers_are_followed() -> None:
    net = Sequence()
    parts = trace(net, (3, 4, 8))
    assert [part.kind for part in parts.parts] == ["TransformerEncoderLayer", "LSTM"]
    assert parts.params == sum(parameter.numel() for parameter in net.parameters())
    assert parts.output == (12, 5)
    assert parts.training_bytes > parts.parts[0].training_bytes > 0


@pytest.mark.parametrize(
    ("net", "size", "message"),
    [
        ("lenet", (1, 28, 28), "net must be an nn.Module, .* not 'lenet'"),
        (nn.ReLU(), 28, "input_size must be .* not 28"),
    ],
)
def test_other_things_than_nets_and_sizes(net: Any, size: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        trace(net, size)
