"""Inference engines: the same answers from every engine."""

import copy
import sys
from concurrent.futures import ThreadPoolExecutor
from itertools import product

import pytest
import torch
from torch import nn

from cnnkit.core.compiler import find_compiler
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.deploy import fold, optimise_for_inference, to_onnx
from cnnkit.nets import ZOO, create
from cnnkit.ops import convolutions

LARGE = 30_000_000  # parameters


def used(name: str) -> tuple[nn.Module, tuple[int, int, int]]:
    """A net whose moving statistics have seen something, so that folding has work to do."""
    torch.manual_seed(0)
    pixels = max(ZOO[name].smallest, 32)
    net = create(name, in_channels=1, num_classes=10, image_size=pixels)
    for layer in net.modules():
        if isinstance(layer, nn.BatchNorm1d | nn.BatchNorm2d):
            nn.init.uniform_(layer.running_mean, -0.5, 0.5)
            nn.init.uniform_(layer.running_var, 0.5, 2.0)
            nn.init.uniform_(layer.weight, 0.5, 1.5)
            nn.init.uniform_(layer.bias, -0.5, 0.5)
    return net, (1, pixels, pixels)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] * (ZOO[name].params > LARGE)) for name in sorted(ZOO)]
)
def test_folded_network_gives_the_same_logits(name: str) -> None:
    net, image = used(name)
    x = torch.randn(3, *image)
    expected = copy.deepcopy(net).eval().double()(x.double())
    folded = fold(net)
    torch.testing.assert_close(folded.double()(x.double()), expected, rtol=1e-6, atol=1e-6)
    assert net.training
    norms = (nn.BatchNorm1d, nn.BatchNorm2d)
    before, after = (sum(isinstance(layer, norms) for layer in module.modules()) for module in (net, folded))
    first_in_its_block = "densenet" in name or "preact" in name  # a normalisation that follows no convolution
    assert after < before if first_in_its_block else after == 0


NETS = ("lenet", "lenet_bn", "resnet18", "googlenet", "densenet", "resnet18.tv")
PAIRS = [*product(NETS, ("torch", "onnxruntime")), *product(NETS[:2] if find_compiler() else (), ["lanes"])]


@pytest.mark.parametrize(("name", "engine"), PAIRS)
def test_every_engine_gives_the_same_logits_for_any_batch(name: str, engine: str) -> None:
    net, image = used(name)
    before = copy.deepcopy(net.state_dict())
    runner = optimise_for_inference(net, image, engine=engine)
    assert runner.engine == engine
    assert list(runner.seconds) == [engine]
    for batch in (1, 2, 5, 40):
        x = torch.randn(batch, *image)
        logits = runner(x)
        assert logits.dtype == torch.float32
        torch.testing.assert_close(logits, copy.deepcopy(net).eval()(x), rtol=1e-3, atol=1e-4)
        assert torch.equal(runner(x.contiguous(memory_format=torch.channels_last)), logits)
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())


def test_half_precision_is_close() -> None:
    net, image = used("resnet18")
    x = torch.randn(8, *image)
    runner = optimise_for_inference(net, image, batch=8, precision="bf16")
    assert (runner.engine, runner.precision) == ("torch", "bf16")
    expected = net.eval()(x)
    assert (runner(x) - expected).abs().max() < 0.05 * expected.abs().max()
    assert not torch.equal(runner(x), expected)


@pytest.mark.parametrize("way", [0, -1])
def test_convolutions_use_their_fastest_algorithm(way: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever it is, the logits are the net's; with the last of the ways, many are not oneDNN's."""
    chosen: list[str] = []
    monkeypatch.setattr(convolutions, "_fastest", lambda names, *rest: chosen.append(names[way]) or chosen[-1])
    net, image = used("resnet18")
    runner = optimise_for_inference(net, image, batch=8, engine="torch")
    assert (len(set(chosen)) == 1) == (way == 0)
    for batch in (1, 8):
        x = torch.randn(batch, *image)
        torch.testing.assert_close(runner(x), copy.deepcopy(net).eval()(x), rtol=1e-3, atol=1e-4)


def test_auto_selects_the_faster_engine() -> None:
    net, image = used("lenet")
    runner = optimise_for_inference(net, image, batch=4)
    assert set(runner.seconds) == {"torch", "onnxruntime"}
    assert runner.seconds[runner.engine] == min(runner.seconds.values())


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_lanes_are_tried_only_for_full_batches() -> None:
    net, image = used("lenet")
    assert "lanes" not in optimise_for_inference(net, image, batch=4).seconds
    assert set(optimise_for_inference(net, image, batch=64).seconds) == {"torch", "onnxruntime", "lanes"}
    branching, image = used("resnet18")
    assert "lanes" not in optimise_for_inference(branching, image, batch=16).seconds
    with pytest.raises(UsageError, match=r"^lanes: layer .*; use --engine torch$"):
        optimise_for_inference(branching, image, engine="lanes")


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_lanes_serve_several_threads() -> None:
    net, image = used("lenet")
    runner = optimise_for_inference(net, image, engine="lanes")
    asked = [torch.randn(50, *image) for _ in range(8)]
    expected = [runner(x) for x in asked]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(10):
            for found, wanted in zip(pool.map(runner, asked), expected, strict=True):
                assert torch.equal(found, wanted)


def test_torch_is_used_without_onnx_runtime(monkeypatch: pytest.MonkeyPatch) -> None:
    net, image = used("lenet")
    monkeypatch.setattr("cnnkit.deploy.runner.find_spec", lambda name: None)
    assert list(optimise_for_inference(net, image).seconds) == ["torch"]
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(CnnkitError, match=r'pip install "cnnkit\[export\]"'):
        to_onnx(net, image)


def test_input_dependent_code_runs_unfolded() -> None:
    class Choosy(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(1, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).mean((2, 3)) if x.sum() > 0 else self.layer(-x).mean((2, 3))

    net = Choosy()
    x = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(optimise_for_inference(net, (1, 8, 8), engine="torch")(x), net(x))


def test_wrong_options_are_refused() -> None:
    net, image = used("lenet")
    with pytest.raises(UsageError, match="unknown engine 'onnx'; did you mean 'onnxruntime'"):
        optimise_for_inference(net, image, engine="onnx")
    with pytest.raises(UsageError, match="unknown precision 'bf17'"):
        optimise_for_inference(net, image, precision="bf17")
    for engine in ("onnxruntime", "lanes"):
        with pytest.raises(UsageError, match=f"{engine} supports fp32 on the CPU only"):
            optimise_for_inference(net, image, precision="bf16", engine=engine)
