"""The trainer: it learns, repeats and resumes bit for bit, and keeps the last good state."""

import json
import signal
import time
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnkit.core.errors import CnnkitError, Interrupted, UsageError
from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.deploy import load
from cnnkit.experiment import RunFolder
from cnnkit.experiment.recipes import RECIPES
from cnnkit.nets import create
from cnnkit.train import Trainer, initialise
from cnnkit.train.checkpoint import load_checkpoint, save_checkpoint
from cnnkit.train.schedule import learning_rate
from helpers.cli import Cli, one_line, start
from helpers.processes import wait_for_lines
from helpers.training import Quiet, config, metrics, stripes, trainer


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
@pytest.mark.parametrize("schedule", ["constant", "one-cycle"])
def test_trainer_learns_stripes(tmp_path: Path, optimizer: str, schedule: str) -> None:
    seen, saved = Quiet(), []
    trainer(tmp_path, config(optimizer=optimizer, schedule=schedule, momentum=0.5), seen, saved).run()
    assert [record.epoch for record in seen.epochs] == [1, 2, 3]
    assert seen.epochs[-1].val_accuracy == 1.0
    assert seen.epochs[-1].train_loss < 0.5 * seen.epochs[0].train_loss
    assert saved == [record.epoch for record in seen.epochs if record.best]


def test_epoch_metrics_are_exact(tmp_path: Path) -> None:
    """With a learning rate near nothing, the epoch's loss is that of the whole set, its last small batch weighted."""
    seen = Quiet()
    run = trainer(tmp_path, config(epochs=1, lr=1e-12, weight_decay=0, optimizer="sgd", schedule="constant"), seen)
    run.net[1], run.net[4] = nn.Identity(), nn.Identity()
    run.run()
    data = stripes(101, 1)
    logits = run.net(data.images / 255)
    assert seen.epochs[0].train_loss == pytest.approx(F.cross_entropy(logits, data.labels).item(), rel=1e-5)
    assert seen.epochs[0].train_accuracy == pytest.approx((logits.argmax(1) == data.labels).float().mean().item())


def test_last_epoch_is_best_without_validation(tmp_path: Path) -> None:
    saved: list[int] = []
    run = trainer(tmp_path, config(), saved=saved)
    run.validation = None
    run.run()
    assert saved == [1, 2, 3]


def weights(run: Trainer) -> list[torch.Tensor]:
    return [*run.net.state_dict().values(), *(v for s in run.optimizer.state.values() for v in s.values())]


def test_same_seed_is_bit_exact(tmp_path: Path) -> None:
    runs = []
    for number, seed in enumerate((5, 5, 6)):
        runs.append(trainer(tmp_path / str(number), config(seed=seed)))
        runs[-1].run()
    assert all(a.equal(b) for a, b in zip(weights(runs[0]), weights(runs[1]), strict=True))
    assert not all(a.equal(b) for a, b in zip(weights(runs[0]), weights(runs[2]), strict=True))


@pytest.mark.parametrize("stop_at", [1, 12, 13, 14, 20, 39])
def test_stopped_run_resumes_bit_exact(tmp_path: Path, stop_at: int) -> None:
    whole_seen, seen = Quiet(), Quiet()
    whole_saved, saved = [], []
    whole = trainer(tmp_path / "whole", config(), whole_seen, whole_saved)
    whole.run()

    first = trainer(tmp_path / "stopped", config(), seen, saved)
    noisy = first.net[4]
    forward = noisy.forward

    def interrupting(x: torch.Tensor) -> torch.Tensor:
        if noisy.training and len(noisy.seen) + 1 == stop_at:
            signal.raise_signal(signal.SIGINT)
        return forward(x)

    noisy.forward = interrupting
    with pytest.raises(Interrupted, match="saved in") as caught:
        first.run()
    assert caught.value.exit_code == 130
    second = trainer(tmp_path / "stopped", config(), seen, saved)
    second.resume()
    assert second.sums.seconds == load_checkpoint(tmp_path / "stopped/last.ckpt")["seconds"]
    assert second.best == first.best
    assert (second.best is None) == (stop_at < 13), "set at the end of the first epoch"
    second.run()
    assert all(a.equal(b) for a, b in zip(weights(whole), weights(second), strict=True))
    measured = [
        (r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.lr, r.best) for r in whole_seen.epochs
    ]
    again = [(r.epoch, r.train_loss, r.train_accuracy, r.val_loss, r.val_accuracy, r.lr, r.best) for r in seen.epochs]
    assert measured == again
    assert saved == whole_saved
    assert noisy.seen + second.net[4].seen == whole.net[4].seen


