"""The execution plan: chosen by measurement, cached, applied, and without effect on results."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnkit.core.cache import read_record
from cnnkit.core.compiler import find_compiler
from cnnkit.nets import create
from cnnkit.ops import convolutions
from cnnkit.ops.tuned import Algorithms, TunedConv2d, tune
from cnnkit.train import TrainConfig
from cnnkit.train.autotune import choose
from cnnkit.train.autotune import steps as autotune_steps
from cnnkit.train.autotune.choose import choose_plan
from cnnkit.train.autotune.plan import Plan, plain_plan, read_plan, threads, use_plan
from cnnkit.train.autotune.steps import Autotuner
from helpers.cli import Cli, one_line

MANY = 10**12  # images: enough for a plan to be worth its trial
IMAGE = (1, 8, 8)
UNFOLD = ["unfold", "unfold", "unfold"]


@pytest.fixture
def net() -> nn.Module:
    torch.manual_seed(0)
    return create("resnet18", image_size=8, width=4, stem="cifar")


def use_clock(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Plan], float]) -> None:
    """Let a step take the seconds that its plan has: the logic of choices, not this machine's speed."""
    monkeypatch.setattr(Autotuner, "_step", lambda tuner, plan: lambda: seconds(plan))
    monkeypatch.setattr(autotune_steps, "measure", lambda works, device: {name: work() for name, work in works.items()})


def small_plan(**fields: object) -> Path:
    path = Path("plan.json")
    path.write_text(json.dumps(fields))
    return path


