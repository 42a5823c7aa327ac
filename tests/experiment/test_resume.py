"""Resumed runs: from their folder alone, exactly or with the reason why not, never on changed images unasked."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import cnnkit
from cnnkit.core.errors import DataError
from cnnkit.core.processor import FORCED
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.train.checkpoint import load_checkpoint, save_checkpoint
from helpers.cli import Cli, one_line
from helpers.datasets import write_set
from helpers.images import noise_photos, save_noise
from helpers.training import read_split

RUN = Path("runs/lenet-digits-1")
PHOTOS = Path("runs/lenet-photos-1")
STEADY = ("--schedule", "constant")
SHORT = ["--epochs", 2, "--batch-size", 8, "--plan", "off", "--device", "cpu", *STEADY]
EXACT = "(same images, settings, versions, processor and threads)"


def command(*arguments: object, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "cnnkit", "train", *map(str, arguments)],
        env=os.environ | {"OMP_NUM_THREADS": "1"} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def strip(run: Path) -> None:
    """Leave what a run has that is killed before its first checkpoint."""
    for path in run.iterdir():
        if path.name not in ("config.toml", "environment.json", "split.json", "start.json", "data.csv"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()


def best(run: Path) -> bytes:
    return (run / "best/model.safetensors").read_bytes()


# --- a run that has only begun


def test_run_folder_can_be_resumed_once_visible(cli: Cli) -> None:
    """A real process is killed when its folder appears, which is before its first checkpoint."""
    settings = ("lenet_bn", "--epochs", 2, "--augment", "flip,crop:1", "--label-smoothing", 0.1)
    assert cli("train", *settings, "--output", "whole").code == 0
    with command(*settings) as victim:
        while not RUN.exists() and victim.poll() is None:
            time.sleep(0.0005)
        victim.send_signal(signal.SIGKILL)
    run = RUN.with_name("lenet_bn-digits-1") if not RUN.exists() else RUN
    assert {"config.toml", "environment.json", "split.json"} <= {path.name for path in run.iterdir()}
    result = cli("train", "--resume")
    assert result.code == 0, result
    assert best(run) == best(Path("whole/lenet_bn-digits-1"))


@pytest.mark.parametrize(
    "settings",
    [
        ("lenet_bn", "--batch-size", "auto", "--ema", 0.9, "--init", "glorot"),
        ("lenet_bn", "--engine", "lanes"),
        ("lenet", "--weights", "old/lenet-digits-1", "--freeze", "conv1"),
        ("resnet18", "--model-kwargs.width", 4, "--image-size", 16, "--mixup", 0.2),
    ],
    ids=["automatic", "lanes", "weights", "mixup"],
)
def test_run_without_checkpoint_restarts_bit_exact(settings: tuple[object, ...], cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1, "--output", "old").code == 0
    assert cli("train", *settings, "--epochs", 2).code == 0
    [run] = Path("runs").iterdir()
    whole = best(run), (run / "metrics.jsonl").read_text().count("\n")
    strip(run)
    state = cli("runs", "--json")
    assert json.loads(state.out)[0]["state"] == "stopped"
    result = cli("train", "--resume", run)
    assert result.code == 0, result
    assert f"resumed exactly at epoch 1, step 0 {EXACT}" in result.out
    assert (best(run), (run / "metrics.jsonl").read_text().count("\n")) == whole
    assert not list(Path("runs").glob(".*"))


def test_module_without_checkpoint_compares_initial_weights(capsys: pytest.CaptureFixture[str]) -> None:
    torch.manual_seed(1)
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    start = {name: value.clone() for name, value in net.state_dict().items()}
    run = cnnkit.fit(net, epochs=1, device="cpu")
    whole = best(run.path)
    for weights, words in ((start, EXACT), (net.state_dict(), "not exactly: different initial weights")):
        strip(run.path)
        again = nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
        again.load_state_dict(weights)
        capsys.readouterr()
        cnnkit.fit(again, resume=run.path)
        assert words in capsys.readouterr().out
        assert (best(run.path) == whole) == (words == EXACT)


def test_full_disk_at_first_checkpoint_is_one_line(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 2, "--output", "whole").code == 0
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (40_000, 40_000)); "
        "sys.argv = ['cnnkit', 'train', 'lenet', '--epochs', '2']; runpy.run_module('cnnkit', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1, done
    assert done.stderr.count("\n") == 1
    assert "cannot write runs/lenet-digits-1/last" in done.stderr
    result = cli("train", "--resume")
    assert result.code == 0, result
    assert best(RUN) == best(Path("whole/lenet-digits-1"))


def test_full_disk_leaves_no_run_folder(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    limited = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100)); "
        "sys.argv = ['cnnkit', 'train', 'lenet']; runpy.run_module('cnnkit', run_name='__main__')"
    )
    done = subprocess.run([sys.executable, "-c", limited], capture_output=True, text=True)
    assert done.returncode == 1, done
    assert "cannot create a run folder in runs: File too large; free some space" in done.stderr
    assert list(Path("runs").iterdir()) == []


def test_draft_of_killed_process_frees_its_number() -> None:
    old, fresh = Path("runs/.run-1.new"), Path("runs/.run-2.new")
    for draft in (old, fresh):
        draft.mkdir(parents=True)
    os.utime(old, (0, 0))
    for name in ("run-1", "run-3"):
        with RunFolder.drafted(Path("runs"), "run") as (draft, path):
            assert path.name == name
            assert not path.exists()
            draft.write_json("x.json", {})
        assert (path / "x.json").is_file()
    with pytest.raises(KeyError), RunFolder.drafted(Path("runs"), "run"):
        raise KeyError
    assert sorted(path.name for path in Path("runs").iterdir()) == [".run-2.new", "run-1", "run-3"]


def test_drafts_and_corrupt_folders_are_not_runs(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1, *STEADY).code == 0
    shutil.copytree(RUN, "runs/.lenet-digits-2.new")
    corrupt = Path("runs/other-1")
    corrupt.mkdir()
    (corrupt / "environment.json").write_text("{")
    (RUN / "environment.json").write_text(json.dumps({"job": "mine"}))
    assert [run.path for run in RunFolder.of_job(Path("runs"), "mine")] == [RUN]
    assert "lenet-digits-1/best" in cli("train", "--resume", "--epochs", 2).out


def test_stretched_schedule_is_reported_as_inexact(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    result = cli("train", "--resume", "--epochs", 2)
    assert "not exactly: epochs 2 instead of 1" in result.out, result


@pytest.mark.parametrize("kind", ["link", "pipe"])
def test_log_that_is_no_file_is_reported(kind: str, cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    (RUN / "log.txt").unlink()
    Path("victim").write_text("mine")
    (RUN / "log.txt").symlink_to(Path("victim").absolute()) if kind == "link" else os.mkfifo(RUN / "log.txt")
    one_line(cli("train", "--resume", RUN, "--epochs", 2), 1, "cannot write runs/lenet-digits-1/log.txt: ")
    assert Path("victim").read_text() == "mine"


def test_lost_checkpoints_do_not_restart_the_run(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    for checkpoint in RUN.glob("*.ckpt"):
        checkpoint.unlink()
    before = best(RUN)
    one_line(cli("train", "--resume", RUN, "--epochs", 2), 1, f"{RUN} has no checkpoint to resume from", "--weights")
    assert best(RUN) == before


# --- exactly, or not


def test_settings_that_affect_results_are_compared(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    assert cli("train", "lenet", "--epochs", 1, *STEADY).code == 0
    epochs = iter(range(2, 20))

    def resumed(*flags: object) -> str:
        result = cli("train", "--resume", RUN, "--epochs", next(epochs), *flags)
        assert result.code == 0, result
        [line] = [line for line in result.out.splitlines() if line.startswith("resumed")]
        assert line in (RUN / "log.txt").read_text()
        return line

    assert resumed() == f"resumed exactly at epoch 2, step 0 {EXACT}"
    torch.set_num_threads(2)
    assert resumed() == "resumed at epoch 3, step 0, not exactly: threads 2 instead of 1"
    assert EXACT in resumed()
    assert resumed("--accumulate", 2).endswith("not exactly: accumulate 2 instead of 1")
    monkeypatch.setenv(FORCED[0], "default")
    assert resumed().endswith("not exactly: different instructions or caches of the processor")
    plan = json.loads((RUN / "plan.json").read_text())
    (RUN / "plan.json").write_text(json.dumps(plan | {"memory_format": "contiguous"}))
    assert resumed().endswith("not exactly: a different plan")
    for name, value in {"torch": "2.0", "cnnkit": "0.0.1", "Pillow": "9", "processes": 2, "device": "cuda"}.items():
        state = load_checkpoint(RUN / "last.ckpt")
        content = {key: value for key, value in state.items() if key != "format"}
        save_checkpoint(RUN / "last.ckpt", content | {"conditions": state["conditions"] | {name: value}})
        assert f"not exactly: {name} {state['conditions'][name]} instead of {value}" in resumed()
    content.pop("conditions")
    save_checkpoint(RUN / "last.ckpt", content)
    assert "not exactly: the run is from an earlier version" in resumed()


# --- the same images, or not


def delete(path: Path) -> None:
    path.unlink()


def replace(path: Path) -> None:
    Image.new("RGB", (12, 12), "red").save(path)


def other_class(path: Path) -> None:
    path.rename(path.parents[1] / ({"cat": "dog", "dog": "cat"}[path.parent.name]) / f"moved-{path.name}")


CHANGES = {
    "deleted": (delete, "1 training or validation image missing or replaced", -1),
    "replaced": (replace, "1 training or validation image missing or replaced", 0),
    "of another class": (other_class, "1 training or validation image moved to another class", 0),
}


@pytest.mark.parametrize("part", ["train", "validation"])
@pytest.mark.parametrize(("change", "words", "more"), CHANGES.values(), ids=CHANGES)
def test_changed_images_are_refused_unless_allowed(
    change: Callable[[Path], None], words: str, more: int, part: str, cli: Cli
) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *SHORT).code == 0
    before, split = best(PHOTOS), read_split()
    name = next(iter(split[part]))
    change(Path("photos", name))
    refused = cli("train", "--resume", PHOTOS, "--epochs", 3)
    one_line(refused, 3, f"{words}: ", Path(name).name, "--allow-changed-data")
    assert (best(PHOTOS), read_split()) == (before, split)
    result = cli("train", "--resume", PHOTOS, "--epochs", 3, "--allow-changed-data")
    assert result.code == 0, result
    assert "resumed at epoch 3, step 0, not exactly: the images have changed" in result.out
    assert words in result.out
    now = read_split()
    assert len(now[part]) == len(split[part]) + more
    assert now["test"] == split["test"]
    before_name = {"train": "trained_before", "validation": "chosen_before"}[part]
    assert split[part][name] in now[before_name]
    again = cli("train", "--resume", PHOTOS, "--epochs", 4)
    assert EXACT in again.out, again


def test_several_changes_are_reported_together(cli: Cli) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *SHORT).code == 0
    gone, moved = list(read_split()["train"])[:2]
    delete(Path("photos", gone))
    other_class(Path("photos", moved))
    refused = cli("train", "--resume", PHOTOS, "--epochs", 3)
    one_line(
        refused,
        3,
        f"1 training or validation image missing or replaced: {gone}",
        f"1 training or validation image moved to another class: dog/moved-{Path(moved).name}",
    )


def test_changed_images_are_remembered_until_trained_on(cli: Cli) -> None:
    """The process is killed when it has written down the new images, and before it has saved what they made of it."""
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *SHORT).code == 0
    Path("photos", next(iter(read_split()["train"]))).unlink()
    before = (PHOTOS / "last.ckpt").read_bytes(), (PHOTOS / "last.1.ckpt").read_bytes()
    assert cli("train", "--resume", PHOTOS, "--epochs", 3, "--allow-changed-data").code == 0
    for name, content in zip(("last.ckpt", "last.1.ckpt"), before, strict=True):
        (PHOTOS / name).write_bytes(content)
    assert "not exactly: the images have changed" in cli("train", "--resume", PHOTOS, "--epochs", 3).out


def test_changed_validation_arrays_are_detected(capsys: pytest.CaptureFixture[str]) -> None:
    noise_photos()
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (20, 12, 12, 3), np.uint8), np.array(["cat", "dog"] * 10)
    given: dict[str, Any] = {"device": "cpu", "schedule": "constant", "batch_size": 8}
    run = cnnkit.fit("lenet", "photos", validation_data=(images, labels), epochs=1, **given)
    with pytest.raises(DataError, match="data passed from Python differ from those that the run was split from"):
        cnnkit.fit(resume=run.path, validation_data=(images[::-1], labels), epochs=2)
    capsys.readouterr()
    cnnkit.fit(resume=run.path, validation_data=(images[::-1], labels), epochs=2, allow_changed_data=True)
    assert "not exactly: the images have changed" in capsys.readouterr().out
    cnnkit.fit(resume=run.path, validation_data=(images[::-1], labels), epochs=3)
    assert EXACT in capsys.readouterr().out


def test_current_epoch_restarts_on_changed_images(cli: Cli) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *SHORT, "--max-time", 1e-9).code == 0
    assert load_checkpoint(PHOTOS / "last.ckpt")["step"] > 0
    for name in list(read_split()["train"])[:9]:
        Path("photos", name).unlink()
    result = cli("train", "--resume", PHOTOS, "--max-time", 5, "--allow-changed-data")
    assert "resumed at epoch 1, step 0, not exactly: the images have changed" in result.out, result
    assert (PHOTOS / "metrics.jsonl").read_text().count("\n") == 2


def test_test_image_never_replaces_a_training_image(cli: Cli) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *SHORT).code == 0
    split = read_split()
    trained, tested = (next(iter(split[part])) for part in ("train", "test"))
    Path("photos", tested).replace(Path("photos", trained))
    assert cli("train", "--resume", PHOTOS, "--epochs", 3, "--allow-changed-data").code == 0
    assert set(read_split()["train"].values()).isdisjoint(split["test"].values())


def test_swapped_file_names_change_nothing(cli: Cli) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *SHORT).code == 0
    cats = [name for name in read_split()["train"] if name.startswith("cat/")]
    one, other = (Path("photos", name) for name in cats[:2])
    contents = one.read_bytes(), other.read_bytes()
    other.write_bytes(contents[0])
    one.write_bytes(contents[1])
    result = cli("train", "--resume", PHOTOS, "--epochs", 3)
    assert (result.code, EXACT in result.out) == (0, True), result


@pytest.mark.parametrize("what", ["train_images", "train_labels"])
def test_idx_files_are_compared_by_content(what: str, cli: Cli) -> None:
    train = {
        "train_images": np.random.default_rng(0).integers(0, 256, (60, 28, 28), np.uint8),
        "train_labels": np.arange(60, dtype=np.uint8) % 10,
    }
    test = {name.replace("train", "t10k"): values[:20] for name, values in train.items()}
    folder = write_set(Path("idx"), **train, **test)
    assert cli("train", "lenet", "--data", "mnist", "--data-dir", folder, "--epochs", 1, *STEADY).code == 0
    run = Path("runs/lenet-mnist-1")
    assert EXACT in cli("train", "--resume", run, "--epochs", 2).out
    write_set(folder, **test, **(train | {what: train[what][::-1]}))
    one_line(cli("train", "--resume", run, "--epochs", 3), 3, "differs from the data that the run was split from")
    result = cli("train", "--resume", run, "--epochs", 3, "--allow-changed-data")
    assert "not exactly: the images have changed" in result.out, result
    assert EXACT in cli("train", "--resume", run, "--epochs", 4).out


def test_changed_arrays_are_refused_unless_allowed(capsys: pytest.CaptureFixture[str]) -> None:
    draw = np.random.default_rng(0)
    images, labels = draw.integers(0, 256, (60, 8, 8), np.uint8), np.arange(60) % 3
    given: dict[str, Any] = {"epochs": 1, "device": "cpu", "schedule": "constant"}
    run = cnnkit.fit("lenet", (images, labels), **given)
    with pytest.raises(DataError, match="allow-changed-data"):
        cnnkit.fit("lenet", (images[::-1], labels), resume=run.path, epochs=2)
    cnnkit.fit("lenet", (images[::-1], labels), resume=run.path, epochs=2, allow_changed_data=True)
    assert "not exactly: the images have changed" in capsys.readouterr().out


def test_allow_changes_requires_resume(cli: Cli) -> None:
    save_noise("photos/cat/1.png")
    one_line(cli("train", "lenet", "--allow-changed-data"), 2, "--allow-changed-data needs --resume")
    assert not Path("runs").exists()
