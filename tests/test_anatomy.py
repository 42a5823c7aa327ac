"""Anatomy against torch's counters, brute-force receptive fields and hand-made networks."""

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from cnnkit import ops
from cnnkit.anatomy import Receptive, trace
from cnnkit.core.errors import UsageError
from cnnkit.nets import ZOO, create


class Branches(nn.Module):
    """Two branches over the same grid and a shortcut around them."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 2, 5, padding=2)
        self.pool = nn.MaxPool2d(3, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.wide(x), self.pool(x)[:, :1]], dim=1) + x


BY_HAND = ops.MultiChannelConv2D
NETS = {
    "lenet features": (lambda: create("lenet")[:2], (1, 28, 28)),
    "lenet_bn by hand": (lambda: create("lenet_bn", norm="by_hand")[:2], (1, 28, 28)),
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
        lambda: nn.Sequential(BY_HAND(1, 1, 3, stride=2, padding="same"), BY_HAND(1, 1, 2)),
        (1, 9, 12),
    ),
    "pooled to what it is": (lambda: nn.Sequential(nn.Conv2d(1, 1, 3), nn.AdaptiveAvgPool2d(7)), (1, 9, 9)),
    "by hand": (lambda: nn.Sequential(BY_HAND(1, 2, 3, stride=2, padding=(0, 1)), BY_HAND(2, 1, 2)), (1, 20, 20)),
}


def brute_force(net: nn.Module, size: tuple[int, int, int], at: tuple[int, int]) -> tuple[list[int], list[int]]:
    """Find which rows and columns of the input reach the output element `at`."""
    net = copy.deepcopy(net).double().eval()
    for module in net.modules():  # every path open, and no maximum that hides its neighbours
        if isinstance(module, nn.MaxPool2d):
            module.forward = nn.AvgPool2d(module.kernel_size, module.stride, module.padding).forward
        if isinstance(module, nn.ReLU | nn.Sigmoid):
            module.forward = nn.Identity().forward
    for parameter in net.parameters():
        nn.init.uniform_(parameter, 0.1, 1)
    x = torch.rand(1, *size, dtype=torch.float64, requires_grad=True)
    (gradient,) = torch.autograd.grad(net(x)[0, :, at[0], at[1]].sum(), x)
    touched = gradient[0].abs().sum(0)
    return touched.sum(1).nonzero().flatten().tolist(), touched.sum(0).nonzero().flatten().tolist()


@pytest.mark.parametrize("name", NETS)
def test_receptive_fields_by_brute_force(name: str) -> None:
    make, size = NETS[name]
    net = make()
    parts = trace(net, size)
    field, output = parts.stages[-1].receptive, parts.stages[-1].output
    for at in [(0, 0), (output[1] // 2, output[2] // 2), (output[1] - 1, output[2] - 1)]:
        for axis, touched in enumerate(brute_force(net, size, at)):
            first = field.start[axis] + at[axis] * field.step[axis]
            last = first + field.size[axis] - 1
            assert (touched[0], touched[-1]) == (max(first, 0), min(last, size[axis + 1] - 1))


def test_lenet_literals() -> None:
    parts = trace(create("lenet"), (1, 28, 28))
    assert [stage.receptive for stage in parts.stages] == [
        Receptive((6, 6), (2, 2), (0, 0)),
        Receptive((16, 16), (4, 4), (0, 0)),
        Receptive((28, 28), (0, 0), (0, 0)),
        Receptive((28, 28), (0, 0), (0, 0)),
    ]
    assert [stage.macs for stage in parts.stages] == [86_400, 153_600, 40_800, 840]
    assert parts.macs == 24 * 24 * 6 * 25 + 8 * 8 * 16 * 150 + 256 * 120 + 120 * 84 + 84 * 10


@pytest.mark.parametrize("name", sorted(ZOO))
def test_macs_are_half_of_torchs_flops(name: str) -> None:
    net = create(name).eval()
    with FlopCounterMode(display=False) as counter:
        net(torch.zeros(1, *ZOO[name].input))
    assert trace(net, ZOO[name].input).macs == counter.get_total_flops() / 2


@pytest.mark.parametrize("name", sorted(ZOO))
def test_the_net_is_left_as_it_was(name: str) -> None:
    net = create(name)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    trace(net, ZOO[name].input)
    assert net.training
    assert all(value.equal(before[key]) and value.device.type == "cpu" for key, value in net.state_dict().items())


def test_by_hand_costs_what_torchs_layer_costs() -> None:
    by_hand, torchs = BY_HAND(2, 3, (3, 1), stride=2, padding=1), nn.Conv2d(2, 3, (3, 1), 2, 1)
    assert trace(by_hand, (2, 9, 8)).macs == trace(torchs, (2, 9, 8)).macs > 0
    torchs.requires_grad_(False)
    assert trace(torchs, (2, 9, 8)).params == trace(by_hand, (2, 9, 8)).params == 21


def test_a_gate_over_channels_sees_the_whole_image_and_keeps_the_map() -> None:
    class Gate(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.pool, self.mix = nn.AdaptiveAvgPool2d(1), nn.Conv2d(2, 2, 1)
            self.scale = nn.Parameter(torch.ones(2, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            return x * self.mix(self.pool(x)).sigmoid() * self.scale

    parts = trace(nn.Sequential(nn.Conv2d(1, 2, 3), Gate()), (1, 8, 8))
    assert parts.stages[-1].output == (2, 6, 6)
    assert parts.stages[-1].receptive.size == (8, 8)


def test_a_huge_net_costs_no_memory() -> None:
    with torch.device("meta"):
        net = nn.Sequential(nn.Flatten(), nn.Linear(3 * 224 * 224, 200_000))
    assert trace(net, (3, 224, 224)).macs == 3 * 224 * 224 * 200_000


def test_errors() -> None:
    class Undecided(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(UsageError, match="cannot take an image of 1 x 32 x 32"):
        trace(create("lenet"), (1, 32, 32))
    with pytest.raises(UsageError, match="cannot take an image of 2 x 4 x 4"):
        trace(nn.Sequential(nn.BatchNorm1d(2)), (2, 4, 4))
    with pytest.raises(UsageError, match=r"receptive field behind .* is not known"):
        trace(nn.Sequential(nn.Conv2d(1, 1, 3), nn.Upsample(scale_factor=2)), (1, 9, 9))
    with pytest.raises(UsageError, match="cannot be followed"):
        trace(nn.Sequential(nn.Sequential(Undecided(), nn.ReLU()), Wrapper(Undecided())), (1, 4, 4))


class Wrapper(nn.Module):
    """A module with a part, whose own code decides by values."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x) if x.sum() > 0 else x
