"""Networks rebuilt from the operators from scratch: equal outputs and gradients, full copies, and refusals."""

import copy
import math
from typing import Any, ClassVar

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from cnnkit import ops
from cnnkit.core.errors import UsageError
from cnnkit.nets import create


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def results(net: nn.Module, X: Tensor) -> list[Tensor]:
    """Return the output, and the gradients of X and of every parameter."""
    X = X.clone().requires_grad_()
    torch.manual_seed(0)  # for dropout
    Y = net(X)
    return [Y, *torch.autograd.grad((Y * random(*Y.shape, seed=1)).sum(), [X, *net.parameters()])]


def same_function(net: nn.Module, X: Tensor) -> nn.Module:
    """Assert that the net rebuilt from scratch does to X what the net does, and return it."""
    rebuilt = ops.from_scratch(net.double())
    assert not any(isinstance(layer, TORCHS) for layer in rebuilt.modules())
    expected = results(net, X)
    for ours, torchs in zip(results(rebuilt, X), expected, strict=True):
        torch.testing.assert_close(ours, torchs, atol=1e-10, rtol=1e-10)
    return rebuilt


def same_or_refused(net: nn.Module, X: Tensor) -> None:
    try:
        net.double()(X)
    except RuntimeError:
        with pytest.raises(UsageError, match="larger than the padded input"):
            ops.from_scratch(net)(X)
    else:
        same_function(net, X)


TORCHS = nn.Conv2d | nn.MaxPool2d | nn.AvgPool2d | nn.AdaptiveAvgPool2d | nn.BatchNorm1d | nn.BatchNorm2d


