"""Lanes against torch: outputs, losses, gradients, whole trainings, and what is not supported."""

import copy
import json
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from cnnkit.core.compiler import NO_COMPILER
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.lanes import Engine, read_chain
from cnnkit.nets import create
from cnnkit.ops import Dropout
from cnnkit.train.checkpoint import load_checkpoint
from helpers.cli import Cli, one_line
from helpers.compiler import needs_compiler, run_sanitized
from helpers.lanes import BATCH, CLASSES, NETS, batch, build, head
from helpers.training import metrics

pytestmark = needs_compiler


@pytest.fixture(scope="session")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("compiled")


@pytest.fixture(autouse=True)
def _keep_compiled(compiled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_CACHE", str(compiled))


def assert_equal_to_torch(
    net: nn.Sequential, x: Tensor, y: Tensor, threads: int, smoothing: float = 0.0, flags: tuple[str, ...] = ()
) -> Engine:
    engine = Engine(net, tuple(x.shape[1:]), threads=threads, flags=flags)
    double = copy.deepcopy(net).double()
    torch.testing.assert_close(engine.predict(x), double.eval()(x.double()).float(), rtol=1e-5, atol=1e-5)
    loss = F.cross_entropy(double.train()(x.double()), y, label_smoothing=smoothing)
    loss.backward()
    found, gradients = engine.gradients(x, y, smoothing=smoothing)
    assert found == pytest.approx(loss.item(), rel=1e-5)
    single = copy.deepcopy(net).train()
    F.cross_entropy(single(x), y, label_smoothing=smoothing).backward()
    largest = max(parameter.grad.abs().max().item() for parameter in double.parameters())
    for (name, parameter), rounded in zip(double.named_parameters(), single.parameters(), strict=True):
        exact = parameter.grad.float()
        # where normalisation takes a bias away again, or divides by little, rounding is large: for torch as well
        rounding = 1e-6 * largest + 10 * (rounded.grad - exact).abs().max().item()
        close = 1e-5 * exact.abs().max().item() + rounding
        torch.testing.assert_close(gradients[name], exact, rtol=0, atol=close, msg=lambda text, name=name: name + text)
    for (name, mine), theirs in zip(net.named_buffers(), double.buffers(), strict=True):
        torch.testing.assert_close(mine, theirs.to(mine.dtype), rtol=1e-5, atol=1e-6, msg=lambda t, name=name: name + t)
    return engine


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="the flags are those of x86")
@pytest.mark.parametrize(("flag", "lanes"), [("-mno-avx512f", 8), ("-mno-avx", 4)])
@pytest.mark.parametrize("name", ["strides and padding", "normalised"])
def test_narrow_registers_compute_the_same(name: str, flag: str, lanes: int) -> None:
    layers, image = NETS[name]
    engine = assert_equal_to_torch(build(layers(), image), *batch(image), threads=2, flags=(flag,))
    assert engine.lanes <= lanes


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("name", NETS)
def test_outputs_losses_and_gradients_equal_torch(name: str, threads: int) -> None:
    layers, image = NETS[name]
    for images in (BATCH, 2, 64):
        assert_equal_to_torch(build(layers(), image), *batch(image, images), threads)


@st.composite
def random_nets(draw: st.DrawFn) -> tuple[list[nn.Module], tuple[int, int, int]]:
    small = st.integers(1, 3)
    channels, height, width = image = draw(small), draw(st.integers(4, 11)), draw(st.integers(4, 11))
    layers: list[nn.Module] = []
    for _ in range(draw(small)):
        kernel = draw(st.integers(1, min(height, 5))), draw(st.integers(1, min(width, 5)))
        stride, padding = (draw(small), draw(small)), (draw(st.integers(0, 2)), draw(st.integers(0, 2)))
        wider = draw(st.integers(1, 9))
        layers.append(nn.Conv2d(channels, wider, kernel, stride, padding, bias=draw(st.booleans())))
        channels = wider
        layers += draw(st.sampled_from([[], [nn.BatchNorm2d(channels)]]))
        layers.append(draw(st.sampled_from([nn.Sigmoid, nn.Tanh, nn.ReLU]))())
        height, width = _size(layers, image)
        window, step = draw(st.integers(1, min(height, width, 3))), draw(small)
        layers += draw(st.sampled_from([[], [nn.MaxPool2d(window, step)], [nn.AvgPool2d(window, step)]]))
        height, width = _size(layers, image)
    hidden = draw(st.integers(2, 40))
    layers += [nn.Flatten(), nn.Linear(channels * height * width, hidden), nn.Tanh(), nn.Linear(hidden, CLASSES)]
    return layers, image


