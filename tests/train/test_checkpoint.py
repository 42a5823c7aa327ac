"""Corrupt and foreign checkpoints: restored completely, or skipped with one line for an older one."""

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from cnnkit.core.errors import CnnkitError
from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.train import TrainConfig, Trainer
from cnnkit.train.checkpoint import load_checkpoint, save_checkpoint
from helpers.cli import Cli, one_line

NAN = float("nan")
State = dict[str, Any]


def trainer(folder: Path, **settings: Any) -> Trainer:
    """Return what trains a small network on images of noise, five steps an epoch."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 2))
    images = torch.randint(0, 256, (20, 1, 4, 4), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    data = ImageSet(images.contiguous(memory_format=torch.channels_last), torch.arange(20) % 2)
    batches = Batches(data, 4, Preprocess((4, 4)), seed=0)
    given = {"epochs": 3, "batch_size": 4, "lr": 0.01, "checkpoint_steps": 2, "keep": 4} | settings
    folder.mkdir(exist_ok=True)
    return Trainer(
        net,
        batches,
        Batches(data, 20, Preprocess((4, 4))),
        TrainConfig(**given),
        checkpoint=folder / "last.ckpt",
        save_best=lambda net, record: None,
    )


def everything(run: Trainer) -> list[Any]:
    """Return all that a checkpoint could change."""
    state = run._state()
    tensors = [*state["stepper"]["net"].values(), state["losses"], state["correct"]]
    tensors += [value for row in state["stepper"]["optimizer"]["state"].values() for value in row.values()]
    average = state["stepper"]["average"]
    tensors += average["net"].values() if average else []
    plain = [state[name] for name in ("epoch", "step", "seconds", "total_seconds", "best", "best_epoch")]
    groups = [row | {"lr": 0} for row in state["stepper"]["optimizer"]["param_groups"]]  # of the last step
    return [*(tensor.tolist() for tensor in tensors), plain, groups, state["stepper"]["skipped"]]


def at(*path: Any, value: Any) -> Callable[[State], Any]:
    """Return what puts a value into a state."""

    def put(state: State) -> None:
        for key in path[:-1]:
            state = state[key]
        state[path[-1]] = value(state[path[-1]]) if callable(value) else value

    return put


NET, KEPT = ("stepper", "net"), ("stepper", "optimizer", "state")
WRONG: dict[str, tuple[Callable[[State], Any], str]] = {
    "epoch in words": (at("epoch", value="x"), "epoch must be an integer, not 'x'"),
    "epoch before the first": (at("epoch", value=-1), "epoch must be "),
    "epoch without end": (at("epoch", value=2**80), "epoch must be "),
    "epoch a tensor": (at("epoch", value=torch.tensor(1)), "epoch must be "),
    "epoch true": (at("epoch", value=True), "epoch must be "),
    "step beyond the epoch": (at("step", value=10**9), "it is at step 1,000,000,000 of an epoch, which has 5"),
    "step at the end": (at("step", value=5), "it is at step 5"),
    "step below none": (at("step", value=-1), "step must be "),
    "losses a list": (at("losses", value=[1.0] * 5), "losses is not a dense tensor"),
    "losses of another epoch": (at("losses", value=torch.zeros(6)), "losses is (6,)"),
    "a loss that is none": (at("losses", value=torch.full((5,), NAN)), "its loss at step 1 is nan"),
    "losses sparse": (at("losses", value=torch.zeros(5).to_sparse()), "sparse tensors"),
    "losses meta": (at("losses", value=torch.zeros(5, device="meta")), "meta tensors"),
    "correct in floats": (at("correct", value=torch.tensor(3.0)), "correct is"),
    "seconds below none": (at("seconds", value=-1.0), "seconds must be "),
    "seconds NaN": (at("total_seconds", value=NAN), "total_seconds must be "),
    "best of three": (at("best", value=(0.5, 0.5, 0.5)), "best"),
    "best NaN": (at("best", value=(NAN, 0.5)), "best.0 must be "),
    "best epoch to come": (at("best_epoch", value=9), "its best epoch is 9"),
    "no epoch": (lambda state: state.pop("epoch"), "epoch: Field required"),
    "no stepper": (lambda state: state.pop("stepper"), "stepper: Field required"),
    "a stepper in words": (at("stepper", value="x"), "stepper must be "),
    "something else": (at("rng", value=[1]), "rng"),
    "another setting": (at("config", "optimizer", value="sgd"), "its optimizer is 'sgd', here 'adamw'"),
    "an unknown setting": (at("config", "colour", value="red"), "its colour is 'red', here None"),
    "a setting that is a tensor": (at("config", "lr", value=torch.zeros(3)), "config.lr"),
    "conditions in words": (at("conditions", value="x"), "conditions must be "),
    "weights NaN": (at(*NET, "1.weight", value=torch.full((4, 16), NAN)), "its weights hold NaN: 1.weight"),
    "statistics Inf": (at(*NET, "2.running_var", value=torch.full((4,), torch.inf)), "Inf: 2.running_var"),
    "weights of two classes more": (
        at(*NET, "4.weight", value=torch.zeros(4, 4)),
        "4.weight is (4, 4) of torch.float32",
    ),
    "weights in half": (at(*NET, "4.weight", value=torch.zeros(2, 4).half()), "float16"),
    "weights missing": (lambda state: state["stepper"]["net"].pop("4.bias"), "it lacks 4.bias"),
    "weights besides": (at(*NET, "5.bias", value=torch.zeros(1)), "it has 5.bias"),
    "weights a number": (at(*NET, "4.bias", value=3), "4.bias is not a dense tensor"),
    "weights by number": (at(*NET, 7, value=torch.zeros(1)), "stepper.net"),
    "optimizer of another shape": (at(*KEPT, 0, "exp_avg", value=torch.zeros(3)), "exp_avg of weight 0 is (3,)"),
    "optimizer without a part": (lambda state: state["stepper"]["optimizer"]["state"][0].pop("step"), "has exp_avg"),
    "optimizer of too many": (at(*KEPT, 99, value={"step": torch.tensor(1.0)}), "for weight 99"),
    "optimizer NaN": (at(*KEPT, 0, "exp_avg", value=lambda old: old * NAN), "has a value that no step results in"),
    "optimizer before its first step": (
        at(*KEPT, 0, "step", value=torch.tensor(-5.0)),
        "has a value that no step results in",
    ),
    "optimizer in words": (at("stepper", "optimizer", value="adam"), "stepper.optimizer"),
    "other groups": (at("stepper", "optimizer", "param_groups", value=[]), "other parameter groups"),
    "groups of words": (at("stepper", "optimizer", "param_groups", value=[{"params": "x"}]), "param_groups.0.params"),
    "groups of tensors": (at("stepper", "optimizer", "param_groups", value=[{"params": torch.zeros(2)}]), "params"),
    "an average too many": (at("stepper", "average", value={"steps": 1, "net": {}}), "moving average"),
    "skipped in words": (at("stepper", "skipped", value=["x"]), "stepper.skipped"),
    "skipped to come": (at("stepper", "skipped", value=[99]), "of an epoch, which has 5"),
    "a scale in words": (at("stepper", "scaler", value={"scale": "x"}), "stepper.scaler.scale"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """The checkpoints of a run that was stopped in its second epoch, by name."""
    folder = tmp_path_factory.mktemp("trained")
    run = trainer(folder)
    for _ in range(2):
        run._train_epoch(lambda: False)
        if run.epoch == 1:
            run._finish_epoch()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder / "last.ckpt"


def rewritten(path: Path, edit: Callable[[State], Any]) -> None:
    """Change a checkpoint as somebody would who knows how its checksum is made."""
    state = load_checkpoint(path)
    state.pop("format")
    edit(state)
    try:
        save_checkpoint(path, state, keep=1)
    except (RuntimeError, NotImplementedError):  # these tensors have no checksum
        torch.save({"format": 2, "sha256": "0", **state}, path)


@pytest.mark.parametrize("name", WRONG)
def test_mismatched_checkpoint_is_skipped(tmp_path: Path, trained: dict[str, bytes], name: str) -> None:
    edit, word = WRONG[name]
    path = put(tmp_path / "run", trained)
    rewritten(path, edit)
    before = put(tmp_path / "before", {"last.ckpt": trained["last.1.ckpt"]})
    wanted = trainer(before.parent)
    assert wanted.resume().wrong == []
    run = trainer(path.parent)
    [wrong] = run.resume().wrong
    assert wrong.startswith(f"{path}: ")
    assert word in wrong
    assert "\n" not in wrong
    assert everything(run) == everything(wanted)


@pytest.mark.parametrize("name", WRONG)
def test_invalid_checkpoint_changes_nothing(tmp_path: Path, trained: dict[str, bytes], name: str) -> None:
    path = put(tmp_path / "run", {"last.ckpt": trained["last.ckpt"]})
    rewritten(path, WRONG[name][0])
    run, fresh = trainer(path.parent), trainer(tmp_path / "fresh")
    with pytest.raises(CnnkitError, match="start a new run from the best weights: --weights "):
        run.resume()
    assert everything(run) == everything(fresh)


class Evil:
    """What creates a file when it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("touched",)


