"""Parity: the networks of the chapter's definition compute what its Keras code computes on equal weights.

`tools/keras_reference.py` wrote the goldens; both sides draw the same weights and images from their seeds.
"""

import json
import math
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cnnkit.experiment.recipes import recipe
from cnnkit.nets import ZOO, create
from cnnkit.ops import BatchNormalization, CeilMaxPool2d, SameConv2d, SameMaxPool2d, from_scratch
from cnnkit.train.config import TrainConfig
from cnnkit.train.optimizer import make_optimizer
from helpers.cli import ROOT

PATH = ROOT / "tests/goldens/keras.json"
ANEW = "run tools/keras_reference.py, whose first lines say how"
if not PATH.exists():
    pytest.fail(f"{PATH} is missing: {ANEW}", pytrace=False)

Case = dict[str, Any]
GOLDEN: Case = json.loads(PATH.read_text())
CLOSE, APART = 1e-4, 1e-3  # what parity allows at most, and what a mistake changes at least
AFTER_STEPS = 5e-4  # rounding grows with each step at rate 0.9; a stage that did not learn differs by 0.01 and more

BATCH_NORMS = nn.BatchNorm1d | nn.BatchNorm2d
NORMS = BATCH_NORMS | BatchNormalization
LEARNED = {  # Keras' weights of a layer in its order
    nn.Conv2d: ("kernel", "bias"),
    nn.Linear: ("kernel", "bias"),
    NORMS: ("gamma", "beta", "moving_mean", "moving_variance"),
}
KINDS = {
    nn.Conv2d: "Conv2D",
    nn.MaxPool2d: "MaxPooling2D",
    nn.AdaptiveAvgPool2d: "GlobalAveragePooling2D",
    nn.Linear: "Dense",
    BATCH_NORMS: "BatchNormalization",
}


def label(case: Case) -> str:
    return "-".join([case["network"], "x".join(map(str, case["size"])), *map(str, case["arguments"].values())])


def some_slow(rows: dict[str, Any], *slow: str) -> list[Any]:
    """The rows with their names as ids; those whose names begin so are slow."""
    return [pytest.param(row, id=name, marks=[pytest.mark.slow] * name.startswith(slow)) for name, row in rows.items()]


def cases(section: str, *slow: str) -> list[Any]:
    return some_slow({label(case): case for case in GOLDEN[section]}, *slow)


def find(network: str, *size: int) -> Case:
    """The inference case of that network with its default arguments at that size; without one, the smallest."""
    found = [case for case in GOLDEN["inference"] if case["network"] == network and not case["arguments"]]
    found = [case for case in found if tuple(case["size"]) == size or not size]
    assert found, f"no golden of {network} at {size}: {ANEW}"
    return min(found, key=lambda case: math.prod(case["size"]))


def uniform(random: np.random.RandomState, low: float, high: float, *shape: int) -> Tensor:
    values = np.empty(math.prod(shape), "float32")
    for part in np.array_split(values, math.ceil(values.size / 2**16)):  # one stream, without gigabytes of doubles
        part[:] = random.uniform(low, high, part.size)
    return torch.from_numpy(values).view(shape)


def draw_weights(net: nn.Module, gain: float) -> Iterable[Tensor]:
    """Draw what Keras has, layer by layer, and turn it into what torch has, in the order of the state dict."""
    random = np.random.RandomState(GOLDEN["weight_seed"])
    maps = 0  # channels of the map that the next dense layer sees flattened
    for layer in net.modules():
        kernel: tuple[int, ...] = ()
        width = getattr(layer, "num_features", 0) or len(getattr(layer, "gamma", ()))
        if isinstance(layer, nn.Conv2d):
            kernel, width = (*layer.kernel_size, layer.in_channels, layer.out_channels), layer.out_channels
            maps = width
        elif isinstance(layer, nn.Linear):
            kernel, width = (layer.in_features, layer.out_features), layer.out_features
        elif isinstance(layer, nn.AdaptiveAvgPool2d):
            maps = 0
        for name in next((names for kind, names in LEARNED.items() if isinstance(layer, kind)), ()):
            shape = kernel if name == "kernel" else (width,)
            bound = gain * math.sqrt(6 / math.prod(shape[:-1]))
            values = uniform(random, *GOLDEN["ranges"].get(name, (-bound, bound)), *shape)
            if isinstance(layer, nn.Conv2d) and name == "kernel":
                values = values.permute(3, 2, 0, 1)  # height, width, in, out
            elif isinstance(layer, nn.Linear) and name == "kernel":
                pixels = values.view(-1, maps or layer.in_features, width)  # Keras flattens a map's channels last
                values, maps = pixels.permute(2, 1, 0).reshape(width, -1), 0
            yield values.contiguous()
        if isinstance(layer, BATCH_NORMS):
            yield torch.tensor(0)  # torch counts its batches