def test_sigterm_saves_and_handlers_are_restored(tmp_path: Path) -> None:
    run = trainer(tmp_path, config())
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    run.net.register_forward_hook(lambda *_: signal.raise_signal(signal.SIGTERM))
    with pytest.raises(Interrupted, match="epoch 1 at step 1"):
        run.run()
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert load_checkpoint(tmp_path / "last.ckpt")["step"] == 1


@pytest.mark.parametrize(("poisoned", "where"), [(3, "epoch 1 at step 3"), (18, "epoch 2 at step 5")])
def test_nan_loss_stops_and_keeps_the_last_good_state(tmp_path: Path, poisoned: int, where: str) -> None:
    saved: list[int] = []
    run = trainer(tmp_path, config(), saved=saved)
    steps = 0

    def poison(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
        nonlocal steps
        steps += module.training
        return output * float("nan") if steps >= poisoned and module.training else output

    run.net.register_forward_hook(poison)
    with pytest.raises(CnnkitError, match=f"the loss is nan in {where}; .* try an lr below 0.01"):
        run.run()
    state = load_checkpoint(tmp_path / "last.ckpt")
    assert (state["epoch"], state["step"]) == ((1, 0) if poisoned == 3 else (2, 0))
    assert all(tensor.isfinite().all() for tensor in state["stepper"]["net"].values())
    assert saved == ([] if poisoned == 3 else [1])


def test_nan_weights_are_never_saved(tmp_path: Path) -> None:
    """The last step of the epoch breaks a weight; its loss came before and was fine, and no validation looks."""
    saved: list[int] = []
    run = trainer(tmp_path, config(epochs=1), saved=saved)
    run.validation = None
    steps = iter(range(1, 100))

    def break_the_last(*_: object) -> None:
        if next(steps) == len(run.train):
            run.net[1].running_var[0] = float("inf")

    run.optimizer.register_step_post_hook(break_the_last)
    with pytest.raises(CnnkitError, match=r"the weights hold Inf: 1\.running_var, in epoch 1 after step 13"):
        run.run()
    state = load_checkpoint(tmp_path / "last.ckpt")
    assert (state["epoch"], state["step"]) == (1, 0)
    assert saved == []


def test_schedule_and_settings_reach_the_optimizer(tmp_path: Path) -> None:
    kinds = {
        "sgd": torch.optim.SGD,
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
    }
    for name, kind in kinds.items():
        run = trainer(tmp_path / name, config(optimizer=name, momentum=0.3, weight_decay=0.02, epochs=2))
        used: list[float] = []
        run.optimizer.register_step_pre_hook(lambda o, *_, used=used: used.append(o.param_groups[0]["lr"]))
        run.run()
        assert type(run.optimizer) is kind
        assert {group["weight_decay"] for group in run.optimizer.param_groups} == {0.02, 0.0}
        assert run.optimizer.defaults.get("momentum", 0.3) == 0.3
        assert used == [learning_rate(run.config, step, 13) for step in range(26)]


def test_training_without_images_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, config())
    run.train = Batches(ImageSet(torch.zeros(0, 1, 8, 8, dtype=torch.uint8), torch.zeros(0)), 8, Preprocess((8, 8)))
    with pytest.raises(UsageError, match="no training images left: lower --validation"):
        run.run()


