"""Tuned convolutions against torch: outputs and gradients of every algorithm."""

import copy
from itertools import product

import pytest
import torch
from torch import Tensor, nn

from cnnkit.nets import create
from cnnkit.ops import SameConv2d
from cnnkit.ops.tuned import Algorithms, TunedConv2d, possible, tune

NAMES = ("onednn", "unfold", "dense", "winograd")
SHAPES = [  # channels, rows, columns, output channels, kernel, stride, padding
    (3, 5, 6, 4, (3, 3), (1, 1), (1, 1)),
    (3, 5, 6, 4, (3, 2), (2, 1), (0, 1)),
    (2, 7, 4, 3, (1, 1), (1, 1), (0, 0)),
    (2, 7, 4, 3, (1, 1), (2, 2), (0, 0)),
    (2, 4, 4, 3, (1, 1), (1, 1), (1, 0)),
    (4, 2, 2, 5, (3, 3), (1, 1), (1, 1)),
    (4, 1, 1, 5, (3, 3), (1, 1), (1, 1)),
    (1, 9, 8, 2, (5, 5), (3, 2), (2, 2)),
    (3, 8, 8, 2, (2, 2), (3, 3), (0, 0)),
    (3, 6, 7, 4, (3, 3), (2, 2), "same"),
    (3, 4, 4, 4, (3, 3), (2, 2), "same"),
]


def layer(shape: tuple, bias: bool, dtype: torch.dtype) -> nn.Conv2d:
    channels, _, _, outputs, kernel, stride, padding = shape
    made = (
        SameConv2d(channels, outputs, kernel[0], stride[0], bias)
        if padding == "same"
        else nn.Conv2d(channels, outputs, kernel, stride, padding, bias=bias)
    )
    return made.to(dtype, memory_format=torch.channels_last)


def results(net: nn.Module, x: Tensor) -> list[Tensor]:
    x = x.clone(memory_format=torch.channels_last).requires_grad_()
    y = net(x)
    (y * torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view_as(y)).sum().backward()
    found = [y.detach(), x.grad, *(parameter.grad for parameter in net.parameters())]
    for parameter in net.parameters():
        parameter.grad = None
    return found


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_algorithm_equals_torch(shape: tuple, bias: bool) -> None:
    net = nn.Sequential(layer(shape, bias, torch.float64))
    x = torch.randn(3, *shape[:3], dtype=torch.float64)
    expected = results(net, x)
    tuned = tune(net)["0"]
    for algorithms in product(NAMES, repeat=3):
        tuned.algorithms = Algorithms(*algorithms)
        torch.testing.assert_close(results(net, x), expected, msg=lambda text, which=algorithms: f"{which}: {text}")


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_each_algorithm_has_the_precision_of_its_dtype(shape: tuple, dtype: torch.dtype) -> None:
    net = nn.Sequential(layer(shape, True, dtype))
    x = torch.randn(3, *shape[:3]).to(dtype)
    exact = results(copy.deepcopy(net).double(), x.double())
    tuned = tune(net)["0"]
    for name in NAMES:
        tuned.algorithms = Algorithms(name, name, name)
        for found, wanted in zip(results(net, x), exact, strict=True):
            assert found.dtype == dtype
            error = (found.double() - wanted).abs().max() / wanted.abs().max()
            assert error < 4 * torch.finfo(dtype).eps, name


def test_strided_1x1_convolution_of_few_channels_has_its_gradient() -> None:
    """oneDNN alone writes beyond its memory here, which shows sooner or later."""
    net = nn.Sequential(nn.Conv2d(4, 8, 1, 2)).to(memory_format=torch.channels_last)
    x = torch.randn(4, 4, 9, 8)
    expected = results(copy.deepcopy(net).double(), x.double())
    tune(net)
    for _ in range(100):
        found = results(net, x)
        torch.testing.assert_close(found, [each.float() for each in expected])


def test_gradients_match_finite_differences() -> None:
    net = nn.Sequential(layer(SHAPES[0], True, torch.float64))
    tune(net)["0"].algorithms = Algorithms("unfold", "unfold", "unfold")
    x = torch.randn(1, 3, 5, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(net, x)


def test_only_layers_with_a_choice_are_tuned() -> None:
    kept = [
        nn.Conv2d(4, 4, 3, groups=2),
        nn.Conv2d(4, 4, 3, dilation=2),
        nn.Conv2d(4, 4, 3, padding="same"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(4, 4, 3),
    ]
    net = nn.Sequential(*kept, nn.Sequential(nn.Conv2d(4, 4, 3)))
    assert list(tune(net)) == ["5.0"]
    assert list(net)[:5] == kept
    assert list(tune(net)) == ["5.0"]  # twice does no harm


def test_weights_keep_names_and_storage() -> None:
    net = create("resnet18", image_size=32, width=8)
    parameters = dict(net.named_parameters())
    tuned = tune(net)
    assert len(tuned) == 20
    assert {name: id(value) for name, value in net.named_parameters()} == {n: id(v) for n, v in parameters.items()}
    copy.deepcopy(net).load_state_dict(net.state_dict())


def tuned_net() -> nn.Sequential:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), SameConv2d(4, 5, 3, 2))
    net.to(memory_format=torch.channels_last)
    for part in tune(net).values():
        part.algorithms = Algorithms("unfold", "unfold", "unfold")
    return net


@pytest.fixture
def unfolds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    calls: list[int] = []
    own = TunedConv2d.forward

    def counted(self: TunedConv2d, x: Tensor) -> Tensor:
        y = own(self, x)
        calls.append("_Convolution" in type(y.grad_fn).__name__)
        return y

    monkeypatch.setattr(TunedConv2d, "forward", counted)
    return calls


def test_without_gradients_torch_is_used(unfolds: list[int]) -> None:
    net, x = tuned_net(), torch.randn(2, 3, 6, 6)
    net(x)
    assert sum(unfolds) == 2
    with torch.no_grad():
        net(x)
    assert sum(unfolds) == 2


def test_tuned_convolution_compiles_and_exports_like_torch() -> None:
    net, x = tuned_net(), torch.randn(2, 3, 6, 6)
    exported = torch.export.export(net, (x,))
    called = {str(node.target) for node in exported.graph.nodes if node.op == "call_function"}
    assert "aten.conv2d.default" in called
    assert not any("as_strided" in name for name in called)
    padded = [node for node in exported.graph.nodes if "pad" in str(node.target)]
    assert len(padded) == sum(layer.same for layer in net.modules() if isinstance(layer, TunedConv2d))
    expected = results(net, x)
    compiled = torch.compile(net, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(results(compiled, x), expected)


def test_autocast_computes_in_half_with_float32_gradients() -> None:
    net, x = tuned_net(), torch.randn(2, 3, 6, 6)
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert {parameter.grad.dtype for parameter in net.parameters()} == {torch.float32}


def test_possible_algorithms_depend_on_the_layer() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1))
    tuned = tune(net)["0"]
    large, small, grey = torch.empty(1, 3, 99, 99), torch.empty(1, 3, 2, 2), torch.empty(1, 1, 9, 9)
    for maps, names in ((large, ()), (small, ("unfold", "dense")), (grey, ())):
        assert possible(tuned.slide(maps)[1], maps, tuned.weight) == ("onednn", *names)
