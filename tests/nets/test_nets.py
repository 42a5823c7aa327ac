"""Every network of the zoo: shapes, parameters, gradients, other sizes, slicing, errors, docstring tables."""

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

import cnnkit
from cnnkit.anatomy import trace
from cnnkit.core.errors import UsageError
from cnnkit.core.shape import by
from cnnkit.nets import (
    BOTTLENECK,
    ZOO,
    DenseBlock,
    Inception,
    Residual,
    create,
    entry,
    list_networks,
    nin_block,
    transition,
    vgg_block,
)
from cnnkit.ops import SameConv2d, SameMaxPool2d, corr2d_multi_in_out, from_scratch, pool2d

every = pytest.mark.parametrize("name", sorted(ZOO))
CHAPTER = sorted(name for name in ZOO if ZOO[name].source == "chapter")


def small(name: str) -> int:
    """Pixels of an image that every stage of the network leaves something of, and no more."""
    return max(ZOO[name].smallest, 33)


def shape_of(name: str, channels: int | None = None, size: tuple[int, int] | None = None, **arguments: Any) -> Any:
    """Build on the meta device, where nothing is computed, and return the logits' shape for two images."""
    with torch.device("meta"):
        net = create(name, in_channels=channels, image_size=size, **arguments).eval()
        return tuple(net(torch.empty(2, channels or ZOO[name].input[0], *(size or ZOO[name].input[1:]))).shape)


@every
def test_every_parameter_gets_a_gradient(name: str) -> None:
    pixels = small(name)
    net = create(name, image_size=pixels)
    logits = net(torch.randn(3, ZOO[name].input[0], pixels, pixels))
    assert logits.shape == (3, ZOO[name].classes)
    assert logits.isfinite().all()
    logits.square().sum().backward()
    for path, parameter in net.named_parameters():
        assert parameter.grad is not None, path
        assert parameter.grad.count_nonzero(), path


@every
def test_zoo_counts_match_the_networks(name: str) -> None:
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        net = create(name).eval()
        net(torch.empty(1, *ZOO[name].input))
    assert sum(parameter.numel() for parameter in net.parameters()) == ZOO[name].params
    assert counter.get_total_flops() == 2 * ZOO[name].macs


@every
def test_networks_accept_other_channels_classes_and_sizes(name: str) -> None:
    smallest = ZOO[name].smallest
    assert shape_of(name) == (2, ZOO[name].classes)
    assert shape_of(name, 4, (smallest + 12, smallest + 25), num_classes=7) == (2, 7)


@every
def test_smallest_image_works_and_smaller_is_refused(name: str) -> None:
    smallest = ZOO[name].smallest
    assert shape_of(name, size=(smallest, smallest)) == (2, ZOO[name].classes)
    if smallest == 1:
        with pytest.raises(UsageError, match=r"image_size must be .* >= 1, not 0"):
            create(name, image_size=0)
        return
    with pytest.raises(
        UsageError, match=rf"{name} needs images of at least {smallest} x {smallest}, not {smallest - 1}"
    ):
        create(name, image_size=smallest - 1)
    with torch.device("meta"), pytest.raises((RuntimeError, UsageError, UserWarning)):  # and no smaller one would
        ZOO[name].build(image_size=smallest - 1, **ZOO[name].arguments)(torch.empty(2, 1, smallest - 1, smallest - 1))


@every
def test_stages_have_names_and_slices(name: str) -> None:
    pixels = small(name)
    net = create(name, image_size=pixels).eval()
    x = torch.randn(2, ZOO[name].input[0], pixels, pixels)
    assert type(net) is nn.Sequential
    assert [stage for stage, _ in net.named_children()][-1] == "head"
    with torch.no_grad():
        logits, features = net(x), net[:-1](x)
        assert net[-1](features).equal(logits)
        with torch.device("meta"):
            other = create(name, image_size=pixels)
        other.load_state_dict(net.state_dict(), assign=True)
        assert other.eval()(x).equal(logits)
        net[-1] = nn.LazyLinear(3) if features.ndim == 2 else nn.LazyConv2d(3, 1)
        assert net(x).shape[:2] == (2, 3)