def build(case: Case, **arguments: Any) -> nn.Sequential:
    """The network without weights."""
    with torch.device("meta"):
        return create(case["network"], image_size=tuple(case["size"]), **case["arguments"] | arguments)


def load(case: Case, **arguments: Any) -> nn.Sequential:
    """The network with its weights, in inference."""
    net = build(case, **arguments)
    state = dict(zip(net.state_dict(), draw_weights(net, case["gain"]), strict=True))
    net.load_state_dict(state, strict=True, assign=True)
    return net.eval()


def images(case: Case, batch: int) -> Tensor:
    noise = np.random.RandomState(GOLDEN["image_seed"]).uniform(-1, 1, (batch, *case["size"], 1))
    brightness = np.linspace(-1, 1, batch).reshape(-1, 1, 1, 1)
    return torch.from_numpy((noise + brightness).astype("float32")).permute(0, 3, 1, 2).contiguous()


def distance(ours: Tensor, theirs: Any) -> float:
    expected = torch.tensor(theirs)
    assert ours.shape == expected.shape
    return float((ours.detach() - expected).abs().max())


def leaves(net: nn.Module) -> list[nn.Module]:
    return [layer for layer in net.modules() if not [*layer.children()]]


def record(net: nn.Module) -> list[str]:
    """Write down each layer's kind and output as Keras would, height x width x channels, when the network works."""
    seen: list[str] = []

    def write(layer: nn.Module, inputs: Any, output: Tensor) -> None:
        for kind, name in KINDS.items():
            if isinstance(layer, kind):
                channels, *sides = output.shape[1:]
                sides = [] if isinstance(layer, nn.AdaptiveAvgPool2d) else sides
                seen.append(f"{name} {'x'.join(map(str, (*sides, channels)))}")

    for layer in leaves(net):
        layer.register_forward_hook(write)
    return seen


def keras_total(net: nn.Module) -> int:
    """Parameters and moving statistics."""
    return sum(values.numel() for values in net.state_dict().values() if values.is_floating_point())


def test_every_network_of_the_chapter_has_goldens() -> None:
    chapters = {name for name, row in ZOO.items() if row.source == "chapter"}
    assert {case["network"] for case in GOLDEN["inference"]} == chapters, ANEW
    normalised = {name for name in chapters if any(isinstance(layer, NORMS) for layer in build(find(name)).modules())}
    assert {case["network"] for case in GOLDEN["training"]} == normalised, ANEW
    for name in chapters:
        find(name, *ZOO[name].input[1:])


@pytest.mark.parametrize("case", cases("inference", *(f"vgg{depth}-224" for depth in (13, 16, 19))))
@torch.inference_mode()
def test_inference(case: Case) -> None:
    net, x = load(case), images(case, 2)
    assert keras_total(net) == case["total"]
    layers = record(net)
    logits = net(x)
    assert layers == case["layers"]
    assert distance(logits, case["logits"]) < CLOSE
    written = build(case, head="as_written")
    state = dict(zip(written.state_dict(), net.state_dict().values(), strict=True))
    written.load_state_dict(state, strict=True, assign=True)
    assert distance(written.eval()(x), case["output"]) < CLOSE


@pytest.mark.parametrize(
    ("name", "total"),
    {
        "lenet": 44_426,
        "lenet_bn": 45_330,
        "alexnet": 46_764_746,
        "vgg11": 128_806_154,
        "nin": 1_992_166,
        "googlenet": 5_977_530,
        "resnet18": 11_186_186,
        "densenet": 990_146,
    }.items(),
)
def test_totals(name: str, total: int) -> None:
    case = find(name, *ZOO[name].input[1:])
    assert keras_total(build(case)) == case["total"] == total


