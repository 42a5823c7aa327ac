"""Statistics of batch normalisation: measured for the saved weights by every engine."""

import copy
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import cnnkit
from cnnkit.core.device import mix_seed
from cnnkit.core.errors import CnnkitError
from cnnkit.data import Augment, Batches, ImageSet, Preprocess
from cnnkit.data.storage import InMemory, Rows
from cnnkit.experiment import Run
from cnnkit.experiment.build import build
from cnnkit.lanes import Engine
from cnnkit.ops import BatchNormalization
from cnnkit.train import Trainer, World, plan_training
from cnnkit.train.checkpoint import load_checkpoint
from cnnkit.train.mixing import mix
from helpers.cli import ROOT, Cli
from helpers.compiler import needs_compiler
from helpers.processes import run_torchrun
from helpers.training import Quiet, config, stripes

CLOTHING = Path(os.environ.get("CNNKIT_TEST_CLOTHING", ROOT.parent / "shared/data/clothing-1k"))
MEASURED = 2  # batches, of epochs as short as these
Made = Callable[[], list[nn.Module]]


def layers() -> list[nn.Module]:
    return [
        *(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4, momentum=0.01), nn.ReLU(), nn.Dropout(0.3)),
        *(nn.Flatten(), nn.Linear(144, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 2)),
    ]


def with_norms(*norms: nn.Module) -> Made:
    return lambda: [norms[0] if n == 1 else norms[1] if n == 6 else layer for n, layer in enumerate(layers())]


class Trained:
    """A run of two epochs of 13 batches, its trainer, and the weights that it kept as the best, last."""

    def __init__(self, folder: Path, made: Made = layers, images: int = 101, aside: bool = True, **settings: Any):
        torch.manual_seed(0)
        folder.mkdir(exist_ok=True)
        own = config(**{"epochs": 2} | settings)
        augment = Augment(own.augment, (8, 8)) if own.augment else None
        self.seen, self.best = Quiet(), {}
        net = nn.Sequential(*made())
        preprocess = Preprocess((8, 8), (0.3,), (0.2,))
        batches = Batches(stripes(images, 1), own.batch_size, preprocess, seed=1, augment=augment)
        self.trainer = Trainer(
            net,
            batches,
            Batches(stripes(40, 2), 16, preprocess) if aside else None,
            own,
            checkpoint=folder / "last.ckpt",
            callbacks=[self.seen],
            save_best=self.save,
            plan=plan_training(net, batches, own),
        )
        self.folder = folder

    def save(self, net: nn.Module, record: Any) -> None:
        self.best = copy.deepcopy(net.state_dict())
        self.best_epoch = record.epoch

    def run(self) -> "Trained":
        self.trainer.run()
        return self

    @property
    def net(self) -> nn.Module:
        return self.trainer.stepper.best_net


def buffers(norm: nn.Module) -> tuple[Tensor, Tensor]:
    if isinstance(norm, BatchNormalization):
        return norm.moving_mean, norm.moving_variance
    return norm.running_mean, norm.running_var


def assert_pooled(net: nn.Module, names: Sequence[str], pieces: Iterable[Tensor]) -> None:
    """The statistics are those of all values that a layer meets, in float64; each piece is normalised by itself."""
    double = copy.deepcopy(net).double().eval()
    met: dict[str, list[Tensor]] = {name: [] for name in names}

    def note(name: str, x: Tensor) -> None:
        met[name].append(x.transpose(0, 1).flatten(1))

    for name in names:
        norm = double.get_submodule(name).train()
        norm.register_forward_pre_hook(lambda _, args, name=name: note(name, args[0]))
    with torch.no_grad():
        for piece in pieces:
            double(piece.double())
    for name in names:
        norm, values = net.get_submodule(name), torch.cat(met[name], 1)
        biased = isinstance(norm, BatchNormalization)
        mean, variance = buffers(norm)
        close = {"rtol": 1e-4, "atol": 1e-5, "check_dtype": False}
        torch.testing.assert_close(mean, values.mean(1), **close)
        torch.testing.assert_close(variance, values.var(1, correction=0 if biased else 1), **close)


