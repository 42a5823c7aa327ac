"""Splits by file content: what happens when a folder changes after a run."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image, ImageEnhance

import cnnkit
from cnnkit.core.errors import DataError, UsageError
from cnnkit.data import load_dataset
from cnnkit.data.split import split_by_content
from cnnkit.train.checkpoint import load_checkpoint
from helpers.cli import Cli, one_line
from helpers.images import noise_photos, save_noise
from helpers.training import read_split

FLAGS = ["--epochs", 2, "--batch-size", 8, "--plan", "off", "--device", "cpu"]


def parts(root: Path | str, **options: Any) -> dict[str, set[str]]:
    """Return what each part of a data set holds."""
    data = load_dataset(root, progress=False, **options)
    return {"train": set(data.train.digests), "test": set(data.test.digests if data.test else ())}


def report(cli: Cli, *arguments: Any) -> dict[str, Any]:
    result = cli("evaluate", *arguments, "--json")
    assert result.code == 0, result
    found: dict[str, Any] = json.loads(result.out)
    return found


@pytest.fixture
def run(cli: Cli) -> dict[str, Any]:
    """A run on 60 photos; return what it is worth on its test images."""
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *FLAGS).code == 0
    return report(cli, "runs/lenet-photos-1")


def figures(found: dict[str, Any]) -> tuple[int, float, list[list[int]]]:
    return found["images"], found["loss"], found["confusion"]


# --- the drawing


def test_test_fraction_is_exact() -> None:
    for number, aside in {1: 0, 2: 0, 3: 1, 4: 1, 14: 1, 16: 2, 25: 2, 26: 3, 100: 10}.items():
        labels = torch.zeros(number, dtype=torch.int64)
        kept, held = split_by_content(labels, [f"{n}" for n in range(number)], torch.arange(number), 0.1, "test")
        assert (len(held), len(kept)) == (aside, number - aside), number
        assert sorted([*kept.tolist(), *held.tolist()]) == list(range(number))
    with pytest.raises(UsageError, match="the fraction to hold out"):
        split_by_content(labels, ["0"] * number, torch.arange(number), 1.0, "test")


def test_groups_stay_together_within_their_class() -> None:
    labels = torch.tensor([0] * 20 + [1] * 20)
    digests = [f"{n}" for n in range(40)]
    groups = torch.arange(40)
    groups[0:6] = 0
    groups[19:21] = 19  # of two classes
    _, held = split_by_content(labels, digests, groups, 0.3, "test")
    rows = set(held.tolist())
    assert len(rows & set(range(20))) == len(rows & set(range(20, 40))) == 6
    assert rows >= set(range(6)) or rows.isdisjoint(range(6))
    assert rows.isdisjoint({19, 20})
    _, held = split_by_content(labels, digests, torch.zeros(40), 0.3, "test")
    assert not len(held), "one group of two classes: nothing can be measured without having been seen"


def test_excluded_images_are_not_held_out() -> None:
    labels, digests = torch.zeros(20, dtype=torch.int64), [f"{n}" for n in range(20)]
    barred = set(digests[:15])
    _, held = split_by_content(labels, digests, torch.arange(20), 0.2, "test", barred)
    assert len(held) == 4
    assert set(held.tolist()) <= set(range(15, 20))


# --- the folder changes


def test_split_is_independent_of_names_and_order() -> None:
    root = noise_photos()
    before = parts(root)
    for number, path in enumerate(sorted(root.rglob("*.png"), reverse=True)):
        path.rename(path.with_name(f"renamed-{number}.png"))
    assert parts(root) == before
    assert not set.intersection(*before.values())


def test_added_image_moves_only_few_images() -> None:
    root = noise_photos(count=50)
    before = parts(root)["test"]
    for number in range(10):
        save_noise(root / "cat" / f"new-{number}.png")
        now = parts(root)["test"]
        assert len(before - now) <= 1
        before = now
    assert len(before) == 11


def test_training_seed_does_not_change_the_split(cli: Cli) -> None:
    noise_photos()
    flags = ["--epochs", 1, "--batch-size", 8]
    for seeds in ([], ["--seed", 5], ["--split-seed", 1]):
        assert cli("train", "lenet", "--data", "photos", *flags, *seeds).code == 0
    first, seeded, other = (read_split(f"runs/lenet-photos-{number}") for number in (1, 2, 3))
    assert first == seeded
    assert first["test"] == other["test"]
    assert set(first["validation"]) != set(other["validation"])
    assert len(first["validation"]) == len(other["validation"])


def test_duplicates_stay_in_one_part() -> None:
    root = noise_photos(count=20)
    for number in range(20):
        own = root / "cat" / f"{number:02}.png"
        shutil.copy(own, root / "cat" / f"copy-of-{number:02}.png")
        with Image.open(own) as found:
            ImageEnhance.Brightness(found).enhance(1.01).save(root / "cat" / f"brighter-{number:02}.png")
    data = load_dataset(root, progress=False)
    stems = [
        {
            name.rpartition("-")[2].removesuffix(".png").removeprefix("cat/")
            for name in part.names
            if name.startswith("cat")
        }
        for part in (data.train, data.test)
    ]
    assert len(stems[1]) == 2
    assert not stems[0] & stems[1]


def test_missing_images_are_named_and_skipped(run: dict[str, Any], cli: Cli) -> None:
    split = read_split()
    gone = next(iter(split["test"]))
    Path("photos", gone).unlink()
    for name in list(split["train"])[:10]:
        Path("photos", name).unlink()
    for number in range(20):
        save_noise(f"photos/cat/new-{number}.png")
    found = cli("evaluate", "runs/lenet-photos-1", "--json")
    assert f"skipping 1 missing test image of the run: {gone}" in found.err
    assert json.loads(found.out)["images"] == run["images"] - 1


def test_first_file_of_each_class_may_be_removed(run: dict[str, Any], cli: Cli) -> None:
    split = read_split()
    for name in ("cat", "dog"):
        first = min(path for path in split["train"] if path.startswith(name))
        Path("photos", first).unlink()
    assert figures(report(cli, "runs/lenet-photos-1")) == figures(run)


def test_renamed_and_moved_files_are_found(run: dict[str, Any], cli: Cli) -> None:
    for number, name in enumerate(read_split()["test"]):
        Path("photos", name).rename(Path("photos", name).with_name(f"renamed-{number}.png"))
    assert figures(report(cli, "runs/lenet-photos-1")) == figures(run)
    shutil.move("photos", "elsewhere")
    one_line(cli("evaluate", "runs/lenet-photos-1"), 3, "no such folder; if the data were moved", "--data PATH")
    assert figures(report(cli, "runs/lenet-photos-1", "--data", "elsewhere")) == figures(run)
    result = cli("train", "--resume", "runs/lenet-photos-1", "--epochs", 3, "--data", "elsewhere")
    assert result.code == 0, result


def test_other_image_sizes_or_channels_change_no_metric(run: dict[str, Any], cli: Cli) -> None:
    Image.new("L", (400, 30), 7).save("photos/cat/wide.png")
    assert figures(report(cli, "runs/lenet-photos-1")) == figures(run)


def test_quarantine_changes_no_metric(run: dict[str, Any], cli: Cli) -> None:
    Path("photos/cat/cut.png").write_bytes(Path("photos/cat/00.png").read_bytes()[:40])
    assert cli("data", "check", "photos", "--quarantine", "away").code == 0
    assert figures(report(cli, "runs/lenet-photos-1")) == figures(run)


def test_evaluation_on_other_data_excludes_training_images(run: dict[str, Any], cli: Cli) -> None:
    split = read_split()
    for number, name in enumerate(
        [*list(split["train"])[:3], *list(split["validation"])[:2], *list(split["test"])[:4]]
    ):
        shutil.copy(Path("photos", name), save_noise(f"other/{name.split('/')[0]}/{number}.png"))
    for number in range(5):
        save_noise(f"other/dog/new-{number}.png")
        save_noise(f"other/cat/new-{number}.png")
    found = cli("evaluate", "runs/lenet-photos-1", "--data", "other", "--json")
    assert "skipping 5 of 19 images, which the network was trained or validated on" in found.err
    assert json.loads(found.out)["images"] == 14
    assert cnnkit.evaluate("runs/lenet-photos-1", "other", progress=False).num_images == 14
    shutil.copytree("runs/lenet-photos-1/best", "bundle")
    assert report(cli, "bundle", "--data", "other")["images"] == 14
    assert report(cli, "bundle", "--data", "photos")["images"] == run["images"]
    for path in Path("other").rglob("*.png"):
        if path.name not in ("0.png", "1.png", "2.png"):
            path.unlink()
    one_line(cli("evaluate", "runs/lenet-photos-1", "--data", "other"), 3, "trained on all images of other (3)")


def test_copy_without_a_test_image_is_reported(run: dict[str, Any], cli: Cli) -> None:
    shutil.copytree("photos", "copy")
    gone = next(iter(read_split()["test"]))
    Path("copy", gone).unlink()
    found = cli("evaluate", "runs/lenet-photos-1", "--data", "copy", "--json")
    assert f"skipping 1 missing test image of the run: {gone}" in found.err
    assert json.loads(found.out)["images"] == run["images"] - 1


def test_bundle_alone_finds_its_test_images(run: dict[str, Any], cli: Cli) -> None:
    shutil.copytree("runs/lenet-photos-1/best", "bundle")
    save_noise("photos/cat/new.png")
    assert figures(report(cli, "bundle")) == figures(run)


# --- resuming


def weights(run: str) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_checkpoint(Path(run) / "last.ckpt")["stepper"]["net"]
    return found


def test_resumed_run_keeps_its_split(cli: Cli) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *FLAGS).code == 0
    shutil.copytree("runs/lenet-photos-1", "runs/again")
    assert cli("train", "--resume", "runs/lenet-photos-1", "--epochs", 4).code == 0
    for number, name in enumerate(read_split()["train"]):
        if number % 2:
            Path("photos", name).rename(Path("photos", name).with_name(f"renamed-{number}.png"))
    save_noise("photos/cat/new.png")
    shutil.move("photos", "moved")
    result = cli("train", "--resume", "runs/again", "--epochs", 4, "--data", "moved")
    assert result.code == 0, result
    assert "1 image not recorded by the run: not used" in result.out + result.err
    one, other = weights("runs/lenet-photos-1"), weights("runs/again")
    assert all(one[name].equal(other[name]) for name in one)
    assert read_split("runs/again") == read_split()
    test_image = next(iter(read_split()["test"]))
    Path("moved", test_image).unlink()
    result = cli("train", "--resume", "runs/again", "--epochs", 5)
    assert result.code == 0, result
    assert f"skipping 1 missing test image of the run: {test_image}" in result.out + result.err
    gone = next(
        path for path in sorted(Path("moved").rglob("*.png")) if str(path.relative_to("moved")) in read_split()["train"]
    )
    gone.unlink()
    result = cli("train", "--resume", "runs/again", "--epochs", 6)
    one_line(result, 3, f"1 training or validation image missing or replaced: {gone.relative_to('moved')}", "--weights")


def test_split_of_earlier_version_matches_by_names(cli: Cli) -> None:
    noise_photos()
    assert cli("train", "lenet", "--data", "photos", *FLAGS).code == 0
    now = report(cli, "runs/lenet-photos-1")
    split = read_split()
    old = {"seed": 0, "validation": list(split["validation"]), "test": list(split["test"])}
    Path("runs/lenet-photos-1/split.json").write_text(json.dumps(old))
    Path("runs/lenet-photos-1/best/split.json").unlink()
    save_noise("photos/cat/new.png")
    for place in ("runs/lenet-photos-1", "runs/lenet-photos-1/best"):
        found = cli("evaluate", place, "--json")
        assert figures(json.loads(found.out)) == figures(now)
        assert "the run was made by a version that saved no digests" in found.err
    Path("photos/cat/new.png").unlink()
    assert cli("train", "--resume", "runs/lenet-photos-1", "--epochs", 3).code == 0
    assert read_split() == old
    shutil.copytree("photos", "copy")
    save_noise("copy/cat/new.png")
    assert figures(report(cli, "runs/lenet-photos-1", "--data", "copy"))[0] == now["images"]
    noise_photos("other", count=5)
    for path in Path("other").rglob("*.png"):
        path.rename(path.with_name(f"other-{path.name}"))
    found = cli("evaluate", "runs/lenet-photos-1", "--data", "other", "--json")
    assert json.loads(found.out)["images"] == 10
    assert "it may have been trained on these images" in found.err
    for place in ("split.json", "best/split.json"):
        Path("runs/lenet-photos-1", place).unlink(missing_ok=True)
    found = cli("evaluate", "runs/lenet-photos-1/best", "--data", "copy", "--json")
    assert "it may have been trained on these images" in found.err


def test_row_splits_of_earlier_runs_are_kept(cli: Cli) -> None:
    assert cli("train", "lenet", "--epochs", 1, "--split-seed", 3).code == 0
    split = read_split("runs/lenet-digits-1")
    assert split["split_seed"] == 3
    assert all(isinstance(row, int) for row in split["validation"])
    assert cli("train", "--resume", "runs/lenet-digits-1", "--epochs", 2).code == 0
    split["seed"] = split.pop("split_seed")
    Path("runs/lenet-digits-1/split.json").write_text(json.dumps(split))
    assert cli("train", "--resume", "runs/lenet-digits-1", "--epochs", 3).code == 0


def test_test_folder_used_for_training_is_not_evaluated(cli: Cli) -> None:
    for name in ("cat", "dog"):
        for number in range(8):
            save_noise(f"photos/train/{name}/{number}.png")
            save_noise(f"photos/test/{name}/{number}.png")
        shutil.copy(f"photos/train/{name}/0.png", f"photos/test/{name}/copy.png")
    result = cli("train", "lenet", "--data", "photos", *FLAGS)
    assert result.code == 0
    assert "skipping 2 test images used for training: test/cat/copy.png, test/dog/copy.png" in result.out + result.err
    assert report(cli, "runs/lenet-photos-1")["images"] == 16
    with pytest.raises(DataError, match="trained on all"):
        cnnkit.evaluate("runs/lenet-photos-1", "photos/train", progress=False)


# --- a split that is not the network's


@pytest.mark.parametrize("place", ["runs/lenet-photos-1/best/split.json", "runs/lenet-photos-1/split.json"])
def test_changed_split_file_is_refused(place: str, run: dict[str, Any], cli: Cli) -> None:
    if "best" not in place:
        Path("runs/lenet-photos-1/best/split.json").unlink()
    split = json.loads(Path(place).read_text())
    name, digest = next(iter(split["train"].items()))
    Path(place).write_text(json.dumps(split | {"test": split["test"] | {name: digest}}))
    one_line(cli("evaluate", "runs/lenet-photos-1"), 1, "split.json", "train and test have images in common")
    del split["train"][name]
    del split["labels"]["train"][0]
    Path(place).write_text(json.dumps(split | {"test": split["test"] | {name: digest}}))
    one_line(cli("evaluate", "runs/lenet-photos-1"), 1, "split.json is not the one that the network was trained with")


def test_unsaved_metrics_are_shown(run: dict[str, Any], cli: Cli) -> None:
    Path("runs/lenet-photos-1/test.json").unlink()
    Path("runs/lenet-photos-1/test.json").mkdir()
    result = cli("evaluate", "runs/lenet-photos-1", "--json")
    assert (result.code, json.loads(result.out)["images"]) == (0, run["images"])