PRINTED: dict[str, tuple[Callable[[nn.Sequential], Iterable[nn.Module]], str]] = {  # the chapter's steps, and outputs
    "alexnet": (
        lambda net: (layer for layer in leaves(net) if not isinstance(layer, nn.ReLU)),
        "54x54x96 26x26x96 26x26x256 12x12x256 12x12x384 12x12x384 12x12x256 5x5x256 6400 4096 4096 4096 4096 10",
    ),
    "vgg11": (lambda net: [*net[:5], net[5:]], "112x112x64 56x56x128 28x28x256 14x14x512 7x7x512 10"),
    "googlenet": (lambda net: [*net[:4], net[4:6], net[6]], "24x24x64 12x12x192 6x6x480 3x3x832 1024 10"),
    "resnet18": (
        lambda net: [*net[0], *net[1:]],
        "112x112x64 112x112x64 112x112x64 56x56x64 56x56x64 28x28x128 14x14x256 7x7x512 512 10",
    ),
    "densenet": (
        lambda net: [net[0][0], net[0][1:3], net[0][3], *net[1:]],
        "48x48x64 48x48x64 24x24x64 24x24x192 12x12x96 12x12x224 6x6x112 6x6x240 3x3x120 3x3x248 248 10",
    ),
}


@pytest.mark.parametrize("name", PRINTED)
def test_the_shapes_that_the_chapter_prints(name: str) -> None:
    steps, printed = PRINTED[name]
    case = find(name, *ZOO[name].input[1:])
    x = torch.empty(1, *ZOO[name].input, device="meta")
    shapes = []
    for step in steps(build(case)):
        x = step(x)
        shapes.append("x".join(map(str, (*x.shape[2:], x.shape[1]))))
    assert " ".join(shapes) == printed


def assert_moved(means: list[Tensor], variances: list[Tensor], case: Case) -> None:
    """Compare each layer's moving statistics: the first few, and the mean over the channels."""
    for kind, ours in (("moving_mean", means), ("moving_variance", variances)):
        for values, (*first, mean) in zip(ours, case[kind], strict=True):
            assert distance(values[: len(first)].float(), first) < CLOSE
            assert values.double().mean().item() == pytest.approx(mean, abs=CLOSE)


@pytest.mark.parametrize("case", cases("training"))
@torch.no_grad()
def test_training_moves_the_statistics(case: Case) -> None:
    net = load(case).train()
    norms = [layer for layer in leaves(net) if isinstance(layer, NORMS)]
    kept = [layer.running_var * (1 - layer.momentum) for layer in norms]
    counts: list[int] = []
    for layer in norms:
        layer.register_forward_hook(lambda layer, inputs, output: counts.append(output[:, 0].numel()))
    assert distance(net(images(case, 8)), case["logits"]) < CLOSE
    # torch adds the unbiased variance of a channel's n values, Keras the biased: (n - 1) / n of it
    variances = [
        old + (layer.running_var - old) * (n - 1) / n for old, layer, n in zip(kept, norms, counts, strict=True)
    ]
    assert_moved([layer.running_mean for layer in norms], variances, case)


@pytest.mark.parametrize("case", cases("training", "resnet"))
@torch.no_grad()
def test_training_from_scratch_moves_the_statistics_as_keras(case: Case) -> None:
    net = from_scratch(load(case).train())
    assert distance(net(images(case, 8)), case["logits"]) < CLOSE
    norms = [layer for layer in net.modules() if isinstance(layer, BatchNormalization)]
    assert_moved([layer.moving_mean for layer in norms], [layer.moving_variance for layer in norms], case)