def tensorflow_pad(X: Tensor, kernel: int, stride: int, value: float) -> Tensor:
    sides = []
    for n in X.shape[-2:]:
        total = max((math.ceil(n / stride) - 1) * stride + kernel - n, 0)
        sides.append((total // 2, total - total // 2))
    return F.pad(X, (*sides[1], *sides[0]), value=value)


# --- each kind of layer, on random cases

dims, sizes, steps = st.integers(1, 11), st.integers(1, 4), st.integers(1, 3)
pairs = st.tuples(sizes, sizes)
moves = st.one_of(steps, st.tuples(steps, steps))
paddings = st.one_of(st.integers(0, 3), st.tuples(*[st.integers(0, 3)] * 2), st.sampled_from(["same", "valid"]))
leads = st.sampled_from([(), (2,)])
pixels = st.tuples(dims, dims)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel")  # slower, says torch
@given(st.one_of(sizes, pairs), moves, paddings, moves, st.booleans(), leads, st.tuples(sizes, sizes), pixels)
def test_convolutions_equal_torch(kernel, stride, padding, dilation, bias: bool, lead, channels, size) -> None:
    stride = 1 if padding == "same" else stride
    conv = nn.Conv2d(*channels, kernel, stride, padding, dilation, bias=bias)
    same_or_refused(conv, random(*lead, channels[0], *size))


@given(st.integers(1, 7), steps, pixels, st.booleans())
def test_same_padding_aligns_like_tensorflow(kernel: int, stride: int, size, bias: bool) -> None:
    X = random(2, 2, *size) - 9  # zeros around a maximum would show
    conv, pool = ops.SameConv2d(2, 3, kernel, stride, bias), ops.SameMaxPool2d(kernel, stride)
    for layer in (conv, pool):
        same_function(layer, X)
    expected = F.conv2d(tensorflow_pad(X, kernel, stride, 0), conv.weight, conv.bias, stride)
    torch.testing.assert_close(conv(X), expected)
    assert pool(X).equal(F.max_pool2d(tensorflow_pad(X, kernel, stride, float("-inf")), kernel, stride))


@st.composite
def pooling(draw: st.DrawFn) -> dict[str, Any]:
    kernel = draw(st.one_of(st.integers(1, 5), st.tuples(st.integers(1, 5), st.integers(1, 5))))
    halves = [k // 2 for k in (kernel if isinstance(kernel, tuple) else (kernel, kernel))]  # torch takes no more
    padding = draw(st.one_of(st.integers(0, min(halves)), st.tuples(*(st.integers(0, half) for half in halves))))
    stride = draw(st.one_of(st.none(), moves))
    return {"kernel_size": kernel, "stride": stride, "padding": padding, "ceil_mode": draw(st.booleans())}


@given(pooling(), leads, pixels)
def test_max_pooling_equals_torch(how: dict[str, Any], lead, size) -> None:
    same_or_refused(nn.MaxPool2d(**how), random(*lead, 2, *size))


@given(pooling(), st.booleans(), leads, pixels)
def test_average_pooling_equals_torch(how: dict[str, Any], count_include_pad: bool, lead, size) -> None:
    same_or_refused(nn.AvgPool2d(**how, count_include_pad=count_include_pad), random(*lead, 2, *size))


@given(st.one_of(st.integers(1, 6), st.tuples(dims, dims)), leads, pixels)
def test_adaptive_average_pooling_equals_torch(output, lead, size) -> None:
    same_function(nn.AdaptiveAvgPool2d(output), random(*lead, 2, *size))


@given(st.booleans(), st.booleans(), st.floats(0.01, 1), st.floats(1e-6, 0.1), st.integers(2, 5), sizes)
def test_batch_normalization_equals_torch(
    conv: bool, training: bool, momentum: float, eps: float, n: int, channels: int
) -> None:
    norm = (nn.BatchNorm2d if conv else nn.BatchNorm1d)(channels, eps, momentum).train(training).double()
    tensors = (norm.weight, norm.bias, norm.running_mean, norm.running_var)
    for seed, tensor in enumerate(tensors):
        tensor.data = random(channels, seed=seed).abs() + 0.5
    before = norm.running_var.clone()
    X = random(n, channels, *((2, 3) if conv else ()), seed=9) * 2 + 1
    rebuilt = same_function(norm, X)
    torch.testing.assert_close(rebuilt.moving_mean, norm.running_mean)
    biased = (1 - momentum) * before + momentum * X.transpose(0, 1).flatten(1).var(1, correction=0)
    torch.testing.assert_close(rebuilt.moving_variance, biased if training else before)


def test_ceil_mode_padding_counts_only_on_request() -> None:
    X = torch.arange(16).reshape(4, 4)
    assert ops.pool2d(X, 3, stride=3, ceil_mode=True).tolist() == [[10, 11], [14, 15]]
    assert ops.pool2d(X.to(torch.uint16), 3, stride=3, ceil_mode=True).tolist() == [[10, 11], [14, 15]]
    assert ops.pool2d(X, 3, "avg", 3, ceil_mode=True).tolist() == [[5, 7], [13, 15]]
    nines = torch.full((3, 3), 9)
    assert ops.pool2d(nines, 3, "avg", 3, 1).tolist() == [[9]]
    assert ops.pool2d(nines, 3, "avg", 3, 1, count_include_pad=True).tolist() == [[4]]
    assert ops.pool2d(nines, 3, "avg", 3, 1, ceil_mode=True, count_include_pad=True).tolist() == [[4, 3], [3, 2.25]]


def test_adaptive_cells_overlap_when_sizes_do_not_divide() -> None:
    assert ops.adaptive_avg_pool2d(torch.arange(12).reshape(3, 4), (2, 1)).tolist() == [[3.5], [7.5]]
    assert ops.adaptive_avg_pool2d(torch.tensor([[1, 2]]), (2, 4)).tolist() == [[1, 1, 2, 2]] * 2
    big = torch.full((2, 8, 8), 60000.0, dtype=torch.float16)
    assert ops.adaptive_avg_pool2d(big, 1).equal(big[:, :1, :1])


def test_layer_options_are_kept() -> None:
    X, conv = random(1, 4, 4), ops.MultiChannelConv2D(1, 2, 2, bias=False).double()
    assert [name for name, _ in conv.named_parameters()] == ["weight"]
    torch.testing.assert_close(conv(X), F.conv2d(X, conv.weight))
    assert ops.Pool2D(2)(X).equal(F.max_pool2d(X, 2))
    assert ops.Pool2D((2, 1), "avg", 1)(X).equal(F.avg_pool2d(X, (2, 1), 1))


# --- whole networks


class Branches(nn.Module):
    """Two paths over one shared convolution, a scale of its own, and a layer known also by another name."""

    def __init__(self) -> None:
        super().__init__()
        shared = nn.Conv2d(3, 4, 3, padding=1, bias=False)
        self.left = nn.Sequential(shared, nn.BatchNorm2d(4), nn.PReLU())
        self.right = nn.Sequential(ops.SameConv2d(3, 4, 1, stride=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding="same"))
        self.right[2].bias = self.right[0].bias
        self.again = shared
        self.pools = [nn.MaxPool2d(3, 2, 1), nn.AvgPool2d(2, ceil_mode=True)]
        self.pool, self.average = self.pools
        self.scale = nn.Parameter(torch.rand(4, 1, 1))
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(32, 3))

    def forward(self, X: Tensor) -> Tensor:
        Y = self.left(X) * self.scale + self.right(X) + self.again(X)
        return self.head(torch.cat([self.pools[0](Y), self.average(Y)], 1))


@pytest.mark.parametrize("training", [True, False])
def test_network_with_branches_is_rebuilt(training: bool) -> None:
    net = nn.Sequential(Branches(), nn.BatchNorm1d(3)).train(training)
    rebuilt = same_function(net, random(3, 3, 7, 6))
    parts = rebuilt[0]
    assert type(parts) is Branches
    assert [name for name, _ in rebuilt.named_modules()] == [name for name, _ in net.named_modules()]
    assert parts.again is parts.left[0]
    assert parts.pools[0] is parts.pool
    assert parts.right[0].bias is parts.right[2].bias


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("name", ["lenet", "lenet_bn"])
def test_zoo_networks_from_scratch_equal_torch(name: str, training: bool) -> None:
    same_function(create(name).train(training), random(3, 1, 28, 28))


def test_from_scratch_layers_are_kept() -> None:
    net = nn.Sequential(
        ops.Conv2D(3),
        ops.MultiChannelConv2D(1, 2, 2),
        ops.Pool2D(2),
        ops.BatchNormalization(),
        ops.AdaptiveAvgPool2D(1),
    )
    rebuilt = ops.from_scratch(net)
    assert [type(layer) for layer in rebuilt] == [type(layer) for layer in net]
    X = torch.rand(2, 1, 9, 9)
    assert rebuilt(X).equal(net(X))
    assert str(ops.from_scratch(net)) == str(net)


# --- a true copy


def small() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 2))