def test_corrupt_checkpoints_are_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    run = trainer(tmp_path, config(epochs=1, keep=1))
    run.run()
    good = path.read_bytes()
    weight = run.net[5].weight.detach().numpy().tobytes()
    flipped = bytearray(good)
    flipped[good.index(weight) + 5] ^= 1  # a bit of a weight, which torch reads without a word
    for content in (b"", b"nonsense", good[: len(good) // 2], good[:-100], bytes(flipped)):
        path.write_bytes(content)
        with pytest.raises(
            CnnkitError,
            match=r"last\.ckpt: .*corrupt.*; start a new run from the best weights: --weights ",
        ):
            trainer(tmp_path, config()).resume()


def test_newest_valid_checkpoint_is_used(tmp_path: Path) -> None:
    """Of the last three, the newest are damaged or gone: the run goes on from the one before, to the same end."""
    whole = trainer(tmp_path / "whole", config(epochs=5, schedule="constant"))
    whole.run()
    run = trainer(tmp_path / "run", config(epochs=4, schedule="constant", keep=3))
    run.run()
    last, first, second = (tmp_path / "run" / name for name in ("last.ckpt", "last.1.ckpt", "last.2.ckpt"))
    assert [load_checkpoint(path)["epoch"] for path in (last, first, second)] == [5, 4, 3]
    assert sorted(path.name for path in last.parent.iterdir()) == ["last.1.ckpt", "last.2.ckpt", "last.ckpt"]
    last.write_bytes(last.read_bytes()[:-1000])
    first.unlink()
    again = trainer(tmp_path / "run", config(epochs=5, schedule="constant"))
    [problem] = again.resume().wrong
    assert "last.ckpt: not a usable checkpoint: truncated or corrupt" in problem
    assert again.epoch == 3
    again.run()
    assert all(a.equal(b) for a, b in zip(weights(whole), weights(again), strict=True))
    last.unlink()
    first.rename(last.with_name("last.new.ckpt"))  # a crash between two renames
    assert trainer(tmp_path / "run", config(schedule="constant")).resume().wrong == []


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    run = trainer(tmp_path, config())
    torch.save({"weights": 1}, run.checkpoint)
    with pytest.raises(CnnkitError, match="not a checkpoint of format 2"):
        run.resume()
    save_checkpoint(run.checkpoint, {"net": {}})
    with pytest.raises(CnnkitError, match="does not fit this run"):
        run.resume()


def test_checkpoint_runs_no_code(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return Path.touch, (Path(tmp_path / "touched"),)

    torch.save({"format": 1, "net": Evil()}, tmp_path / "last.ckpt")
    with pytest.raises(CnnkitError, match="because it could run code"):
        load_checkpoint(tmp_path / "last.ckpt")
    assert not (tmp_path / "touched").exists()


def test_full_disk_leaves_the_old_checkpoint(cli: Cli) -> None:
    """The kernel refuses to let the file grow: the run ends with one line, the files from before are whole."""
    import resource

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))

    assert cli("train", "lenet", "--epochs", 1).code == 0
    [run] = Path("runs").iterdir()
    before = {path: path.read_bytes() for path in (run / "last.ckpt", *sorted((run / "best").iterdir()))}
    text = (run / "config.toml").read_text()
    (run / "config.toml").write_text(text.replace("epochs = 1", "epochs = 2"))
    full = start("train", "--resume", run, preexec_fn=limit)
    _, err = full.communicate(timeout=120)
    assert full.returncode == 1
    assert err.count("\n") == 1, err
    assert "cannot write" in err
    assert "the earlier one is kept" in err
    assert {path: path.read_bytes() for path in before} == before
    assert [path.name for path in run.glob(".*")] == [".lock"], "no temporary file is left behind"


def rows(run: Path) -> list[tuple[float, ...]]:
    names = ("epoch", "train_loss", "val_loss", "val_accuracy", "best")
    return [tuple(row[name] for name in names) for row in metrics(run)]


def test_killed_and_interrupted_runs_resume_identically(cli: Cli) -> None:
    arguments = ("train", "lenet", "--epochs", 12)
    assert cli(*arguments, "--output", "whole").code == 0
    whole, run = Path("whole/lenet-digits-1"), Path("runs/lenet-digits-1")
    with start(*arguments) as killed:
        wait_for_lines(run / "metrics.jsonl", 3)
        killed.kill()
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 99}\n[1]\n{"epo')  # what a crash may leave
    with start("train", "--resume", run) as stopped:
        wait_for_lines(run / "metrics.jsonl", 8)
        stopped.send_signal(signal.SIGINT)
        _, err = stopped.communicate(timeout=60)
    assert stopped.returncode == 130
    assert err.count("\n") == 1
    assert "resume with: cnnkit train --resume runs/lenet-digits-1" in err
    assert cli("train", "--resume", run).code == 0
    assert rows(run) == rows(whole)
    assert (run / "best/model.safetensors").read_bytes() == (whole / "best/model.safetensors").read_bytes()


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux' /proc to see what a process has loaded")
def test_ctrl_c_during_torch_import_exits_cleanly(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    with start("evaluate", "runs/lenet-digits-1") as process:
        maps = Path(f"/proc/{process.pid}/maps")
        while process.poll() is None and "libtorch" not in maps.read_text():
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (130, "cnnkit: interrupted\n")


def test_run_folder_contains_no_password(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setattr(sys, "argv", ["cnnkit", "sweep", "--storage", "postgresql://me:s3cret@host/db", "a:b@c"])
    run = RunFolder(tmp_path)
    run.write_environment({}, None)
    assert run.read_json("environment.json")["command"][3:] == ["postgresql://me:***@host/db", "a:b@c"]


def test_resume_removes_leftovers_of_killed_process(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    run = Path("runs/lenet-digits-1")
    (run / ".last.new.ckpt.123.tmp").write_bytes(b"half")
    (run / ".best.123.new").mkdir()
    (run / ".best.123.new/model.safetensors").write_bytes(b"half")
    kept = {path.name for path in run.iterdir() if "123" not in path.name}
    assert cli("train", "--resume", run, "--epochs", 2).code == 0
    assert {path.name for path in run.iterdir()} == kept | {"last.1.ckpt"}


def test_run_is_resumed_by_one_process_with_its_saved_settings(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    run = RunFolder.open(Path("runs/lenet-digits-1"))
    with run.locked():
        one_line(cli("train", "--resume", run.path), 1, "another process is training runs/lenet-digits-1")
    text = run.config_file.read_text()
    for old, new, words in [
        ("seed = 0", "seed = 1", "its seed is 0, here 1"),
        ('"adamw"', '"sgd"', "its optimizer is 'adamw', here 'sgd'"),
        ("batch_size = 64", "batch_size = 32", "its batch_size is 64, here 32"),
        ('"lenet"', '"lenet_bn"', "does not fit this run"),
    ]:
        run.config_file.write_text(text.replace(old, new))
        result = cli("train", "--resume", run.path)
        one_line(result, 1, words)


def test_chapter_recipe_matches_the_chapter() -> None:
    row = RECIPES["chapter"]
    assert (row["optimizer"], row["lr"], row["batch_size"], row["epochs"], row["init"]) == ("sgd", 0.9, 32, 5, "glorot")
    assert row["schedule"] == "constant"
    assert row["weight_decay"] == 0


def test_glorot_init_equals_keras() -> None:
    net = create("lenet")
    initialise(net, "glorot")
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            area = layer.weight[0, 0].numel() if layer.weight.ndim == 4 else 1
            limit = (6 / (area * (layer.weight.shape[0] + layer.weight.shape[1]))) ** 0.5
            assert 0.9 * limit < layer.weight.abs().max() <= limit
            assert not layer.bias.any()


def test_he_init_keeps_the_signal_of_deep_relu_networks() -> None:
    torch.manual_seed(0)
    net = create("vgg16", image_size=32).eval()
    x = torch.randn(2, 1, 32, 32)
    signals = {}
    for init in ("torch", "he"):
        initialise(net, init)
        signals[init] = net[:5](x).std()
    assert signals["torch"] < 0.02 < 0.2 < signals["he"] < 5
    assert not any(layer.bias.any() for layer in net.modules() if isinstance(layer, nn.Conv2d | nn.Linear))


def test_init_setting_reaches_the_network(cli: Cli) -> None:
    for init, least in {"glorot": 0, "torch": 0.01}.items():
        flags = ("--init", init, "--lr", "1e-12", "--optimizer", "sgd", "--weight-decay", 0, "--epochs", 1)
        assert cli("train", "lenet", *flags, "--output", init).code == 0
        net = load(Path(init, "lenet-digits-1")).net
        biases = torch.cat([p.flatten() for name, p in net.named_parameters() if name.endswith("bias")])
        assert least <= biases.abs().max() <= (1e-9 if init == "glorot" else 1)
    with pytest.raises(UsageError, match="unknown init 'xavier'"):
        initialise(create("lenet"), "xavier")


def test_default_recipe_beats_chance_on_the_digits(cli: Cli) -> None:
    assert cli("train", "lenet").code == 0
    result = cli("evaluate", "runs/lenet-digits-1", "--json")
    assert json.loads(result.out)["accuracy"] > 0.8


@pytest.mark.parametrize("settings", [{"engine": "lanes"}, {"plan": "plan.json"}])
def test_trainer_without_its_plan_refuses_settings_that_need_one(tmp_path: Path, settings: dict[str, str]) -> None:
    with pytest.raises(UsageError, match="plan_training"):
        trainer(tmp_path / "run", config(**settings))
