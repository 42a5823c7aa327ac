"""CUDA graph steps without a GPU: a recorded graph of torch's operators stands in for a CUDA graph.

As with CUDA, a replay uses the same memory, runs no other Python, and synchronising is an error.
"""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnkit.nets import create
from cnnkit.train import TrainConfig
from cnnkit.train.autotune.cuda_graph import CudaGraphStep, unsupported_reason
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.step import Step, Stepper

WAITING = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Graph(TorchDispatchMode):
    """Operators with their operands and results."""

    def __init__(self) -> None:
        super().__init__()
        self.tape: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in WAITING:
            raise RuntimeError(f"{func} waits, which no graph can")
        result = func(*args, **(kwargs or {}))
        self.tape.append((func, args, kwargs or {}, result))
        return result

    @torch.no_grad()
    def replay(self) -> None:
        for func, args, kwargs, result in self.tape:
            pairs = zip(tree_leaves(result), tree_leaves(func(*args, **kwargs)), strict=True)
            for old, new in pairs:
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.detach().copy_(new)


@pytest.fixture(autouse=True)
def _graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def graph(recorder: Graph) -> Iterator[None]:
        with recorder:
            yield

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {
        "CUDAGraph": Graph, "graph": graph, "Stream": lambda device: stream, "current_stream": lambda device: stream,
        "stream": lambda stream: nullcontext(),
    }  # fmt: skip
    for name, fake in fakes.items():
        monkeypatch.setattr(torch.cuda, name, fake)


def steps(net: nn.Module, config: TrainConfig, plan: Plan, size: int) -> tuple[Tensor, Stepper]:
    stepper = Stepper(net, config, plan=plan)
    stepper.train()
    random = torch.Generator().manual_seed(1)
    found = []
    for number, images in enumerate((12, 12, 5, 12)):
        x = torch.rand(images, 1, size, size, generator=random)
        y = torch.randint(10, (images,), generator=random)
        found.append(torch.cat(stepper.take([Step(number, 1e-3, number, images)], x, y)))
    return torch.stack(found), stepper


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"optimizer": "sgd", "momentum": 0.9, "clip": 0.1, "ema": 0.9},
        {"skip_nan": 3, "label_smoothing": 0.1, "precision": "bf16", "freeze": ("conv1",)},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "size"), [("lenet_bn", 28), ("resnet18", 32)])
def test_captured_steps_equal_plain_steps(name: str, size: int, settings: dict[str, Any]) -> None:
    """With batches of two sizes, and statistics that capturing leaves alone."""
    config = TrainConfig(**settings | ({} if name == "lenet_bn" else {"freeze": ()}))
    found = []
    for graph in (False, True):
        torch.manual_seed(0)
        net = create(name, image_size=size, **({"width": 16} if name == "resnet18" else {}))
        results, stepper = steps(net, config, Plan(precision=settings.get("precision", "fp32"), graph=graph), size)
        assert sorted(stepper.cuda_graphs) == ([5, 12] if graph else [])
        found.append((results, {key: value.clone() for key, value in stepper.best_net.state_dict().items()}))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-5)


def test_synchronising_steps_cannot_be_captured() -> None:
    net = nn.Linear(4, 3)

    def work(x: Tensor, y: Tensor) -> Tensor:
        loss = net(x)[torch.arange(len(y)), y].sum()
        return loss if loss.item() else -loss

    with pytest.raises(RuntimeError, match="waits"):
        CudaGraphStep(net, work, torch.rand(2, 4), torch.tensor([0, 2]))


@pytest.mark.parametrize(
    ("device", "settings", "processes", "words"),
    [
        ("cuda", {"clip": 1.0, "ema": 0.9}, 1, None),
        ("cpu", {}, 1, "need a CUDA device"),
        ("cuda", {}, 2, "one process"),
        ("cuda", {"mixup": 0.2, "accumulate": 2}, 1, "have no accumulate, mixup"),
    ],
)
def test_capturable_settings_are_recognised(
    device: str, settings: dict[str, Any], processes: int, words: str | None
) -> None:
    why = unsupported_reason(torch.device(device), TrainConfig(**settings), processes)
    assert why is None if words is None else why and words in why
