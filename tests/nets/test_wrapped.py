"""Networks wrapped by torch.compile, DataParallel and DistributedDataParallel, in every function."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import cnnkit
from cnnkit.anatomy import draw, trace
from cnnkit.core.compiler import find_compiler
from cnnkit.core.errors import UsageError
from cnnkit.core.modules import unwrapped
from cnnkit.deploy import Bundle, Classifier, fold, optimise_for_inference, save_bundle, to_onnx
from cnnkit.explain import effective_receptive_field, feature_maps, filters
from cnnkit.lanes import Engine, unsupported_reason
from cnnkit.nets.foreign import foreign_name
from cnnkit.ops import compile_pooling, from_scratch, tune


def compiled(net: nn.Module) -> Any:
    return torch.compile(net, backend="eager")


WRAPPERS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": compiled,
    "parallel": nn.DataParallel,
    "distributed": DistributedDataParallel,
    "compiled, distributed": lambda net: DistributedDataParallel(compiled(net)),
    "distributed, compiled": lambda net: compiled(DistributedDataParallel(net)),
    "parallel, compiled": lambda net: compiled(nn.DataParallel(net)),
}
SIZE = (1, 28, 28)
IMAGES, LABELS = np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8), np.arange(60) % 10


@pytest.fixture(autouse=True)
def _process_group() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture(params=WRAPPERS)
def pair(request: pytest.FixtureRequest) -> tuple[nn.Module, nn.Module]:
    """A network in a wrapper, and itself."""
    net = cnnkit.create("lenet_bn").eval()
    return WRAPPERS[request.param](net), net


Pair = tuple[nn.Module, nn.Module]


def test_unwrap_returns_the_inner_network(pair: Pair) -> None:
    wrapped, net = pair
    assert unwrapped(wrapped) is net
    assert unwrapped(net) is net


@pytest.mark.parametrize("other", ["lenet", None, nn.Module])
def test_non_network_is_refused(other: object) -> None:
    with pytest.raises(UsageError, match=r"net must be an nn\.Module, such as cnnkit\.create\('lenet'\), not "):
        unwrapped(other)


def test_anatomy_accepts_wrapped_networks(pair: Pair) -> None:
    wrapped, net = pair
    seen = trace(wrapped, SIZE)
    assert seen == trace(net, SIZE)
    assert [stage.name for stage in seen.stages] == ["conv1", "conv2", "dense", "head"]
    assert draw(seen, "x") == draw(trace(net, SIZE), "x")


def test_explain_accepts_wrapped_networks(pair: Pair) -> None:
    wrapped, net = pair
    x = torch.rand(2, *SIZE)
    found, expected = feature_maps(wrapped, x), feature_maps(net, x)
    assert list(found) == list(expected) == ["conv1", "conv2", "dense", "head"]
    assert all(found[name].equal(expected[name]) for name in expected)
    assert feature_maps(wrapped, x, ["conv2.0"])["conv2.0"].equal(feature_maps(net, x, ["conv2.0"])["conv2.0"])
    assert filters(wrapped, "conv1").equal(filters(net, "conv1"))
    assert effective_receptive_field(wrapped, SIZE, samples=2).equal(effective_receptive_field(net, SIZE, samples=2))


def test_operators_accept_wrapped_networks(pair: Pair) -> None:
    wrapped, net = pair
    assert repr(from_scratch(wrapped)) == repr(from_scratch(net))
    assert foreign_name(wrapped) == foreign_name(net)
    assert list(tune(wrapped)) == ["conv1.0", "conv2.0"]
    assert list(compile_pooling(wrapped)) == (["conv1.3", "conv2.3"] if find_compiler() else [])


def test_deploy_accepts_wrapped_networks(pair: Pair, tmp_path: Path) -> None:
    wrapped, net = pair
    x = torch.rand(3, *SIZE)
    expected = net(x)
    torch.testing.assert_close(fold(wrapped)(x), expected)
    torch.testing.assert_close(optimise_for_inference(wrapped, SIZE, engine="torch")(x), expected, rtol=1e-3, atol=1e-4)
    bundle = Bundle(
        net=foreign_name(net), arguments={}, in_channels=1, image_size=SIZE[1:], classes=tuple("0123456789"),
        mean=(0.0,), std=(1.0,), data="none", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    model = Classifier(wrapped, bundle)
    assert model.net is net
    logits = model.predict(IMAGES[:5], progress=False).logits
    save_bundle(tmp_path / "bundle", wrapped, bundle)
    with torch.no_grad():
        for weight in net.parameters():
            weight.zero_()
    again = cnnkit.load(tmp_path / "bundle", net=wrapped)
    assert again.net is net
    assert again.predict(IMAGES[:5], progress=False).logits.equal(logits)


def test_onnx_export_accepts_wrapped_networks() -> None:
    pytest.importorskip("onnxscript")
    net = cnnkit.create("lenet")
    assert to_onnx(nn.DataParallel(compiled(net)), SIZE) == to_onnx(net, SIZE)


def test_lanes_name_the_unsupported_inner_layer(pair: Pair) -> None:
    wrapped, net = pair
    assert unsupported_reason(wrapped, SIZE) == unsupported_reason(net, SIZE)
    deep = cnnkit.create("resnet18", width=4)
    assert unsupported_reason(nn.DataParallel(compiled(deep)), SIZE) == unsupported_reason(deep, SIZE)
    assert "SameConv2d" in str(unsupported_reason(deep, SIZE))


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_lanes_accept_wrapped_networks() -> None:
    net, x = cnnkit.create("lenet").eval(), torch.rand(3, *SIZE)
    engine = Engine(nn.DataParallel(compiled(net)), SIZE)
    torch.testing.assert_close(engine.predict(x), net(x), rtol=1e-3, atol=1e-4)


def test_training_of_wrapped_network_equals_the_plain_one(pair: Pair) -> None:
    wrapped, net = pair
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    run = cnnkit.fit(wrapped, (IMAGES, LABELS), epochs=1, device="cpu", plan="off", engine="torch", progress=False)
    assert run.config.net == foreign_name(net)
    kept = cnnkit.load(run.path, net=cnnkit.create("lenet_bn")).net.state_dict()
    assert list(kept) == list(before)
    assert all(tensor.equal(kept[name]) for name, tensor in net.state_dict().items())  # it got the best weights
    assert any(not tensor.equal(before[name]) for name, tensor in kept.items())
    assert type(wrapped) is not type(net)
    assert run.path.name.startswith("sequential-")
    again = cnnkit.fit(wrapped, (IMAGES, LABELS), resume=run.path, epochs=2, progress=False)
    assert len(again.history) == 2


def test_weights_saved_from_a_wrapper_load(pair: Pair, tmp_path: Path) -> None:
    wrapped, net = pair
    torch.save(wrapped.state_dict(), tmp_path / "net.pt")
    loaded = cnnkit.create("lenet_bn", pretrained=tmp_path / "net.pt")
    assert all(tensor.equal(net.state_dict()[name]) for name, tensor in loaded.state_dict().items())
