"""Traced, exported, compiled and ONNX networks: they answer like their modules at any size."""

import copy
import io
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.testing import CompileCounter
from torch.export import Dim, export

from cnnkit.core.compiler import find_compiler
from cnnkit.nets import ZOO, create
from cnnkit.ops import (
    CeilMaxPool2d,
    Dropout,
    Pool2D,
    SameConv2d,
    SameMaxPool2d,
    compile_pooling,
    from_scratch,
    tune,
)
from cnnkit.ops.tuned import Algorithms

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit:DeprecationWarning")  # but not TracerWarning

LONG = re.compile(r"resnet(34|50|101|152)|densenet1|densenet2|vgg1[369]|googlenet.tv")  # many layers to record
every = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.slow] if LONG.match(name) else []) for name in sorted(ZOO)]
)
FIXED = {"lenet", "lenet_bn", "alexnet", "vgg11", "vgg13", "vgg16", "vgg19"}  # dense layers for one size of image
LARGER = {"nin": 99, "alexnet.tv": 95}  # pixels: torch's export takes a map of a single pixel for one that stays so


def subject(name: str) -> tuple[nn.Module, int, list[Tensor]]:
    """A network, narrow where it can be, the pixels of its example, and batches of other counts and sizes."""
    pixels = ZOO[name].smallest if name in FIXED else LARGER.get(name, 65)
    narrow = {"width": 8} if re.match("resnet|vgg", name) else {}
    channels = ZOO[name].input[0]
    shapes = [(2, pixels, pixels), (3, pixels, pixels)]
    if name not in FIXED:
        shapes += [(2, pixels + 1, pixels + 14), (1, pixels + 31, pixels)]
    net = create(name, image_size=pixels, **narrow).eval()
    return net, pixels, [torch.randn(count, channels, *size) for count, *size in shapes]


def check(program: Callable[[Tensor], Tensor], net: nn.Module, batches: list[Tensor]) -> None:
    for x in batches:
        torch.testing.assert_close(program(x), net(x))


def exported(net: nn.Module, x: Tensor, least: int | None = None, **how: Any) -> Callable[[Tensor], Tensor]:
    """Export for any batch and, from `least` pixels on, any height and width."""
    free = {0: Dim("n", max=64)}
    if least is not None:
        free |= {2: Dim("h", min=least, max=512), 3: Dim("w", min=least, max=512)}
    return export(net, (x,), dynamic_shapes=(free,), **how).module()


def traced(net: nn.Module, x: Tensor, least: int | None = None) -> Callable[[Tensor], Tensor]:
    return torch.jit.trace(net, x)


@every
@torch.no_grad()
def test_traced_network_accepts_other_batches_and_sizes(name: str) -> None:
    net, _, batches = subject(name)
    check(torch.jit.trace(net, batches[0]), net, batches)


@every
@torch.no_grad()
def test_exported_network_accepts_other_batches_and_sizes(name: str) -> None:
    net, pixels, batches = subject(name)
    check(exported(net, batches[0], None if name in FIXED else pixels), net, batches)


@torch.no_grad()
def test_operation_counters_read_the_traced_graph() -> None:
    net, _, batches = subject("resnet18")
    graph, _ = torch.jit._get_trace_graph(net, (batches[0],))
    kinds = [node.kind() for node in graph.nodes()]
    assert kinds.count("aten::_convolution") == sum(isinstance(layer, nn.Conv2d) for layer in net.modules())


@torch.no_grad()
def test_strict_export_works() -> None:
    net, pixels, batches = subject("resnet18")
    check(exported(net, batches[0], pixels, strict=True), net, batches)


