"""What lanes cannot compute is refused by name, never ignored: layers, settings, options of optimisers."""

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.lanes import Engine, library, read_chain, unsupported_reason
from cnnkit.lanes.codegen import generate
from cnnkit.nets import create
from cnnkit.train import lanes
from cnnkit.train.config import TrainConfig
from helpers.compiler import needs_compiler

IMAGE = (1, 28, 28)

# a value of each setting other than its default, and whether lanes train with it
SETTINGS: dict[str, tuple[Any, bool]] = {
    "epochs": (3, True),
    "batch_size": (32, True),
    "accumulate": (2, False),
    "optimizer": ("rmsprop", False),
    "lr": (0.1, True),
    "momentum": (0.9, True),
    "nesterov": (True, True),
    "weight_decay": (0.1, True),
    "schedule": ("cosine", True),
    "warm_up": (1.0, True),
    "lr_step": (2, True),
    "lr_gamma": (0.5, True),
    "lr_power": (2.0, True),
    "clip": (1.0, False),
    "ema": (0.9, False),
    "label_smoothing": (0.1, True),
    "mixup": (0.2, False),
    "cutmix": (0.2, False),
    "class_weights": ("balanced", False),
    "norm_statistics": ("moving", True),
    "freeze": (("conv1",), False),
    "stage_lr": ({"head": 0.1}, True),
    "init": ("he", True),
    "standardize": (False, True),
    "raw_pixels": (True, True),
    "augment": (("flip",), True),
    "validation": (0.2, True),
    "patience": (2, True),
    "max_time": (1.0, True),
    "skip_nan": (1, False),
    "engine": ("lanes", True),
    "plan": ("off", True),
    "precision": ("bf16", False),
    "compile": (True, False),
    "sync_bn": (True, True),
    "checkpoint_steps": (5, True),
    "checkpoint_minutes": (1.0, True),
    "keep": (3, True),
    "seed": (1, True),
    "device": ("cpu", True),
}


@needs_compiler
@pytest.mark.parametrize("name", TrainConfig.model_fields)
def test_each_setting_is_honoured_or_refused_by_name(name: str) -> None:
    value, honoured = SETTINGS[name]
    others = {"optimizer": "sgd", "momentum": 0.9} if name == "nesterov" else {}
    config = TrainConfig(**{name: value} | others)
    assert getattr(config, name) != getattr(TrainConfig(), name)
    reason = lanes.unsupported_reason(create("lenet"), IMAGE, config)
    assert reason is None if honoured else reason == f"unsupported settings: {name}={value}"


@needs_compiler
@pytest.mark.parametrize("settings", [{"optimizer": "sgd"}, {"optimizer": "adam"}, {"precision": "fp32"}])
def test_some_values_of_a_setting_are_honoured(settings: dict[str, Any]) -> None:
    assert lanes.unsupported_reason(create("lenet"), IMAGE, TrainConfig(**settings)) is None


def test_a_setting_that_is_in_no_list_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "HONOURED", lanes.HONOURED - {"label_smoothing", "keep"})
    config = TrainConfig(label_smoothing=0.1, keep=5)
    reason = lanes.unsupported_reason(create("lenet"), IMAGE, config)
    assert reason == "unsupported settings: label_smoothing=0.1, keep=5"


def test_the_lists_name_settings_that_there_are() -> None:
    assert TrainConfig.model_fields.keys() >= lanes.HONOURED | lanes.HONOURED_VALUES.keys()


# --- optimisers ---

Parameters = list[nn.Parameter]
REFUSED: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "amsgrad=True": lambda p: torch.optim.Adam(p, amsgrad=True),
    "maximize=True": lambda p: torch.optim.SGD(p, 0.1, maximize=True),
    "dampening=0.5": lambda p: torch.optim.SGD(p, 0.1, 0.9, dampening=0.5),
    "decoupled_weight_decay=True": lambda p: torch.optim.Adam(p, decoupled_weight_decay=True),
    "trust_ratio=0": lambda p: torch.optim.AdamW([{"params": p, "trust_ratio": 0}]),
}
ACCEPTED: dict[str, Callable[[Parameters], torch.optim.Optimizer]] = {
    "defaults": lambda p: torch.optim.AdamW(p),
    "implementation": lambda p: torch.optim.Adam(p, foreach=True, differentiable=True),
    "names": lambda p: torch.optim.SGD([("weight", p[0]), ("bias", p[1])], 0.1),
    "scheduler": lambda p: (
        torch.optim.lr_scheduler.OneCycleLR(torch.optim.SGD(p, 0.1, 0.9), 0.1, total_steps=9).optimizer
    ),
}


