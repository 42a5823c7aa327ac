"""The zoo, every row: shapes, parameters, gradients, other sizes, slicing, errors, and the docstrings' tables."""

import re
from collections.abc import Callable

import pytest
import torch
from torch import nn

import cnnkit
from cnnkit.anatomy import trace
from cnnkit.core.errors import UsageError
from cnnkit.core.shape import by
from cnnkit.nets import ZOO, create, entry, list_networks

every = pytest.mark.parametrize("name", sorted(ZOO))


@every
def test_forward_and_every_parameter_gets_a_gradient(name: str) -> None:
    net = create(name)
    logits = net(torch.randn(4, *ZOO[name].input))
    assert logits.shape == (4, ZOO[name].classes)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.count_nonzero(), path


@every
def test_other_channels_classes_and_sizes(name: str) -> None:
    net = create(name, in_channels=3, num_classes=7, image_size=(40, 52))
    assert net(torch.randn(2, 3, 40, 52)).shape == (2, 7)


@every
def test_the_smallest_image_works_and_one_less_says_so(name: str) -> None:
    smallest = ZOO[name].smallest
    net = create(name, image_size=smallest)
    assert net(torch.randn(2, ZOO[name].input[0], smallest, smallest)).isfinite().all()
    with pytest.raises(
        UsageError, match=f"{name} needs images of at least {smallest} x {smallest}, not {smallest - 1}"
    ):
        create(name, image_size=smallest - 1)


@every
def test_a_network_is_named_stages_and_slices(name: str) -> None:
    net = create(name).eval()
    x = torch.randn(2, *ZOO[name].input)
    assert type(net) is nn.Sequential
    assert [stage for stage, _ in net.named_children()][-1] == "head"
    assert net[-1](net[:-1](x)).equal(net(x))
    net[-1] = nn.Linear(net[-1].in_features, 3)
    assert net(x).shape == (2, 3)


@every
def test_state_dict_round_trip(name: str) -> None:
    one, other, x = create(name), create(name), torch.randn(3, *ZOO[name].input)
    one(x)
    other.load_state_dict(one.state_dict())
    assert one.eval()(x).equal(other.eval()(x))


@every
def test_the_docstrings_table_is_true(name: str) -> None:
    documented = re.findall(r"^\s+(\w+)\s{2,}(\d[\dx ]*?)\s{2,}([\d,]+)$", ZOO[name].build.__doc__ or "", re.M)
    parts = trace(create(name), ZOO[name].input)
    assert documented == [(stage.name, by(*stage.output), f"{stage.params:,}") for stage in parts.stages]
    total = re.search(r"total\s+([\d,]+)(?: \+ ([\d,]+) moving statistics)?", ZOO[name].build.__doc__ or "")
    assert total
    numbers = [int(number.replace(",", "")) for number in total.groups("0")]
    assert numbers == [parts.params, parts.statistics]
    assert parts.params == sum(parameter.numel() for parameter in create(name).parameters())


def test_the_parameters_that_the_chapter_counts() -> None:
    def keras_total(name: str) -> int:
        parts = trace(create(name), ZOO[name].input)
        return parts.params + parts.statistics

    assert (keras_total("lenet"), keras_total("lenet_bn")) == (44_426, 45_330)


def test_the_shapes_that_the_chapter_prints_for_lenet() -> None:
    layers = [layer for stage in trace(create("lenet"), (1, 28, 28)).stages for layer in stage.layers]
    shapes = [layer.output for layer in layers if layer.kind != "Sigmoid"]
    assert shapes == [(6, 24, 24), (6, 12, 12), (16, 8, 8), (16, 4, 4), (256,), (120,), (84,), (10,)]


def filled_statistics(net: nn.Module) -> nn.Module:
    """Give every statistic and every scale a value of its own, so that a mistake in one shows."""
    generator = torch.Generator().manual_seed(3)
    for name, tensor in net.state_dict().items():
        if re.search(r"mean|beta|bias", name):
            tensor.normal_(0, 0.5, generator=generator)
        elif re.search(r"var|gamma", name) or tensor.ndim == 1:
            tensor.uniform_(0.5, 2, generator=generator)
    return net


@pytest.mark.parametrize("training", [True, False])
def test_lenet_bn_by_hand_equals_torchs(training: bool) -> None:
    torchs = filled_statistics(create("lenet_bn", norm="torch")).train(training)
    by_hand = create("lenet_bn", norm="by_hand").train(training)
    spelled = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    source = torchs.state_dict()
    target = by_hand.state_dict()
    by_hand.load_state_dict(
        {
            path: source[".".join([*path.split(".")[:-1], spelled.get(path.split(".")[-1], path.split(".")[-1])])]
            for path in target
        }
    )
    x = torch.randn(16, 1, 28, 28)
    torch.testing.assert_close(by_hand(x), torchs(x), atol=1e-5, rtol=0)


def test_norm_constants_reach_the_layers() -> None:
    keras = {"decay": 0.99, "epsilon": 1e-3}
    norms = [m for m in create("lenet_bn", **keras).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    assert [(round(m.momentum or 0, 6), m.eps) for m in norms] == [(0.01, 1e-3)] * 4
    by_hand = create("lenet_bn", norm="by_hand", **keras)
    assert [(m.decay, m.epsilon) for m in by_hand.modules() if hasattr(m, "decay")] == [(0.99, 1e-3)] * 4


def test_lists_by_glob() -> None:
    assert list_networks("lenet*") == ["lenet", "lenet_bn"]
    assert list_networks() == sorted(ZOO)
    assert entry("lenet").section == "5.5"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: create("lenett"), "unknown network 'lenett'; did you mean 'lenet'"),
        (lambda: list_networks("vgg*"), r"unknown network 'vgg\*'"),
        (lambda: create("lenet_bn", nrom="by_hand"), "unknown argument of lenet_bn 'nrom'; did you mean 'norm'"),
        (lambda: create("lenet_bn", norm="keras"), "unknown norm 'keras'"),
        (lambda: create("lenet", num_classes=0), "num_classes must be .* not 0"),
        (lambda: create("lenet", in_channels=-1), "in_channels must be .* not -1"),
        (lambda: create("lenet", image_size=(28, 28, 3)), "image_size must be"),
    ],
)
def test_errors(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_create_is_at_the_top() -> None:
    assert cnnkit.create is create
    with pytest.raises(AttributeError):
        cnnkit.nothing  # noqa: B018
