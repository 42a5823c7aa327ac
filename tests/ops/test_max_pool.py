"""The compiled max pooling against torch's own: outputs and gradients, also behind a ReLU, and where it steps back."""

import copy

import pytest
import torch
from torch import Tensor, nn

from cnnkit.nets import create
from cnnkit.ops import CompiledMaxPool2d, compile_pooling, compiled
from cnnkit.train.autotune.plan import Plan, use_plan
from helpers.compiler import needs_compiler
from helpers.operators import POOLS, maps, results

pytestmark = needs_compiler

NETS = ("alexnet", "vgg11", "nin", "googlenet", "resnet18", "densenet")


def computed_by_ours(net: nn.Module, x: Tensor) -> bool:
    return "_MaxPool" in type(net(x.detach().requires_grad_()).grad_fn).__name__


@pytest.mark.parametrize("rectified", [False, True], ids=["plain", "behind ReLU"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pool", POOLS.values(), ids=POOLS.keys())
@pytest.mark.parametrize("channels", [8, 16, 40, 64])
def test_outputs_and_gradients_are_torchs(channels: int, pool: object, dtype: torch.dtype, rectified: bool) -> None:
    """To the bit: in bfloat16 gradients are those of float32, rounded once; torch rounds after each addition."""
    net = nn.Sequential(*[nn.ReLU()] * rectified, pool())
    for size in ((9, 12), (6, 5)):
        x = maps(channels, size, dtype)
        exact, gradient = results(net, x.float())
        if dtype == torch.bfloat16:
            exact, gradient = exact.bfloat16(), rounded_gradient(net, x)
        own = copy.deepcopy(net)
        compile_pooling(own)
        assert computed_by_ours(own, x)
        found = results(own, x)
        assert found[0].dtype == found[1].dtype == dtype
        assert found[0].is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(found[0], exact)
        assert torch.equal(found[1], gradient)


def rounded_gradient(net: nn.Module, x: Tensor) -> Tensor:
    """Return the gradient of `results` that torch computes in float32 from factors in bfloat16, rounded."""
    x = x.float().requires_grad_()
    y = net(x)
    y.backward(torch.linspace(-1, 1, y.numel()).view_as(y).bfloat16().float())
    return x.grad.bfloat16()


@pytest.mark.parametrize("rectified", [False, True], ids=["plain", "behind ReLU"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_what_is_no_number_and_what_is_infinite_stay(dtype: torch.dtype, rectified: bool) -> None:
    net = nn.Sequential(*[nn.ReLU()] * rectified, nn.MaxPool2d(2))
    x = maps(8, (8, 8), dtype)
    x[0, 0, 0, 0], x[0, 1, 1, 1], x[0, 2, 0, 1] = float("nan"), -float("nan"), float("inf")
    x[1] = -float("inf")
    own = copy.deepcopy(net)
    compile_pooling(own)
    expected, _ = results(net, x)
    found, _ = results(own, x)
    assert expected.isnan().sum() == 2
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)


@pytest.mark.parametrize("net", NETS)
def test_every_network_trains_as_before(net: str) -> None:
    torch.manual_seed(0)
    plain = create(net, image_size=96).to(memory_format=torch.channels_last).train()
    own = copy.deepcopy(plain)
    assert compile_pooling(own)
    own.load_state_dict(plain.state_dict())  # names are as before
    x = torch.rand(2, 1, 96, 96)
    gradients = []
    for each in (plain, own):
        torch.manual_seed(1)  # dropout's
        each(x).logsumexp(1).sum().backward()
        gradients.append([parameter.grad for parameter in each.parameters()])
    for found, wanted in zip(*gradients, strict=True):
        torch.testing.assert_close(found, wanted)


def test_it_steps_back_where_it_cannot_compute() -> None:
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    compile_pooling(net)
    plain = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    others = [maps(3), maps().contiguous(), maps().double(), maps().to(torch.float16)]
    for x in others:
        assert not computed_by_ours(net, x)
        for found, wanted in zip(results(net, x), results(plain, x), strict=True):
            assert torch.equal(found, wanted)
    x = maps()
    with torch.no_grad():
        assert torch.equal(net(x), plain(x))
    assert computed_by_ours(net, x)
    assert not compile_pooling(net, compiled=False)["1"].compiled
    assert not computed_by_ours(net, x)
    assert torch.equal(net[0](x), x.relu())


def test_a_relu_is_left_out_only_where_its_pooling_makes_up_for_it() -> None:
    """The two may be called apart: then the pooling is given a rectified map, and a ReLU's output is its own."""
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    compile_pooling(net)
    x = maps().requires_grad_()
    assert torch.equal(net[0](x), x)
    other = maps().double()
    assert torch.equal(net[1](other), nn.MaxPool2d(2)(other.relu()))  # it owes a ReLU
    assert torch.equal(net[1](other), nn.MaxPool2d(2)(other))
    twin = copy.deepcopy(net)
    assert twin[0].pool is twin[1]
    assert [name for name, _ in net.named_modules()] == ["", "0", "1"]


def test_only_layers_that_it_can_replace_are_compiled() -> None:
    class Own(nn.MaxPool2d):
        pass

    kept = [nn.MaxPool2d(2, dilation=2), nn.MaxPool2d(2, return_indices=True), Own(2), nn.AvgPool2d(2)]
    net = nn.ModuleList([*kept, nn.ReLU(), nn.MaxPool2d(2), nn.Sequential(nn.Tanh(), nn.MaxPool2d(2))])
    assert list(compile_pooling(net)) == ["5", "6.1"]
    assert list(net)[:4] == kept
    assert type(net[4]) is nn.ReLU  # in no sequence: nobody knows what comes after it
    assert list(compile_pooling(net)) == ["5", "6.1"]  # twice does no harm


def test_it_compiles_and_exports_as_torchs_own_layer() -> None:
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.MaxPool2d(2)).to(memory_format=torch.channels_last)
    x = torch.rand(2, 1, 9, 9)
    wanted = net(x)
    compile_pooling(net)
    exported = torch.export.export(net, (x,))
    torch.testing.assert_close(exported.module()(x), wanted)
    targets = [str(node.target) for node in exported.graph.nodes]
    assert any("max_pool2d" in target for target in targets)
    assert any("relu" in target for target in targets)


def test_without_a_compiler_layers_stay_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled.library.cache_clear()
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2))
    use_plan(net, Plan(pooling="compiled"))
    assert not any(isinstance(layer, CompiledMaxPool2d) for layer in net.modules())
    monkeypatch.undo()
    compiled.library.cache_clear()
    use_plan(net, Plan(pooling="compiled"))
    assert computed_by_ours(net, maps())
    use_plan(net, Plan())
    assert not computed_by_ours(net, maps())