def _size(layers: list[nn.Module], image: tuple[int, int, int]) -> tuple[int, int]:
    with torch.no_grad():
        height, width = nn.Sequential(*layers).eval()(torch.zeros(1, *image)).shape[-2:]
    return height, width


@pytest.mark.parametrize(
    "examples",
    [pytest.param(4, id="few"), pytest.param(80, id="many", marks=[pytest.mark.slow, pytest.mark.timeout(900)])],
)
def test_random_networks_equal_torch(examples: int) -> None:
    @settings(max_examples=examples, phases=[Phase.generate])  # to shrink an example would take hours
    @given(random_nets(), st.integers(2, 70), st.integers(1, 3), st.sampled_from([0.0, 0.1]))
    def check(net: tuple[list[nn.Module], tuple[int, int, int]], images: int, threads: int, smoothing: float) -> None:
        assert_equal_to_torch(build(*net), *batch(net[1], images), threads, smoothing)

    check()


OPTIMIZERS: dict[str, Callable[[Iterator[Tensor]], torch.optim.Optimizer]] = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, 0.9, weight_decay=0.01),
    "nesterov": lambda p: torch.optim.SGD(p, 0.1, 0.9, nesterov=True),
    "adam": lambda p: torch.optim.Adam(p, 0.1, weight_decay=0.01),
    "adamw": lambda p: torch.optim.AdamW(p, 0.1, (0.8, 0.99), weight_decay=0.1),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_in_lanes_follows_torch_step_by_step(name: str) -> None:
    steps, image = 100, (1, 8, 8)
    layers = [nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6), nn.Tanh(), nn.AvgPool2d(2), *head()]
    net, images = build(layers, image), torch.randint(256, (steps * BATCH, *image), dtype=torch.uint8)
    labels = (images.flatten(1).float().mean(1) > 127.5).long() + 2
    rates = [0.02 * (1 - step / steps) for step in range(steps)]
    other, mine = copy.deepcopy(net).train(), OPTIMIZERS[name](net.parameters())
    engine = Engine(net, image, scale=1 / 128, shift=-1.0, threads=2)
    halves = [
        engine.train(images[part], labels[part], [BATCH] * 50, mine, rates[first : first + 50])
        for first in (0, 50)
        for part in [slice(first * BATCH, (first + 50) * BATCH)]
    ]
    losses, correct = (torch.cat(parts) for parts in zip(*halves, strict=True))
    theirs = OPTIMIZERS[name](other.parameters())
    x, expected, expected_hits = images / 128 - 1.0, [], []
    for step, rate in enumerate(rates):
        rows = slice(step * BATCH, (step + 1) * BATCH)
        theirs.param_groups[0]["lr"] = rate
        logits = other(x[rows])
        loss = F.cross_entropy(logits, labels[rows])
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        expected.append(loss.item())
        expected_hits.append((logits.argmax(1) == labels[rows]).sum().item())
    assert expected[-1] < expected[0]
    torch.testing.assert_close(losses, torch.tensor(expected, dtype=torch.float64), rtol=1e-3, atol=1e-4)
    assert sum(correct.tolist()) == pytest.approx(sum(expected_hits), abs=2)
    for value, reference in zip(net.state_dict().values(), other.state_dict().values(), strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-2, atol=1e-3)
    for parameter, reference in zip(net.parameters(), other.parameters(), strict=True):
        assert mine.state[parameter].keys() == {k for k, v in theirs.state[reference].items() if v is not None}
        if "step" in mine.state[parameter]:
            assert mine.state[parameter]["step"] == theirs.state[reference]["step"] == steps