@pytest.mark.parametrize("precision", ["auto", "fp32", "bf16"])
def test_plan_is_chosen_once_and_cached(
    net: nn.Module, precision: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    config = TrainConfig(precision=precision)
    chosen = choose_plan(net, IMAGE, 4, MANY, config)
    assert chosen.precision in (["fp32", "bf16"] if precision == "auto" else [precision])
    [file] = (tmp_path / "cache/plans").iterdir()
    assert read_record(file, choose.PLAN) == chosen
    monkeypatch.setattr(choose, "Autotuner", None)
    assert choose_plan(net, IMAGE, 4, MANY, config) == chosen
    with pytest.raises(TypeError):  # other batches are another question
        choose_plan(net, IMAGE, 5, MANY, config)


def test_corrupt_plan_is_chosen_again_and_cache_is_optional(
    net: nn.Module, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = iter([Plan(threads=1), Plan(threads=2), Plan(threads=3)])
    monkeypatch.setattr(Autotuner, "choose", lambda tuner, *asked: next(made))
    assert choose_plan(net, IMAGE, 4, MANY, TrainConfig()).threads == 1
    [file] = (tmp_path / "cache/plans").iterdir()
    file.write_text('{"threads": ')
    assert choose_plan(net, IMAGE, 4, MANY, TrainConfig()).threads == 2
    assert choose_plan(net, IMAGE, 4, MANY, TrainConfig()).threads == 2
    (tmp_path / "a file").touch()
    monkeypatch.setenv("CNNKIT_CACHE", str(tmp_path / "a file"))
    assert choose_plan(net, IMAGE, 4, MANY, TrainConfig()).threads == 3


def test_autotune_leaves_the_network_unchanged(net: nn.Module) -> None:
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    choose_plan(net, IMAGE, 4, MANY, TrainConfig(freeze=("stem",)))
    assert net.training
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert not any(isinstance(layer, TunedConv2d) for layer in net.modules())
    for name, value in net.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_fastest_plan_is_taken_only_above_the_margin(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = {"bf16": 0.7, "fp32": 1.0, "contiguous": 0.5, "channels_last": 1.0}

    def seconds(plan: Plan) -> float:
        return 0.01 * cost[plan.precision] * cost[plan.memory_format] * (0.99 if plan.convolutions else 1)

    use_clock(monkeypatch, seconds)
    monkeypatch.setattr(Autotuner, "_multiplies_faster_in", lambda *asked: True)
    monkeypatch.setattr(autotune_steps, "fastest_algorithms", lambda *asked: {"head": Algorithms("unfold")})
    chosen = choose_plan(net, IMAGE, 4, MANY, TrainConfig())
    assert chosen == Plan(precision="bf16", memory_format="contiguous")  # one percent is noise
    cost["bf16"] = 0.9
    assert choose_plan(net, IMAGE, 8, MANY, TrainConfig()) == Plan(memory_format="contiguous")


@pytest.mark.parametrize(("untuned", "tried"), [(2.9, ["fp32", "bf16"]), (3.1, ["fp32"])])
def test_half_precision_is_tried_with_its_fastest_algorithms(
    net: nn.Module, untuned: float, tried: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Slower with oneDNN alone, but twice as fast with others; where it is hopeless, no time is spent on it."""
    tuned = []

    def seconds(plan: Plan) -> float:
        return {"fp32": (1.0, 0.8), "bf16": (untuned, 0.4)}[plan.precision][bool(plan.convolutions)]

    def fastest_algorithms(
        net: nn.Module, x: torch.Tensor, memory_format: str, dtype: torch.dtype
    ) -> dict[str, Algorithms]:
        tuned.append({torch.float32: "fp32", torch.bfloat16: "bf16"}[dtype])
        return {"head": Algorithms("unfold")}

    use_clock(monkeypatch, seconds)
    monkeypatch.setattr(Autotuner, "_multiplies_faster_in", lambda *asked: True)
    monkeypatch.setattr(autotune_steps, "fastest_algorithms", fastest_algorithms)
    best = Plan(precision=tried[-1], convolutions={"head": Algorithms("unfold")})
    assert choose_plan(net, IMAGE, 4, MANY, TrainConfig(engine="torch")) == best
    assert tuned == tried


def test_half_precision_without_the_instructions_is_not_tried(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """A step in it can take a minute; here it would win by the clock."""

    slow = torch.bfloat16

    def measure(works: dict[Any, Callable[[], Any]], device: torch.device) -> dict[Any, float]:
        results = {name: work() for name, work in works.items()}
        return {
            name: float(value.dtype == slow) if isinstance(value, torch.Tensor) else value
            for name, value in results.items()
        }

    use_clock(monkeypatch, lambda plan: {"fp32": 1.0, "bf16": 0.1}[plan.precision])
    monkeypatch.setattr(autotune_steps, "measure", measure)
    assert choose_plan(net, IMAGE, 4, MANY, TrainConfig()).precision == "fp32"
    slow = torch.float32
    assert choose_plan(net, IMAGE, 5, MANY, TrainConfig()).precision == "bf16"


@pytest.mark.parametrize(
    ("graph", "steps", "able", "best"),
    [
        (True, 10**6, True, Plan(graph=True, compiled=True)),
        (False, 10**6, True, Plan(compiled=True)),
        (True, 1000, True, Plan(graph=True)),  # compiling would take longer than the training
        (True, 10**6, False, Plan()),
    ],
)
def test_autotune_on_gpu_tries_capture_and_compilation(
    graph: bool, steps: int, able: bool, best: Plan, net: nn.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds(plan: Plan) -> float:
        if not able and (plan.graph or plan.compiled):
            raise RuntimeError("operation not permitted when stream is capturing")
        return 0.02 / (2 if plan.graph else 1) / (1.2 if plan.compiled else 1)

    use_clock(monkeypatch, seconds)
    tuner = Autotuner(net, torch.rand(4, *IMAGE))
    tuner.device = torch.device("cuda")
    assert tuner.choose(Plan(), TrainConfig(), graph, steps) == best


@pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
@pytest.mark.parametrize(("cost", "pooling"), [(0.99, "compiled"), (1.01, "torch")])
def test_pooling_is_compiled_if_faster(cost: float, pooling: str, monkeypatch: pytest.MonkeyPatch) -> None:
    use_clock(monkeypatch, lambda plan: cost if plan.pooling == "compiled" else 1.0)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(72, 10))
    config = TrainConfig(engine="torch", precision="fp32")
    assert choose_plan(net, IMAGE, 4, MANY, config) == Plan(pooling=pooling)
    assert choose_plan(net[2:], (8, 3, 3), 4, MANY, config) == Plan()  # nothing to pool


def test_autotune_finds_the_fastest_algorithm_of_each_layer(net: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what can be chosen the last is the fastest here; a layer that keeps its weights has no gradient to choose."""
    monkeypatch.setattr(convolutions, "_fastest", lambda names, *rest: names[-1])
    net.conv2.requires_grad_(False)
    chosen = convolutions.fastest_algorithms(net.train(), torch.rand(4, 1, 12, 12), "channels_last", torch.float32)
    assert "stem.0" not in chosen  # one channel
    assert chosen["conv2.0.body.conv1"] == ("unfold", "unfold", "onednn")
    assert chosen["conv5.1.body.conv1"] == ("dense", "dense", "dense")
    assert chosen["conv5.0.shortcut.0"] == ("unfold", "unfold", "unfold")


def test_short_trainings_and_plan_off_use_the_plain_plan(net: nn.Module, tmp_path: Path) -> None:
    for images, how in ((1000, "auto"), (MANY, "off")):
        assert choose_plan(net, IMAGE, 4, images, TrainConfig(plan=how)) == Plan()
        assert choose_plan(net, IMAGE, 4, images, TrainConfig(plan=how, precision="bf16")).precision == "bf16"
        assert choose_plan(net, IMAGE, 4, images, TrainConfig(plan=how, compile=True)).compiled
    assert plain_plan(TrainConfig()) == Plan()
    assert not (tmp_path / "cache").exists()


def test_first_of_two_concurrent_plans_is_used(tmp_path: Path) -> None:
    file = tmp_path / "plans/one.json"
    plans = [Plan(threads=number + 1) for number in range(8)]
    writers = [threading.Thread(target=choose._cache_first, args=(file, plans[0]))]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for later in plans[1:]:
        choose._cache_first(file, later)
    assert read_record(file, choose.PLAN) == plans[0]
    assert [path.name for path in file.parent.iterdir()] == ["one.json"]


@pytest.mark.parametrize("memory_format", ["channels_last", "contiguous"])
@pytest.mark.parametrize("channels", [1, 3])
def test_images_get_the_strides_of_the_plan(channels: int, memory_format: str) -> None:
    chosen = Plan(memory_format=memory_format)
    for x in (torch.rand(2, channels, 4, 5), torch.rand(2, channels, 4, 5).to(memory_format=torch.channels_last)):
        laid = chosen.lay_out(x)
        assert torch.equal(laid, x)
        pixel, column = (1, channels) if memory_format == "channels_last" else (20, 1)
        assert laid.stride() == (20 * channels, pixel, 5 * column, column)
        assert channels > 1 or laid.data_ptr() == x.data_ptr(), "no copy"


def test_autotune_restores_the_thread_count() -> None:
    before = torch.get_num_threads()
    with threads(3):
        assert torch.get_num_threads() == 3
    with threads(None):
        assert torch.get_num_threads() == before
    assert torch.get_num_threads() == before


def test_use_plan_resets_every_layer(net: nn.Module) -> None:
    name = "conv3.0.body.conv1"
    use_plan(net, Plan(convolutions={name: UNFOLD}))
    assert tune(net)[name].algorithms == tuple(UNFOLD)
    use_plan(net, Plan())
    assert {layer.algorithms for layer in tune(net).values()} == {Algorithms()}


def metrics(run: str) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in Path(run, "metrics.jsonl").read_text().splitlines()]
    return [{key: row[key] for key in ("train_loss", "val_loss", "val_accuracy")} for row in rows]


def test_run_applies_its_plan_and_saves_it(cli: Cli) -> None:
    """Other algorithms, the same losses but for rounding; gone on with and repeated, the same to the bit."""
    small_plan(convolutions={"conv2": UNFOLD}, memory_format="contiguous")
    arguments = ("train", "lenet", "--seed", 3, "--lr", 0.003)
    planned = cli(*arguments, "--epochs", 2, "--plan", "plan.json")
    assert planned.code == 0, planned.err
    assert "\nplan: fp32, contiguous, tuned convolutions: 1\n" in planned.out
    plain = cli(*arguments, "--epochs", 2, "--plan", "off")
    assert "\nplan: fp32, channels-last\n" in plain.out
    one, other = metrics("runs/lenet-digits-1"), metrics("runs/lenet-digits-2")
    for a, b in zip(one, other, strict=True):
        assert a == pytest.approx(b, rel=1e-3)
    saved = read_plan(Path("runs/lenet-digits-1/plan.json"))
    assert saved == read_plan(Path("plan.json"))

    Path("plan.json").unlink()  # a run does not need the file any more
    assert cli("train", "--resume", "runs/lenet-digits-1", "--epochs", 3).code == 0
    repeated = cli(*arguments, "--epochs", 3, "--plan", "runs/lenet-digits-1/plan.json")
    assert repeated.code == 0, repeated.err
    assert read_plan(Path("runs/lenet-digits-3/plan.json")) == saved
    assert metrics("runs/lenet-digits-3")[:2] != other


def test_wrong_plan_is_refused(cli: Cli) -> None:
    small_plan(convolutions={"conv9": UNFOLD})
    one_line(cli("train", "lenet", "--plan", "plan.json"), 2, "plan.json", "belongs to another network", "conv9")
    small_plan(precision="bf16")
    one_line(cli("train", "lenet", "--plan", "plan.json", "--precision", "fp32"), 2, "is for bf16, not fp32")
    small_plan(thread=1)
    one_line(cli("train", "lenet", "--plan", "plan.json"), 2, "plan.json is not a valid plan", "thread")
    Path("plan.json").write_text("no JSON")
    one_line(cli("train", "lenet", "--plan", "plan.json"), 2, "plan.json is not a valid plan")
    one_line(cli("train", "lenet", "--plan", "nowhere.json"), 2, "nowhere.json", "auto, off or a file")
    assert not list(Path().glob("runs/*/metrics.jsonl"))


def test_plan_sets_half_precision(cli: Cli) -> None:
    small_plan(precision="bf16")
    assert "plan: bf16" in cli("train", "lenet_bn", "--epochs", 1, "--plan", "plan.json").out
    assert "plan: bf16" in cli("train", "lenet_bn", "--epochs", 1, "--precision", "bf16").out
    assert metrics("runs/lenet_bn-digits-1") == metrics("runs/lenet_bn-digits-2")
