"""From a folder of photos to an evaluated classifier on the command line."""

import json
import shutil
import tomllib
from pathlib import Path

import pytest

from helpers.cli import Cli, one_line
from helpers.corrupt_images import with_bad_ones
from helpers.images import SHAPES, draw_shape, shape_photos

QUICK = ("lenet_bn", "--data", "photos", "--image-size", "28", "--batch-size", "16", "--epochs", "12")


@pytest.fixture
def photos() -> Path:
    return shape_photos(Path("photos"), 40)


def test_photos_train_a_classifier(photos: Path, cli: Cli) -> None:
    trained = cli("train", *QUICK, "--lr", 0.02)
    assert trained.code == 0, trained.err
    assert "96 training images, 12 validation images" in trained.out
    run = Path("runs/lenet_bn-photos-1")
    split = json.loads((run / "split.json").read_text())
    assert len(split["test"]) == 12
    assert not set(split["test"]) & set(split["validation"])
    assert tomllib.loads((run / "config.toml").read_text())["data"] == str(photos.resolve())
    report = json.loads(cli("evaluate", run, "--json").out)
    assert report["images"] == 12
    assert report["accuracy"] > 0.6
    assert json.loads((run / "test.json").read_text()) == report
    answers = json.loads(cli("predict", run, *(photos / name for name in split["test"]), "--json").out)
    correct = [answer["predictions"][0]["class"] == Path(answer["image"]).parent.name for answer in answers]
    assert sum(correct) / 12 == pytest.approx(report["accuracy"]), "predictions see the pictures as the test set does"


def test_folder_with_split_folders_is_trained(photos: Path, cli: Cli) -> None:
    for index, split in enumerate(("train", "val", "test")):
        for kind in SHAPES:
            for picture in sorted((photos / kind).iterdir())[10 * index :: 30]:
                target = Path("own", split, kind, picture.name)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(picture, target)
    trained = cli("train", "lenet", "--data", "own", "--epochs", 1, "--batch-size", 3)
    assert trained.code == 0, trained.err
    assert "own: 6 training images, 3 validation images" in trained.out
    assert json.loads(cli("evaluate", "runs/lenet-own-1", "--json").out)["images"] == 3
    everything = json.loads(cli("evaluate", "runs/lenet-own-1", "--data", "photos", "--json").out)
    assert everything["images"] == 111, (
        "all of another flat folder, but for copies of what was trained on and chosen by"
    )
    assert json.loads(Path("runs/lenet-own-1/test.json").read_text())["images"] == 3, "of the run's own data alone"
    shutil.rmtree("own/test")
    one_line(cli("evaluate", "runs/lenet-own-1"), 3, "own has no test images", "test/CLASS/", "--data")


def test_resume_accepts_added_but_not_removed_images(photos: Path, cli: Cli) -> None:
    assert cli("train", *QUICK).code == 0
    draw_shape(photos / "bar/new.png", "bar", 1)
    resumed = cli("train", "--resume", "--epochs", 13)
    assert resumed.code == 0, resumed
    assert "1 image not recorded by the run: not used" in resumed.out
    trained = next(iter(json.loads(Path("runs/lenet_bn-photos-1/split.json").read_text())["train"]))
    (photos / trained).unlink()
    one_line(
        cli("train", "--resume", "--epochs", 14), 3, f"1 training or validation image missing or replaced: {trained}"
    )


def test_corrupt_images_stop_the_training_or_are_skipped(photos: Path, cli: Cli) -> None:
    (photos / "bar").rename(photos / "cat")
    (photos / "cat/00.png").touch()
    with_bad_ones(photos)
    result = cli("train", *QUICK)
    one_line(result, 3, "--on-bad-image skip", "cnnkit data check")
    assert not Path("runs").exists()
    result = cli("train", *QUICK, "--on-bad-image", "skip")
    assert result.code == 0, result.err
    log = Path("runs/lenet_bn-photos-1/log.txt").read_text()
    assert log.count("skipped: ") >= 10
    assert " skipped, " in log


def test_packed_photos_are_trained_and_evaluated(photos: Path, cli: Cli) -> None:
    packed = cli("data", "pack", photos, "shards", "--images-per-shard", 20)
    assert packed.code == 0, packed.err
    for data in ("shards", "shards/{train-00000,train-00001,test-00000}.tar"):
        trained = cli("train", "lenet_bn", "--data", data, "--image-size", 28, "--batch-size", 8)
        assert trained.code == 0, trained.err
    assert sorted(path.name for path in Path("runs").iterdir()) == ["lenet_bn-shards-1", "lenet_bn-shards-2"]
    assert json.loads(cli("evaluate", "runs/lenet_bn-shards-1", "--json").out)["images"] == 12
    assert cli("train", "--resume", "runs/lenet_bn-shards-1", "--epochs", 11).code == 0
    split = Path("runs/lenet_bn-shards-1/split.json")
    split.write_text(split.read_text().replace('"train_sha256": "', '"train_sha256": "0'))
    one_line(cli("train", "--resume", "runs/lenet_bn-shards-1", "--epochs", 12), 3, "differs from the data")