FILES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "not a usable checkpoint: "),
    "noise": (lambda path: path.write_bytes(b"\xffnoise" * 99), "not a usable checkpoint: "),
    "half": (lambda path: path.write_bytes(path.read_bytes()[:999]), "not a usable checkpoint: "),
    "no checksum": (lambda path: torch.save({"format": 2, "epoch": 1}, path), "corrupt (its sha256 does not match)"),
    "a list": (lambda path: torch.save([1, 2], path), "not a checkpoint of format 2"),
    "format 3": (lambda path: torch.save({"format": 3}, path), "not a checkpoint of format 2"),
    "code": (lambda path: torch.save({"format": 2, "net": Evil()}, path), "not opened, because it could run code"),
    "a pickle": (lambda path: path.write_bytes(pickle.dumps(Evil())), "not opened, because it could run code"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read"),
    "a pipe": (lambda path: (path.unlink(), os.mkfifo(path)), "not a regular file"),
}


@pytest.mark.parametrize("name", FILES)
def test_non_checkpoint_is_refused_in_plain_words(cli: Cli, name: str) -> None:
    assert cli("train", "lenet", "--epochs", 1, "--keep", 1).code == 0
    path = Path("runs/lenet-digits-1/last.ckpt")
    FILES[name][0](path)
    result = cli("train", "--resume", "runs/lenet-digits-1")
    one_line(result, 1, f"{path}: ", FILES[name][1], "from the best weights: --weights runs/lenet-digits-1")
    for advice in ("weights_only", "torch.load", "allowlist", "add_safe_globals", "state_dict"):
        assert advice not in result.err
    assert not Path("touched").exists()


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
@pytest.mark.parametrize("ema", [None, 0.9])
def test_checkpoints_of_the_run_are_restored(
    tmp_path: Path, optimizer: str, momentum: float, ema: float | None
) -> None:
    settings = {"optimizer": optimizer, "momentum": momentum, "ema": ema, "skip_nan": 2}
    run = trainer(tmp_path, **settings)
    run.run()
    again = trainer(tmp_path, **settings)
    assert again.resume() == ([], [])
    assert everything(again) == everything(run)


@pytest.mark.parametrize(
    "scale",
    [{"scale": -1.0}, {"scale": 0.0}, {"growth_interval": 2.5}, {"_growth_tracker": 2**40}, {"backoff_factor": 0}],
)
def test_loss_scale_is_validated(tmp_path: Path, scale: dict[str, Any]) -> None:
    run = trainer(tmp_path, precision="fp16", epochs=1)
    run.run()
    assert trainer(tmp_path, precision="fp16", epochs=1).resume() == ([], [])
    for path in tmp_path.glob("*.ckpt"):
        rewritten(path, at("stepper", "scaler", value=lambda old: old | scale))
    with pytest.raises(CnnkitError, match="of its loss scale is"):
        trainer(tmp_path, precision="fp16", epochs=1).resume()