@pytest.mark.parametrize("norm", [None, "torch", "from_scratch"])
def test_three_steps_of_the_chapters_descent(norm: str | None) -> None:
    network = "lenet_bn" if norm else "lenet"
    (case,) = (case for case in GOLDEN["descent"] if case["network"] == network)
    net = load(case, **{"norm": norm} if norm else {}).train()
    optimizer = make_optimizer(net, TrainConfig(**recipe("chapter")))
    x, labels = images(case, 16), torch.arange(16) % 10
    losses = []
    for _ in case["losses"]:
        loss = F.cross_entropy(net(x), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses == pytest.approx(case["losses"], abs=CLOSE)
    if norm != "torch":  # whose moving variance is not Keras'
        assert distance(net.eval()(x), case["logits"]) < AFTER_STEPS
    assert distance(net.train()(x), case["training_logits"]) < AFTER_STEPS


@pytest.mark.parametrize(
    "name", some_slow({case["network"]: case["network"] for case in GOLDEN["inference"]}, "vgg", "resnet34")
)
@torch.inference_mode()
def test_every_weight_shows(name: str) -> None:
    case = find(name)
    net, x = load(case), images(case, 2)
    for path, values in net.state_dict().items():
        if values.is_floating_point():
            before = values.clone()
            values *= 1.5
            assert distance(net(x), case["logits"]) > APART, path
            values.copy_(before)


def swap(net: nn.Module, other: Callable[[Any], nn.Module], *kinds: type[nn.Module]) -> None:
    """Put another layer in the place of each of exactly those kinds."""
    found = [path for path, layer in net.named_modules() if type(layer) in kinds]
    assert found
    for path in found:
        net.set_submodule(path, other(net.get_submodule(path)))


def convolution_padded_evenly(net: nn.Module) -> None:
    def even(layer: SameConv2d) -> nn.Module:
        sides = [side // 2 for side in layer.kernel_size]
        other = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, sides)
        other.load_state_dict(layer.state_dict())
        return other

    swap(net, even, SameConv2d)


def pooling_padded_evenly(net: nn.Module) -> None:
    swap(net, lambda layer: nn.MaxPool2d(layer.kernel_size, layer.stride, layer.kernel_size // 2), SameMaxPool2d)


def average(net: nn.Module) -> None:
    def averaging(layer: nn.MaxPool2d) -> nn.Module:
        return nn.AvgPool2d(layer.kernel_size, layer.stride, layer.padding, layer.ceil_mode, count_include_pad=False)

    swap(net, averaging, nn.MaxPool2d, CeilMaxPool2d)


def zeros_in_a_window(net: nn.Module) -> None:
    swap(net, lambda layer: nn.Sequential(nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(layer.kernel_size)), CeilMaxPool2d)


def rounded_down(net: nn.Module) -> None:
    swap(net, lambda layer: nn.MaxPool2d(layer.kernel_size), CeilMaxPool2d)


def epsilon(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, BATCH_NORMS):
            layer.eps = {1e-5: 1e-3, 1e-3: 1e-5}[layer.eps]


def flattened_as_keras(net: nn.Module) -> None:
    maps = [layer for layer in net.modules() if isinstance(layer, nn.Conv2d)][-1].out_channels
    dense = next(layer for layer in net.modules() if isinstance(layer, nn.Linear))
    dense.weight = nn.Parameter(dense.weight.view(dense.out_features, maps, -1).transpose(1, 2).flatten(1))


def kernels_mirrored(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(layer.weight.flip(2, 3))


def kernels_transposed(net: nn.Module) -> None:
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            layer.weight = nn.Parameter(layer.weight.mT)


Mistake = Callable[[nn.Module], None]
MISTAKES: dict[Mistake, dict[str, tuple[int, ...]]] = {  # networks, and the size if it is not their smallest golden
    convolution_padded_evenly: {"resnet18": (28, 28), "googlenet": (96, 96), "densenet": (96, 96)},
    pooling_padded_evenly: {"resnet18": (28, 28), "googlenet": (96, 96), "densenet": (96, 96)},
    average: dict.fromkeys(("lenet", "lenet_bn", "alexnet", "vgg11", "nin", "googlenet", "densenet"), ()),
    zeros_in_a_window: {"densenet": (75, 101)},  # every other padded pooling stands behind a ReLU
    rounded_down: {"densenet": (75, 101)},
    epsilon: {"lenet_bn": (75, 101), "resnet18": (), "resnet34": (), "densenet": ()},
    flattened_as_keras: {"lenet": (), "lenet_bn": (), "alexnet": (224, 224), "vgg11": ()},
    kernels_mirrored: dict.fromkeys(("lenet", "alexnet", "nin", "googlenet", "resnet18", "densenet"), ()),
    kernels_transposed: dict.fromkeys(("lenet", "alexnet", "nin", "googlenet", "resnet18", "densenet"), ()),
}


@pytest.mark.parametrize(
    ("mistake", "name", "size"),
    [
        pytest.param(mistake, name, size, id=f"{mistake.__name__}-{name}")
        for mistake, networks in MISTAKES.items()
        for name, size in networks.items()
    ],
)
@torch.inference_mode()
def test_a_mistake_breaks_the_parity(mistake: Mistake, name: str, size: tuple[int, ...]) -> None:
    case = find(name, *size)
    net = load(case)
    mistake(net)
    assert distance(net.eval()(images(case, 2)), case["logits"]) > APART


def test_the_unbiased_variance_breaks_the_parity() -> None:
    (case,) = (case for case in GOLDEN["training"] if case["network"] == "lenet_bn" and not case["arguments"])
    net = load(case).train()
    net(images(case, 8))
    last = [layer for layer in net.modules() if isinstance(layer, NORMS)][-1]
    assert distance(last.running_var[:3], case["moving_variance"][-1][:3]) > APART