def test_rebuilt_network_shares_nothing_with_its_source() -> None:
    net = small()
    before, layers = copy.deepcopy(net.state_dict()), [*net]
    rebuilt = ops.from_scratch(net)
    for tensor in (*rebuilt.parameters(), *rebuilt.buffers()):
        tensor.data.add_(1)
    rebuilt(torch.rand(4, 1, 8, 8))
    assert all(one is other for one, other in zip(net, layers, strict=True))
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


def test_mode_requires_grad_dtype_and_device_are_kept() -> None:
    net = small()
    net[0].weight.requires_grad_(False)
    net[1].bias.requires_grad_(False)
    net[1].eval()
    net[2].eval()
    net[4].to(torch.bfloat16)
    rebuilt = ops.from_scratch(net)
    assert [layer.training for layer in rebuilt] == [layer.training for layer in net]
    for one, other in zip(rebuilt.parameters(), net.parameters(), strict=True):
        assert (one.requires_grad, one.dtype, one.device) == (other.requires_grad, other.dtype, other.device)
    shapes = ops.from_scratch(small().to("meta", torch.float16))
    assert {(t.device.type, t.dtype) for t in (*shapes.parameters(), *shapes.buffers())} == {("meta", torch.float16)}


def test_weights_are_copied_once_without_random_numbers() -> None:
    class Large(TorchDispatchMode):
        made: ClassVar[list[int]] = []

        def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            result = func(*args, **kwargs or {})
            if result.device.type == "cpu" and result.numel() >= 64 and func is not torch.ops.aten.detach.default:
                self.made.append(result.numel())
            return result

    net = nn.Sequential(nn.Conv2d(8, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 8))
    state = torch.get_rng_state()
    with Large() as large:
        ops.from_scratch(net)
    assert large.made == [8 * 8 * 3 * 3, 8 * 8]
    assert torch.get_rng_state().equal(state)


def test_single_layer_is_replaced() -> None:
    assert isinstance(ops.from_scratch(nn.Conv2d(1, 1, 1)), ops.MultiChannelConv2D)
    assert isinstance(ops.from_scratch(nn.Linear(1, 1)), nn.Linear)


# --- what has no form from scratch


class Odd(nn.Conv2d):
    def forward(self, X: Tensor) -> Tensor:
        return super().forward(X) + 1


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))


class Mean(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(1))


def hooked(register: str) -> nn.Module:
    layer = nn.MaxPool2d(2)
    getattr(layer, register)(lambda *_: None)
    return layer