def test_results_are_bit_exact_for_any_division_of_steps() -> None:
    x, y = torch.randint(256, (200, 1, 28, 28), dtype=torch.uint8), torch.randint(10, (200,))
    sizes, seeds = [64, 64, 64, 8], [5, 6, 7, 8]

    def train(divided: bool, threads: int) -> list[Tensor]:
        torch.manual_seed(0)
        net = nn.Sequential(*create("lenet_bn")[:-1], Dropout(0.3), nn.Linear(84, 10))
        optimizer = torch.optim.AdamW(net.parameters())
        engine, first = Engine(net, (1, 28, 28), threads=threads), 0
        for part in ([0, 1], [2], [3]) if divided else ([0, 1, 2, 3],):
            count = sum(sizes[step] for step in part)
            rows, first = slice(first, first + count), first + count
            own = ([sizes[step] for step in part], optimizer, [0.01] * len(part))
            engine.train(x[rows], y[rows], *own, seeds=[seeds[step] for step in part])
        return list(net.state_dict().values())

    for threads in (1, 2):
        for whole, parts in zip(train(False, threads), train(True, threads), strict=True):
            assert torch.equal(whole, parts)


def test_dropout_in_lanes_is_seeded_with_exact_gradient() -> None:
    net = build([nn.Flatten(), nn.Linear(16, 400), Dropout(0.25), nn.Linear(400, CLASSES)], (1, 4, 4))
    x, y = batch((1, 4, 4))
    engine, twin = (Engine(net, (1, 4, 4), threads=threads) for threads in (1, 2))
    loss, gradients = engine.gradients(x, y, seed=3)
    assert twin.gradients(x, y, seed=3)[0] == pytest.approx(loss, rel=1e-6)
    assert engine.gradients(x, y, seed=4)[0] != loss
    torch.testing.assert_close(engine.predict(x), net.eval()(x))
    weight, step = net[1].weight, torch.randn(400, 16) * 1e-3
    with torch.no_grad():
        weight += step
        above, _ = engine.gradients(x, y, seed=3)
        weight -= 2 * step
        below, _ = engine.gradients(x, y, seed=3)
    assert (above - below) / 2 == pytest.approx((gradients["1.weight"] * step).sum().item(), rel=1e-2)


def test_dropout_in_lanes_drops_its_share_and_keeps_the_mean() -> None:
    units = 2000
    net = nn.Sequential(nn.Flatten(), nn.Dropout(0.2), nn.Linear(units, 2, bias=False))
    nn.init.zeros_(net[2].weight)
    engine = Engine(net, (1, units, 1), threads=1)
    _, gradients = engine.gradients(torch.ones(16, 1, units, 1), torch.zeros(16, dtype=torch.int64), seed=1)
    kept = gradients["2.weight"][0] / -0.5  # the mean over the images of what each unit lets through
    assert kept.mean().item() == pytest.approx(1.0, abs=0.01)
    counts = (kept * 16 * 0.8).round()
    torch.testing.assert_close(kept * 16 * 0.8, counts, rtol=0, atol=1e-3)
    assert counts.var().item() == pytest.approx(16 * 0.8 * 0.2, rel=0.15)  # as independent draws have


@pytest.mark.parametrize("name", NETS)
def test_bytes_are_scaled_per_channel(name: str) -> None:
    layers, image = NETS[name]
    net, pixels = build(layers(), image), torch.randint(256, (BATCH, *image), dtype=torch.uint8)
    scale, shift = torch.rand(image[0]) / 99, torch.rand(image[0])
    engine = Engine(net, image, scale=scale, shift=shift)
    floats = pixels * scale[:, None, None] + shift[:, None, None]
    torch.testing.assert_close(engine.predict(pixels), engine.predict(floats), rtol=1e-6, atol=1e-6)


def test_nan_propagates_in_lanes() -> None:
    for name, (layers, image) in NETS.items():
        net = build(layers(), image)
        x, y = batch(image)
        x[0, 0, 0, 0] = float("nan")
        assert Engine(net, image, threads=1).predict(x)[0].isnan().all(), name
        if any(isinstance(layer, nn.Linear | nn.Conv2d) for layer in net):
            with torch.no_grad():
                next(net.parameters()).view(-1)[0] = float("inf")
            assert not torch.tensor(Engine(net, image, threads=1).gradients(x, y)[0]).isfinite(), name