def measured(run: Trained, epoch: int = 2, numbers: Sequence[int] = range(MEASURED)) -> list[Tensor]:
    """What the network has seen of an epoch's batches of these numbers, as it has seen it."""
    own, pieces = run.trainer.config, []
    for number, (x, y) in enumerate(run.trainer.train.epoch(epoch)):
        if number in numbers:
            torch.manual_seed(mix_seed(own.seed, epoch, number))
            pieces += mix(own, x, y)[0].tensor_split(min(own.accumulate, len(y) // 2) or 1)
    return pieces


WAYS: dict[str, dict[str, Any]] = {
    "torch": {},
    "no validation": {"aside": False},
    "an average of weights": {"ema": 0.9},
    "parts of batches": {"accumulate": 3},
    "augmented": {"augment": ("flip", "crop:1")},
    "mixed": {"mixup": 0.4},
    "pasted": {"cutmix": 1.0, "accumulate": 2},
    "half precision": {"precision": "bf16"},
    "all of a short epoch, a smaller batch last": {"images": 11},
    "from scratch": {"made": with_norms(BatchNormalization(0.99, num_features=4), BatchNormalization(num_features=6))},
    "cumulative": {"made": with_norms(nn.BatchNorm2d(4, momentum=None), nn.BatchNorm1d(6, affine=False))},
}


@pytest.mark.parametrize("way", [*WAYS, pytest.param("lanes", marks=needs_compiler)])
def test_statistics_match_the_saved_weights(tmp_path: Path, way: str) -> None:
    run = Trained(tmp_path, **WAYS.get(way, {"engine": "lanes"})).run()
    assert_pooled(run.net, ["1", "6"], measured(run))
    run.net.load_state_dict(run.best)
    assert_pooled(run.net, ["1", "6"], measured(run, run.best_epoch))
    state = load_checkpoint(tmp_path / "last.ckpt")["stepper"]
    run.net.load_state_dict(state["average"]["net"] if state["average"] else state["net"])
    assert_pooled(run.net, ["1", "6"], measured(run))


@pytest.mark.parametrize("way", [*WAYS, pytest.param("lanes", marks=needs_compiler)])
def test_measuring_statistics_changes_nothing_else(tmp_path: Path, way: str) -> None:
    settings = WAYS.get(way, {"engine": "lanes"})
    fresh, moving = (
        Trained(tmp_path / name, **{"made": copy_of(settings)} | settings, norm_statistics=name).run()
        for name in ("fresh", "moving")
    )
    assert [r.train_loss for r in fresh.seen.epochs] == [r.train_loss for r in moving.seen.epochs]
    assert [r.train_accuracy for r in fresh.seen.epochs] == [r.train_accuracy for r in moving.seen.epochs]
    for (name, own), other in zip(fresh.net.state_dict().items(), moving.net.state_dict().values(), strict=True):
        statistics = name.endswith(("_mean", "_var", "_variance"))
        assert own.equal(other) != statistics, name
    for own, other in zip(fresh.trainer.net.modules(), moving.trainer.net.modules(), strict=True):
        assert own.training == other.training
        assert not own._forward_pre_hooks
        assert getattr(own, "momentum", 0) == getattr(other, "momentum", 0)


def copy_of(settings: dict[str, Any]) -> Made:
    """Layers made anew for each run."""
    made = settings.pop("made", layers)
    settings["made"] = lambda: copy.deepcopy(made())
    return settings["made"]


def test_only_trained_layers_with_statistics_are_measured(tmp_path: Path) -> None:
    """Frozen stages, layers without a memory, constants and layers that only training calls keep what they have."""

    class Aside(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm2d(4)

        def forward(self, x: Tensor) -> Tensor:
            return x + 0 * self.norm(x) if self.training else x

    norms = [nn.BatchNorm2d(4, track_running_stats=False), nn.BatchNorm2d(4, momentum=0.0), Aside(), nn.BatchNorm2d(4)]
    frozen = nn.Sequential(nn.Conv2d(1, 1, 1), nn.BatchNorm2d(1))
    run = Trained(tmp_path, lambda: [frozen, nn.Conv2d(1, 4, 3), *norms, *layers()[4:]], freeze=("0",)).run()
    for name in ("0.1", "3"):
        mean, variance = buffers(run.net.get_submodule(name))
        assert (mean.abs().max(), variance.mean()) == (0, 1), name
    assert run.net[2].running_mean is None
    assert run.net[4].norm.running_var.ne(1).all(), "it has moved as it does in training"
    assert_pooled(run.net, ["5", "8"], measured(run))


def test_layer_called_twice_measures_both_calls(tmp_path: Path) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm = nn.BatchNorm3d(4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.norm(input=x[:, :, None])
            return self.norm(3 * x + 2).squeeze(2)

    run = Trained(tmp_path, lambda: [nn.Conv2d(1, 4, 3), Twice(), *layers()[2:]]).run()
    first, second = [], []
    pieces = measured(run)
    double = copy.deepcopy(run.net).double().eval()
    for piece in pieces:
        x = double[0](piece.double())
        first.append(x)
        axes = (0, 2, 3)
        x = (x - x.mean(axes, keepdim=True)) / (x.var(axes, correction=0, keepdim=True) + 1e-5).sqrt()
        norm = double[1].norm
        second.append(3 * (x * norm.weight.view(-1, 1, 1) + norm.bias.view(-1, 1, 1)) + 2)
    values = torch.cat([*first, *second]).transpose(0, 1).flatten(1).detach()
    torch.testing.assert_close(run.net[1].norm.running_mean.double(), values.mean(1), rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(run.net[1].norm.running_var.double(), values.var(1), rtol=1e-4, atol=1e-5)


def test_batches_of_skipped_steps_are_not_measured(tmp_path: Path) -> None:
    run = Trained(tmp_path, skip_nan=1)
    calls = iter(range(1000))

    def poison(module: nn.Module, inputs: object, output: Tensor) -> Tensor | None:
        return output * float("nan") if module.training and next(calls) == 13 + 1 else None

    run.trainer.net[0].register_forward_hook(poison)
    run.run()
    assert run.trainer.stepper.num_skipped == 1
    assert_pooled(run.net, ["1", "6"], measured(run, numbers=(0, 2)))


def test_nan_statistics_are_never_saved(tmp_path: Path) -> None:
    run = Trained(tmp_path, aside=False)
    run.trainer.net[0].register_forward_hook(lambda module, _, y: None if module.training else y * float("inf"))
    run.trainer.net[1].register_forward_pre_hook(
        lambda module, args: None if module.training else (args[0] * float("inf"),)
    )
    with pytest.raises(CnnkitError, match=r"the weights hold NaN: 1\.running_mean, in epoch 1 after step 13"):
        run.run()
    assert run.best == {}
    assert load_checkpoint(tmp_path / "last.ckpt")["epoch"] == 1


class Counted(InMemory):
    """Images that are read ahead, and remember which."""

    in_memory = resident = False

    def __init__(self, images: Tensor):
        super().__init__(images)
        self.rows: list[int] = []

    def to(self, device: torch.device) -> "Counted":
        return self

    def read(self, rows: Rows) -> tuple[Tensor, Rows]:
        assert isinstance(rows, Tensor)
        self.rows += rows.tolist()
        return super().read(rows)


def test_only_the_measured_images_are_read_again(tmp_path: Path) -> None:
    run, data = Trained(tmp_path, epochs=1), stripes(101, 1)
    images = Counted(data.images)
    run.trainer.train = Batches(ImageSet(images, data.labels), 8, Preprocess((8, 8)), seed=1)
    run.run()
    assert images.rows[:101] == images.order(1, 1, 1).tolist()
    assert images.rows[101:] == images.rows[: 8 * MEASURED]


@pytest.mark.parametrize(
    ("images", "batch", "expected"),
    [(800, 64, 2), (8, 8, 1), (54_000, 64, 16), (6_400, 64, 5), (3_200, 64, 2), (54_000, 1024, 1), (10**6, 256, 4)],
)
def test_measured_batch_count_is_limited(images: int, batch: int, expected: int) -> None:
    from cnnkit.train.norms import batches_to_measure

    data = ImageSet(torch.zeros(1, 1, 2, 2, dtype=torch.uint8).expand(images, 1, 2, 2), torch.zeros(images))
    assert batches_to_measure(Batches(data, batch, Preprocess((2, 2)))) == expected


@needs_compiler
@pytest.mark.parametrize("threads", [1, 2])
def test_lanes_measure_the_statistics_of_torch(threads: int) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(*layers()).eval()
    before = copy.deepcopy(net.state_dict())
    engine = Engine(net, (1, 8, 8), threads=threads)
    for images in (1 + MEASURED, 16, 70):
        x = torch.randn(images, 1, 8, 8)
        found = engine.measure(x)
        assert [count for count, _, _ in found.values()] == [36 * images, images]
        other = copy.deepcopy(net)
        for (_, mean, variance), name in zip(found.values(), ("1", "6"), strict=True):
            running = buffers(other.get_submodule(name))
            for own, value in zip(running, (mean, variance), strict=True):
                own.copy_(value)
        for norm in (other[1], other[6]):  # torch's own, unbiased
            norm.running_var *= (n := images * (36 if norm is other[1] else 1)) / (n - 1)
        assert_pooled(other, ["1", "6"], [x])
    assert all(value.equal(before[name]) for name, value in net.state_dict().items())


@pytest.mark.parametrize(
    ("flags", "synced"),
    [
        ((), False),
        (("--sync-bn", "--accumulate", 2), True),
        (("--model-kwargs.norm", "from_scratch", "--ema", 0.9, "--validation", 0), False),
    ],
    ids=["shares", "synchronised", "from scratch"],
)
def test_processes_measure_their_parts_of_batches(flags: tuple[object, ...], synced: bool) -> None:
    done = run_torchrun("train", "lenet_bn", "--epochs", 1, "--batch-size", 90, *flags)
    assert done.returncode == 0, done.stderr
    run = Run(Path("runs/lenet_bn-digits-1"))
    shares = [
        [x for _, (x, _) in zip(range(MEASURED), build(run.config, World(rank, 2)).training.epoch(1), strict=False)]
        for rank in (0, 1)
    ]
    parts = run.config.accumulate
    pieces = [[part for x in share for part in x.tensor_split(parts)] for share in shares]
    net = run.model.net.cpu()
    names = [
        name for name, m in net.named_modules() if isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d | BatchNormalization)
    ]
    assert len(names) == 4
    both = [torch.cat(pair) for pair in zip(*pieces, strict=True)] if synced else [*pieces[0], *pieces[1]]
    assert_pooled(net, names, both)


TOGETHER = """
import os
from pathlib import Path

import cnnkit
from torch import nn

for kind in ("fresh", "moving"):
    norm = nn.BatchNorm2d(8, momentum=None)
    net = nn.Sequential(nn.Conv2d(1, 8, 3), norm, nn.ReLU(), nn.Flatten(), nn.Linear(288, 10))
    run = cnnkit.fit(net, epochs=1, sync_bn=True, norm_statistics=kind, output=kind, progress=False)
    found = int(norm.num_batches_tracked), float(norm.running_mean.abs().max()), run.history["val_loss"][0]
    Path(kind + os.environ["RANK"]).write_text(" ".join(map(str, found)))  # one pipe would mix what two print
"""


def test_cumulative_average_over_processes_is_updated() -> None:
    Path("together.py").write_text(TOGETHER)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "together.py"]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name in ("fresh0", "fresh1", "moving0", "moving1"):
        steps, mean, loss = Path(name).read_text().split()
        assert (int(steps), float(mean) > 0) == (21, True)
        assert float(loss) < 1


def test_run_of_earlier_version_keeps_its_moving_averages(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text('net = "lenet"\n')
    assert Run(tmp_path).config.norm_statistics == "moving"
    config.write_text('net = "lenet"\nnorm_statistics = "fresh"\n')
    assert Run(tmp_path).config.norm_statistics == "fresh"


def test_chapter_recipe_uses_keras_moving_averages(cli: Cli) -> None:
    from cnnkit.experiment.config import resolve

    assert resolve({"net": "lenet", "recipe": "chapter"}).norm_statistics == "moving"
    assert resolve({"net": "lenet"}).norm_statistics == "fresh"


def test_slow_keras_averages_are_harmless_in_a_short_run(cli: Cli) -> None:
    """ResNet-18 with Keras' decay, in 60 steps on the digits: with moving averages validation is noise."""
    rows = {}
    for kind in ("fresh", "moving"):
        asked = ("train", "resnet18", "--image-size", 16, "--model-kwargs.width", 8, "--epochs", 3)
        assert cli(*asked, "--norm-statistics", kind, "--output", kind).code == 0
        rows[kind] = [
            json.loads(line) for line in Path(kind, "resnet18-digits-1/metrics.jsonl").read_text().splitlines()
        ]
    assert rows["fresh"][-1]["val_accuracy"] > 0.8
    assert rows["moving"][-1]["val_accuracy"] < rows["fresh"][-1]["val_accuracy"] - 0.1
    assert max(row["val_loss"] for row in rows["fresh"]) < max(row["val_loss"] for row in rows["moving"]) / 2


@pytest.mark.skipif(not CLOTHING.is_dir(), reason="the photographs of clothes are not here (CNNKIT_TEST_CLOTHING)")
def test_validation_of_photos_is_not_noisy() -> None:
    run = cnnkit.fit("resnet18", CLOTHING, image_size=32, epochs=6, model_kwargs={"width": 16}, progress=False)
    assert max(run.history["val_loss"]) < 5
    assert run.history["val_accuracy"][-1] > 0.3
