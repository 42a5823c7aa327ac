"""Parts, costs and memory of networks against the zoo's counts, known values and autograd."""

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit import ops
from cnnkit.anatomy import Anatomy, Receptive, trace
from cnnkit.core.errors import UsageError
from cnnkit.nets import ZOO, create
from helpers.nets import FROM_SCRATCH, Functional, Shuffle, every


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
