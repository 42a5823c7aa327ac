"""Receptive fields by brute force: one pixel changed at a time."""

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit import ops
from cnnkit.anatomy import Anatomy, Receptive, trace
from cnnkit.nets import ZOO, create
from helpers.nets import FROM_SCRATCH, Functional, Shuffle, every


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