REFUSED: dict[str, nn.Module] = {
    "groups": nn.Conv2d(4, 4, 3, groups=2),
    "dilation": nn.Conv2d(4, 4, 3, dilation=2),
    "padding_mode": nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
    "GELU": nn.GELU(),
    "output_size": nn.AdaptiveAvgPool2d(2),
    "ceil_mode": nn.MaxPool2d(2, ceil_mode=True),
    "affine": nn.BatchNorm2d(4, affine=False),
    "Linear": nn.Linear(4, 4),
}


@pytest.mark.parametrize("said", REFUSED)
def test_unsupported_layer_is_named(said: str) -> None:
    net = nn.Sequential(nn.Conv2d(1, 4, 1), nn.Sequential(nn.ReLU(), REFUSED[said]), nn.Flatten(), nn.LazyLinear(2))
    with pytest.raises(UsageError, match=rf"^lanes: layer 1\.1: .*{said}.*; use --engine torch$"):
        read_chain(net, (1, 8, 8))


def test_wrong_images_labels_and_sizes_are_refused() -> None:
    net = build([nn.Flatten(), nn.Linear(4, CLASSES)], (1, 2, 2))
    engine, optimizer = Engine(net, (1, 2, 2)), torch.optim.SGD(net.parameters(), 0.1)
    x, y = batch((1, 2, 2), 6)
    before = copy.deepcopy(net.state_dict())
    with pytest.raises(UsageError, match="do not match batches"):
        engine.train(x, y, [3, 4], optimizer, [0.1, 0.1])
    with pytest.raises(UsageError, match="1 batches have 2 learning rates"):
        engine.train(x, y, [6], optimizer, [0.1, 0.1])
    with pytest.raises(UsageError, match="amsgrad=True is not supported"):
        engine.train(x, y, [6], torch.optim.Adam(net.parameters(), amsgrad=True), [0.1])
    groups = [{"params": [net[1].weight], "momentum": 0.9}, {"params": [net[1].bias]}]
    with pytest.raises(UsageError, match="parameter groups differ in momentum"):
        engine.train(x, y, [6], torch.optim.SGD(groups, 0.1), [0.1])
    with pytest.raises(UsageError, match="labels must be from 0 to 4"):
        engine.train(x, y + CLASSES, [6], optimizer, [0.1])
    with pytest.raises(UsageError, match="float64"):
        engine.predict(x.double())
    with pytest.raises(UsageError, match="RMSprop is not supported; use SGD, Adam or AdamW"):
        engine.train(x, y, [6], torch.optim.RMSprop(net.parameters()), [0.1])
    with pytest.raises(UsageError, match=r"^lanes: the layers output 262,154 values per image, more than 131,072; use"):
        read_chain(nn.Sequential(nn.Conv2d(1, 4, 1), nn.Flatten(), nn.Linear(2**18, 10)), (1, 256, 256))
    with pytest.raises(UsageError, match="output must be logits"):
        Engine(nn.Sequential(nn.Conv2d(1, 2, 1)), (1, 2, 2))
    assert all(torch.equal(net.state_dict()[name], value) for name, value in before.items())


def test_frozen_weights_do_not_change_in_lanes() -> None:
    net = build([nn.Flatten(), nn.Linear(4, 6), nn.Tanh(), nn.Linear(6, CLASSES)], (1, 2, 2))
    net[1].requires_grad_(False)
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.AdamW((p for p in net.parameters() if p.requires_grad), 0.1)
    Engine(net, (1, 2, 2)).train(*batch((1, 2, 2)), [BATCH], optimizer, [0.1])
    changed = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"3.weight", "3.bias"}


# --- the trainer's engine ---