@pytest.mark.parametrize("build", dict.fromkeys(row.build for row in ZOO.values()), ids=lambda build: build.__name__)
def test_docstring_tables_match_the_networks(build: Callable[..., nn.Module]) -> None:
    tables = re.findall(r"^ +stage +output +(.+)\n((?: +\w+ .*\n)+)", build.__doc__ or "", re.M)
    names = [name for header, _ in tables for name in header.split()]
    assert {name for name in CHAPTER if ZOO[name].build is build} <= set(names)
    for header, body in tables:
        rows = [re.split(r" {2,}", line.strip()) for line in body.splitlines()]
        for column, name in enumerate(header.split(), start=-len(header.split())):
            assert ZOO[name].build is build
            with torch.device("meta"):
                parts = trace(create(name), ZOO[name].input)
            expected = [(stage.name, by(*stage.output), f"{stage.params:,}") for stage in parts.stages]
            assert [(row[0], row[1], row[column]) for row in rows if row[0] not in ("total", "statistics")] == expected
            sums = {row[0]: row[column] for row in rows[len(expected) :]}
            assert sums.get("total") == f"{parts.params:,}"
            assert sums.get("statistics", "0") == f"{parts.statistics:,}"


def test_lenet_shapes_match_the_chapter() -> None:
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
def test_lenet_bn_from_scratch_equals_torch(training: bool) -> None:
    torchs = filled_statistics(create("lenet_bn", norm="torch")).train(training)
    from_scratch = create("lenet_bn", norm="from_scratch").train(training)
    spelled = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    source = torchs.state_dict()
    target = from_scratch.state_dict()
    from_scratch.load_state_dict(
        {
            path: source[".".join([*path.split(".")[:-1], spelled.get(path.split(".")[-1], path.split(".")[-1])])]
            for path in target
        }
    )
    x = torch.randn(16, 1, 28, 28)
    torch.testing.assert_close(from_scratch(x), torchs(x), atol=1e-5, rtol=0)


HEAVY = re.compile(r"vgg1[369]|vgg.*\.tv|resnet(34|50|101|152)|densenet1[69]|densenet2|preact")


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if HEAVY.match(name) else []) for name in sorted(ZOO)]
)
def test_from_scratch_network_answers_the_same(name: str) -> None:
    """The chapter's operators from scratch are the specification of the fast layers."""
    pixels = small(name)
    net = filled_statistics(create(name, image_size=pixels)).eval()
    x = torch.randn(1, ZOO[name].input[0], pixels, pixels)
    with torch.no_grad():
        expected = net(x)
        rebuilt = from_scratch(net)
        assert not any(isinstance(layer, nn.Conv2d | nn.MaxPool2d | nn.BatchNorm2d) for layer in rebuilt.modules())
        answer = rebuilt(x)
    torch.testing.assert_close(answer, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))