def step(make: Callable[[Parameters], torch.optim.Optimizer]) -> Tensor:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    optimizer = make(list(net.parameters()))
    losses, _ = Engine(net, (1, 2, 2)).train(torch.rand(6, 1, 2, 2), torch.zeros(6), [6], optimizer, [0.1])
    return losses


@needs_compiler
@pytest.mark.parametrize("option", REFUSED)
def test_an_option_that_changes_the_update_is_refused_by_name(option: str) -> None:
    with pytest.raises(UsageError, match=rf"^lanes: the optimizer's {option} is not supported; use --engine torch$"):
        step(REFUSED[option])


@needs_compiler
@pytest.mark.filterwarnings("ignore:Detected call of `lr_scheduler.step")
@pytest.mark.parametrize("name", ACCEPTED)
def test_an_option_that_changes_no_value_is_accepted(name: str) -> None:
    assert step(ACCEPTED[name]).isfinite().all()


# --- layers ---


class Doubled(nn.Conv2d):
    """A layer that computes something else than its base class."""

    def forward(self, input: Tensor) -> Tensor:
        return 2 * super().forward(input)


@pytest.mark.parametrize(
    ("layer", "reason"),
    [
        (Doubled(1, 1, 1), "this type of layer is not supported"),
        (nn.utils.parametrizations.weight_norm(nn.Conv2d(1, 1, 1)), "this type of layer is not supported"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override must be None"),
        (nn.Conv2d(1, 1, 3, padding="same"), "padding must be numbers"),
        (nn.BatchNorm2d(1, momentum=None), "momentum must be a number"),
        (nn.Conv2d(2, 1, 1), "it expects 2 channels or features, not 1"),
        (nn.MaxPool2d(5), "the window of 5 x 5 is larger than the padded input of 4 x 4"),
    ],
)
def test_a_layer_is_refused_with_name_and_reason(layer: nn.Module, reason: str) -> None:
    net, image = nn.Sequential(nn.Sequential(layer), nn.Flatten(), nn.Linear(16, 3)), (1, 4, 4)
    assert f"layer 0.0: {type(layer).__name__}(" in str(unsupported_reason(net, image))
    with pytest.raises(UsageError, match=rf"^lanes: layer 0\.0: .*{reason}.*; use --engine torch$"):
        read_chain(net, image)


@pytest.mark.parametrize(
    ("net", "reason"),
    [
        (nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), "the network has no parameters"),
        (nn.Sequential(nn.Conv2d(1, 2, 1)), "the network's output must be logits, N x classes"),
    ],
)
def test_a_network_is_refused_with_the_reason(net: nn.Module, reason: str) -> None:
    assert unsupported_reason(net, (1, 4, 4)) == reason


# --- the compiled library ---


@needs_compiler
@pytest.mark.parametrize("name", library.STRUCTURES)
def test_a_structure_of_another_size_is_refused(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Longer(library.STRUCTURES[name]):  # type: ignore[misc]
        _fields_ = (("added", ctypes.c_int64),)

    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3))
    Engine(net, (1, 2, 2))
    monkeypatch.setitem(library.STRUCTURES, name, Longer)
    with pytest.raises(CnnkitError, match=r"Longer has \d+ bytes in the compiled library and \d+ in Python; reinstall"):
        Engine(net, (1, 2, 2))


def test_the_generated_files_are_complete_and_depend_on_sizes_alone() -> None:
    def files(classes: int) -> dict[str, str]:
        net = nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(32, classes))
        return generate(read_chain(net, (1, 4, 4)), (1, 4, 4))

    made = files(3)
    assert {"library.cpp", "net.hpp", "team.hpp"} <= made.keys()
    assert not any(name.endswith(".in") for name in made)
    assert "$" not in made["net.hpp"].split("\n", 1)[1]  # after the line that describes the file
    assert made == files(3)
    assert made["net.hpp"] != files(4)["net.hpp"]