def unbiased() -> nn.Module:
    layer = nn.BatchNorm2d(2)
    layer.register_parameter("bias", None)
    return layer


NO_FORM = r"has no form from scratch; use Conv2d, .*, Linear, PReLU or elementwise layers"


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: nn.Conv2d(2, 2, 1, groups=2), "Conv2d with groups=2 .* use groups=1"),
        (
            lambda: nn.Conv2d(2, 2, 3, padding=1, padding_mode="reflect"),
            "padding_mode='reflect' .* padding_mode='zeros'",
        ),
        (lambda: nn.MaxPool2d(2, dilation=2), "MaxPool2d with dilation=2 .* use dilation=1"),
        (lambda: nn.MaxPool2d(2, return_indices=True), "return_indices=True .* use return_indices=False"),
        (lambda: nn.MaxPool2d(2, padding=2), "padding 2 must be smaller than the window 2"),
        (lambda: nn.AvgPool2d(2, divisor_override=3), "AvgPool2d with divisor_override=3 .* use divisor_override=None"),
        (lambda: nn.AdaptiveAvgPool2d((None, 2)), r"size must be .* not \(None, 2\)"),
        (lambda: nn.BatchNorm2d(2, affine=False), "BatchNorm2d with affine=False .* use affine=True"),
        (lambda: nn.BatchNorm2d(2, track_running_stats=False), "use track_running_stats=True"),
        (unbiased, "BatchNorm2d with bias=None .* build it with a bias"),
        (lambda: nn.BatchNorm1d(2, momentum=None), "BatchNorm1d with momentum=None .* build it with a momentum"),
        (lambda: nn.BatchNorm1d(2, momentum=2), "decay must be between 0 and 1, not -1"),
        (lambda: nn.LazyConv2d(2, 3), "LazyConv2d has no shape before its first input"),
        (lambda: nn.LazyLinear(2), "LazyLinear has no shape before its first input"),
        (lambda: nn.LazyBatchNorm2d(), "LazyBatchNorm2d has no shape before its first input"),
        (lambda: Odd(1, 1, 3, padding="same"), "Odd has a custom forward, submodules or hooks"),
        (lambda: Odd(1, 1, 1), "Odd has a custom forward, submodules or hooks; use a plain Conv2d"),
        (lambda: hooked("register_forward_hook"), "MaxPool2d has a custom forward, submodules or hooks"),
        (lambda: hooked("register_forward_pre_hook"), "MaxPool2d has a custom forward, submodules or hooks"),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 1)), "use a plain Conv2d"),
        (lambda: nn.ConvTranspose2d(2, 3, 2), r"ConvTranspose2d\(2, 3, .*\) " + NO_FORM),
        (lambda: nn.Conv1d(1, 1, 1), NO_FORM),
        (lambda: nn.utils.parametrizations.weight_norm(nn.Conv1d(1, 1, 1)), NO_FORM),
        (lambda: nn.Conv3d(1, 1, 1), NO_FORM),
        (lambda: nn.MaxPool1d(2), NO_FORM),
        (lambda: nn.LPPool2d(2, 2), NO_FORM),
        (lambda: nn.AdaptiveMaxPool2d(2), NO_FORM),
        (lambda: nn.BatchNorm3d(2), NO_FORM),
        (lambda: nn.GroupNorm(1, 2), NO_FORM),
        (lambda: nn.InstanceNorm2d(2), NO_FORM),
        (lambda: nn.LayerNorm(2), NO_FORM),
        (lambda: nn.LocalResponseNorm(2), NO_FORM),
        (lambda: nn.LSTM(1, 1), NO_FORM),
        (Own, r"Own\(\) " + NO_FORM),
        (Mean, r"Mean\(\) " + NO_FORM),
    ],
)
def test_errors_name_the_layer_and_value(layer: Any, message: str) -> None:
    with pytest.raises(UsageError, match=r"^1\.conv: .*" + message):
        ops.from_scratch(nn.Sequential(nn.ReLU(), nn.ModuleDict({"conv": layer()})))
    with pytest.raises(UsageError, match=r"^(?!1\.conv)(?!: ).*" + message):
        ops.from_scratch(layer())


def test_by_hand_is_a_deprecated_alias() -> None:
    with pytest.warns(DeprecationWarning, match="from_scratch"):
        assert ops.by_hand is ops.from_scratch
    with pytest.raises(AttributeError, match="no attribute 'by_foot'"):
        _ = ops.by_foot