@torch.no_grad()
def test_compiled_graph_serves_odd_and_even_sizes() -> None:
    net, batches = subject("resnet18")[0], [torch.randn(n, 1, 60 + n, 80 + n // 2) for n in range(2, 7)]
    counter = CompileCounter()
    check(torch.compile(net, backend=counter, fullgraph=True, dynamic=True), net, batches)
    assert counter.frame_count == 1


@torch.no_grad()
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")  # of the exporter's own parts
def test_onnx_network_accepts_other_batches_and_sizes(capfd: pytest.CaptureFixture[str]) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, pixels, batches = subject("resnet18")
    free = ({0: Dim("n"), 2: Dim("h", min=pixels, max=512), 3: Dim("w", min=pixels, max=512)},)
    model = torch.onnx.export(net, (batches[0],), dynamic_shapes=free, dynamo=True, verbose=False)
    file = io.BytesIO(model.model_proto.SerializeToString())
    session = runtime.InferenceSession(file.getvalue(), providers=["CPUExecutionProvider"])
    [name] = [given.name for given in session.get_inputs()]
    for x in batches:
        [logits] = session.run(None, {name: x.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), net(x), rtol=1e-3, atol=1e-4)


LAYERS: dict[str, Callable[[], nn.Module]] = {
    **{
        f"conv {k} by {s}": lambda k=k, s=s: SameConv2d(2, 3, k, s) for k, s in [(7, 2), (3, 2), (4, 1), (1, 2), (2, 3)]
    },
    **{f"pool {k} by {s}": lambda k=k, s=s: SameMaxPool2d(k, s) for k, s in [(3, 2), (2, 2), (3, 1), (1, 2), (2, 3)]},
    **{f"ceil {k} by {s}": lambda k=k, s=s: CeilMaxPool2d(k, s) for k, s in [(3, 2), (2, 2), (3, 1)]},
    "from scratch, conv": lambda: from_scratch(SameConv2d(2, 3, 3, 2)),
    "from scratch, maximum": lambda: Pool2D(3, "max", 2, "same"),
    "from scratch, average": lambda: Pool2D(3, "avg", 2, "same"),
}
WARNS = pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # from scratch, channels are compared


@pytest.mark.parametrize("kind", [pytest.param(kind, marks=[WARNS] if "scratch" in kind else []) for kind in LAYERS])
@pytest.mark.parametrize("record", [traced, exported])
@torch.no_grad()
def test_exported_padding_follows_the_input_size(kind: str, record: Callable[..., Callable[[Tensor], Tensor]]) -> None:
    layer, x = LAYERS[kind](), torch.randn(2, 2, 16, 19) - 9  # zeros in the padding of a maximum would show
    check(record(layer, x, 8), layer, [torch.randn(3, 2, height, 31 - height) - 9 for height in range(8, 23)])


def test_exported_ceil_mode_pooling_equals_torch() -> None:
    for kernel, stride in [(3, 2), (2, 2), (2, 3), (3, 1)]:
        torchs, ours = nn.MaxPool2d(kernel, stride, ceil_mode=True), CeilMaxPool2d(kernel, stride)
        for size in range(3, 15):
            x = torch.randn(2, 3, size, 17 - size)
            if min(x.shape[2:]) >= kernel:
                assert ours(x).equal(torchs(x))


@torch.no_grad()
def test_tuned_convolutions_are_traced_as_torch_convolutions() -> None:
    """Code that torch cannot see into would leave its answer to the example in the program."""
    net = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), SameConv2d(8, 8, 3, 2))
    for layer in tune(net).values():
        layer.algorithms, layer.prediction = Algorithms("winograd", "winograd", "winograd"), "winograd"
    program = torch.jit.trace(net, torch.randn(2, 8, 12, 12))
    check(program, net, [torch.randn(3, 8, 15, 20)])


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
def test_compiled_pooling_is_traced_as_torch_pooling() -> None:
    net = nn.Sequential(nn.ReLU(), nn.MaxPool2d(2), CeilMaxPool2d(3, 2), SameMaxPool2d(3, 2))
    plain = copy.deepcopy(net)
    assert len(compile_pooling(net)) == 3
    x = torch.randn(2, 8, 12, 12).to(memory_format=torch.channels_last).requires_grad_()
    other = torch.randn(3, 8, 37, 40).to(memory_format=torch.channels_last)
    assert net(other).equal(plain(other))
    check(torch.jit.trace(net, x), plain, [other])


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")  # it is random
def test_traced_dropout_accepts_any_batch() -> None:
    program = torch.jit.trace(Dropout(0.25).train(), torch.ones(2, 10), check_trace=False)
    assert 0.2 < (program(torch.ones(50, 400)) == 0).double().mean() < 0.3