def test_trainer_in_lanes_equals_trainer_with_torch(cli: Cli) -> None:
    asked = ("train", "lenet_bn", "--epochs", 2, "--batch-size", 40, "--augment", "flip,crop:1", "--plan", "off")
    assert "plan: fp32, lanes, 1 thread" in cli(*asked, "--engine", "lanes", "--output", "a").out
    assert "plan: fp32, channels-last" in cli(*asked, "--engine", "torch", "--output", "b").out
    mine, theirs = metrics("a/lenet_bn-digits-1"), metrics("b/lenet_bn-digits-1")
    for row, reference in zip(mine, theirs, strict=True):
        assert row["lr"] == reference["lr"]
        for name in ("train_loss", "val_loss"):
            assert row[name] == pytest.approx(reference[name], rel=2e-2)
    assert mine[0]["train_loss"] == pytest.approx(theirs[0]["train_loss"], rel=1e-3)
    said = json.loads(cli("evaluate", "a/lenet_bn-digits-1", "--json").out)
    assert said["accuracy"] > 0.5
    assert json.loads(Path("a/lenet_bn-digits-1/plan.json").read_text())["engine"] == "lanes"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["lenet", "--mixup", "0.2"], "mixup"),
        (["lenet", "--optimizer", "rmsprop"], "optimizer"),
        (["lenet", "--precision", "bf16"], "precision"),
        (["resnet18"], "layer stem.0: SameConv2d"),
        (["lenet", "--plan", "plan.json"], "plan.json is for torch"),
    ],
)
def test_unsupported_training_in_lanes_is_one_clear_line(cli: Cli, words: list[str], said: str) -> None:
    Path("plan.json").write_text("{}")
    one_line(cli("train", *words, "--engine", "lanes"), 2, said)


def test_without_compiler_torch_is_used_with_a_message(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr("cnnkit.train.autotune.choose.LANES_WORTH", 0)
    done = cli("train", "lenet", "--epochs", 1)
    assert done.code == 0
    assert f"{NO_COMPILER}: training with torch" in done.out
    assert "channels-last" in done.out
    one_line(cli("train", "lenet", "--engine", "lanes"), 2, "C++ compiler", "CXX")
    with pytest.raises(CnnkitError, match="compiler"):
        Engine(create("lenet"), (1, 28, 28))


def test_lanes_are_selected_when_faster(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cnnkit.train.autotune.choose.LANES_WORTH", 0)
    asked = ("train", "lenet", "--epochs", 1, "--batch-size", 32)
    done = cli(*asked)
    assert "compiling the network for lanes" in done.out
    assert "plan: fp32, lanes" in done.out
    again = cli(*asked)
    assert "compiling" not in again.out
    assert "fp32, lanes" in again.out
    assert "channels-last" in cli("train", "lenet", "--epochs", 1, "--engine", "torch").out


def test_run_in_lanes_resumes_bit_exact(cli: Cli) -> None:
    asked = ("train", "lenet", "--engine", "lanes", "--epochs", 6, "--batch-size", 100, "--checkpoint-steps", 3)
    assert cli(*asked, "--output", "whole").code == 0
    assert cli(*asked, "--output", "cut", "--max-time", 1e-6).code == 0
    assert cli("train", "--resume", "cut/lenet-digits-1", "--max-time", 10).code == 0
    whole, cut = (load_checkpoint(Path(run, "lenet-digits-1/last.ckpt"))["stepper"] for run in ("whole", "cut"))
    for name, value in whole["net"].items():
        assert torch.equal(value, cut["net"][name]), name
    for number, state in whole["optimizer"]["state"].items():
        for name, value in state.items():
            assert torch.equal(value, cut["optimizer"]["state"][number][name]), name


SANITIZED = """
import torch
from torch import nn
from cnnkit.lanes import Engine
from helpers.compiler import SANITIZE
from helpers.lanes import NETS, batch, build

for name, (layers, image) in NETS.items():
    net = build(layers(), image)
    engine = Engine(net, image, threads=2, flags=SANITIZE)
    for images in (21, 2, 64):
        x, y = batch(image, images)
        engine.gradients(x, y)
        engine.train((x * 99).to(torch.uint8), y, [images], torch.optim.Adam(net.parameters()), [0.1])
        engine.predict(x)
print("clean")
"""


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_lanes_pass_the_sanitizers() -> None:
    run_sanitized(SANITIZED)