def exported(net: nn.Module, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.export.export(net, (x,)).module()


def compiled(net: nn.Module, x: torch.Tensor) -> Callable[[torch.Tensor], torch.Tensor]:
    return torch.compile(net, fullgraph=True, backend="aot_eager")


@pytest.mark.parametrize(
    ("prepare", "name"),
    [(exported, "lenet_bn"), (exported, "googlenet"), (compiled, "resnet18"), (compiled, "densenet")],
)
def test_exported_and_compiled_networks_answer_the_same(prepare: Callable[..., Any], name: str) -> None:
    net = create(name, image_size=37).eval()
    x = torch.randn(2, 1, 37, 37)
    with torch.no_grad():
        torch.testing.assert_close(prepare(net, x)(x), net(x))


ACTIVATIONS = {
    "lenet": torch.sigmoid,
    "lenet_bn": torch.sigmoid,
    "alexnet": torch.sigmoid,
    "vgg11": torch.sigmoid,
    "googlenet": lambda logits: logits,
    "resnet18": lambda logits: logits.softmax(1),
    "densenet": lambda logits: logits.softmax(1),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_head_as_written_adds_its_activation(name: str) -> None:
    pixels = small(name)
    x = torch.randn(2, 1, pixels, pixels)
    net, written = (create(name, image_size=pixels, head=head).eval() for head in ("logits", "as_written"))
    written.load_state_dict(dict(zip(written.state_dict(), net.state_dict().values(), strict=True)))
    with torch.no_grad():
        torch.testing.assert_close(written(x), ACTIVATIONS[name](net(x)))


def test_nin_as_published_ends_in_relu_before_the_mean() -> None:
    net = create("nin", image_size=67, head="as_written").eval()
    logits = create("nin", image_size=67).eval()
    logits.load_state_dict(dict(zip(logits.state_dict(), net.state_dict().values(), strict=True)))
    x = torch.randn(2, 1, 67, 67)
    maps = logits[-1][:-2](logits[:-1](x))  # before pooling
    torch.testing.assert_close(net(x), maps.relu().mean((2, 3)))
    torch.testing.assert_close(logits(x), maps.mean((2, 3)))
    assert (maps < 0).any()


@pytest.mark.parametrize("size", [(28, 28), (75, 101), (8, 7)])
@pytest.mark.parametrize(("kernel", "stride"), [(7, 2), (3, 2), (2, 2), (5, 3), (3, 1), (2, 1), (4, 1)])
def test_same_padding_equals_tensorflow(size: tuple[int, int], kernel: int, stride: int) -> None:
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    conv = SameConv2d(3, 4, kernel, stride).double()
    expected = corr2d_multi_in_out(x, conv.weight, stride, "same") + conv.bias[:, None, None]  # type: ignore[index]
    torch.testing.assert_close(conv(x), expected)
    pooled = SameMaxPool2d(kernel, stride)(x - 9)  # zeros in the padding would show
    assert pooled.equal(pool2d(x - 9, kernel, "max", stride, "same"))


def test_blocks_match_the_chapter_examples() -> None:
    assert Residual(3, 3)(torch.randn(4, 3, 6, 6)).shape == (4, 3, 6, 6)
    assert Residual(3, 6, 2)(torch.randn(4, 3, 6, 6)).shape == (4, 6, 3, 3)
    assert DenseBlock(3, 2, 10)(torch.randn(4, 3, 8, 8)).shape == (4, 23, 8, 8)
    assert transition(23, 10)(torch.randn(4, 23, 8, 8)).shape == (4, 10, 4, 4)
    assert Inception(192, 64, (96, 128), (16, 32), 32)(torch.randn(1, 192, 12, 12)).shape == (1, 256, 12, 12)
    assert vgg_block(1, 64, 2)(torch.randn(1, 1, 9, 8)).shape == (1, 64, 4, 4)
    assert nin_block(1, 96, 11, 4)(torch.randn(1, 1, 64, 64)).shape == (1, 96, 14, 14)
    assert Residual(64, 64, 1, BOTTLENECK, "torchvision")(torch.randn(2, 64, 5, 5)).shape == (2, 256, 5, 5)


def test_residual_block_is_the_sum_of_its_branches() -> None:
    x = torch.randn(4, 3, 6, 6)
    block = Residual(3, 3).eval()
    assert block.shortcut is None
    assert block(x).equal((block.body(x) + x).relu())
    wider = Residual(3, 6, 2).eval()
    assert wider.shortcut is not None
    assert wider(x).equal((wider.body(x) + wider.shortcut(x)).relu())


def test_preactivation_normalises_first_and_adds_the_input() -> None:
    layout = "preactivation"
    x = torch.randn(4, 3, 6, 6)
    block = Residual(3, 3, layout=layout).eval()
    assert [type(layer).__name__ for layer in [*block.before, *block.body]] == [
        "BatchNorm2d", "ReLU", "Conv2d", "BatchNorm2d", "ReLU", "Conv2d"
    ]  # fmt: skip
    assert block(x).equal(block.body(block.before(x)) + x)
    projected = Residual(3, 6, 2, layout=layout).eval()
    seen = projected.before(x)
    assert projected.shortcut is not None
    assert projected(x).equal(projected.body(seen) + projected.shortcut(seen))
    assert not list(Residual(3, 3, layout=layout, first=True).before)  # the stem has done it


def test_transitions_use_the_given_pooling() -> None:
    pools = {name: [type(m).__name__ for m in create("densenet", **own).modules() if "Pool" in type(m).__name__]
             for name, own in {"chapter": {}, "text": {"pool": "avg"}}.items()}  # fmt: skip
    assert pools["chapter"] == ["SameMaxPool2d", *["CeilMaxPool2d"] * 3, "AdaptiveAvgPool2d"]
    assert create("densenet", pool="avg", image_size=28)(torch.randn(2, 1, 28, 28)).shape == (2, 10)
    assert pools["text"] == ["SameMaxPool2d", *["AvgPool2d"] * 3, "AdaptiveAvgPool2d"]


def norm_constants(name: str, **arguments: Any) -> set[tuple[float, float]]:
    norms = [m for m in create(name, **arguments).modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d)]
    return {(round(1 - (m.momentum or 0), 6), m.eps) for m in norms}


@pytest.mark.parametrize("name", ["lenet_bn", "resnet18", "densenet"])
def test_norm_constants_reach_the_layers(name: str) -> None:
    assert norm_constants(name) == {(0.9, 1e-5) if name == "lenet_bn" else (0.99, 1e-3)}
    assert norm_constants(name, decay=0.8, epsilon=1e-4) == {(0.8, 1e-4)}
    if name == "lenet_bn":
        from_scratch = create("lenet_bn", norm="from_scratch", decay=0.8, epsilon=1e-4)
        assert [(m.decay, m.epsilon) for m in from_scratch.modules() if hasattr(m, "decay")] == [(0.8, 1e-4)] * 4


def test_list_nets_filters_by_glob() -> None:
    assert list_networks("lenet*") == ["lenet", "lenet_bn"]
    assert list_networks("resnet*.tv") == [f"resnet{depth}.tv" for depth in (101, 152, 18, 34, 50)]
    assert list_networks() == sorted(ZOO)
    assert entry("lenet").section == "5.5"


def test_torchvision_only_name_selects_its_network() -> None:
    for name in ("resnet50", "vgg16_bn", "densenet121"):
        assert entry(name) is ZOO[f"{name}.tv"]
    assert entry("vgg16") is ZOO["vgg16"] is not ZOO["vgg16.tv"]


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: list_networks("resnet"), r"unknown network 'resnet'; to match names that start with it: resnet\*"),
        (lambda: create("lenet", in_chans=3), "unknown argument of lenet 'in_chans'; did you mean 'in_channels'"),
        (lambda: create("lenet", pretrained=3), "pretrained must be True, False or a path, not 3"),
        (lambda: create("lenet_bn", decay=True), "decay must be between 0 and 1, not True"),
        (lambda: vgg_block(3, 4, 0), "num_convs must be an int >= 1, not 0"),
        (lambda: Residual(3, 4, stride=0), "stride must be an int >= 1, not 0"),
        (lambda: create("lenett"), "unknown network 'lenett'; did you mean 'lenet'"),
        (lambda: create("resnet19"), "unknown network 'resnet19'; did you mean 'resnet1"),
        (lambda: list_networks("yolo*"), r"unknown network 'yolo\*'"),
        (lambda: create("lenet_bn", nrom="from_scratch"), "unknown argument of lenet_bn 'nrom'; did you mean 'norm'"),
        (lambda: create("lenet_bn", norm="keras"), "unknown norm 'keras'"),
        (lambda: create("resnet18", depth=34), "unknown argument of resnet18 'depth'"),
        (lambda: create("resnet18", head="probabilities"), "unknown head 'probabilities'; .*known: as_written, logits"),
        (lambda: create("nin", head="softmax"), "unknown head 'softmax'"),
        (lambda: create("vgg11", layout="torchvision"), "unknown argument of vgg11 'layout'"),
        (lambda: cnnkit.nets.vgg(layout="keras"), "unknown layout 'keras'; .*known: chapter, torchvision"),
        (lambda: cnnkit.nets.googlenet(layout="tf"), "unknown layout 'tf'"),
        (lambda: Residual(3, 3, layout="keras"), "unknown layout 'keras'"),
        (lambda: create("lenet", image_size=10**6), "lenet cannot be built: .*"),
        (lambda: cnnkit.nets.resnet(depth=20), "unknown depth 20; .*known: 101, 152, 18, 34, 50"),
        (lambda: create("densenet", pool="median"), "unknown transition pooling 'median'"),
        (lambda: create("resnet18", decay=2), "decay must be between 0 and 1, not 2"),
        (lambda: create("alexnet", dropout=1.5), "alexnet with .*1.5.* cannot be built: dropout probability"),
        (lambda: create("lenet", num_classes=0), "num_classes must be .* not 0"),
        (lambda: create("lenet", in_channels=-1), "in_channels must be .* not -1"),
        (lambda: create("lenet", image_size=(28, 28, 3)), "image_size must be"),
    ],
)
def test_invalid_arguments_raise(call: Callable[[], object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()


def test_create_is_exported_by_the_package() -> None:
    assert cnnkit.create is create
    with pytest.raises(AttributeError):
        cnnkit.nothing  # noqa: B018


def test_vgg_width_scales_every_layer() -> None:
    shapes = [part.output for part in trace(create("vgg11", image_size=64, width=8), (1, 64, 64)).stages]
    assert shapes == [(8, 32, 32), (16, 16, 16), (32, 8, 8), (64, 4, 4), (64, 2, 2), (512,), (10,)]
    with pytest.raises(UsageError, match="width"):
        create("vgg11", width=0)


def test_narrow_cifar_resnet_keeps_resolution_in_the_stem() -> None:
    net = create("resnet18", image_size=28, stem="cifar", width=16)
    shapes = [part.output for part in trace(net, (1, 28, 28)).stages]
    assert shapes == [(16, 28, 28), (16, 28, 28), (32, 14, 14), (64, 7, 7), (128, 4, 4), (128,), (10,)]
    for arguments, words in (({"stem": "cifr"}, "unknown stem 'cifr'; did you mean 'cifar'?"), ({"width": 0}, "width")):
        with pytest.raises(UsageError, match=words):
            create("resnet18", **arguments)
