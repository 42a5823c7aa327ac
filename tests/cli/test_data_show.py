"""The command data show: sheets of images and their augmentations."""

import math
from pathlib import Path

import pytest
import torch.nn.functional as F
from torch import Tensor

from cnnkit.data import load_dataset, read_image, write_image
from cnnkit.data.augment.batch import AUGMENT_HELP
from helpers.augment import pictures, read_like_a_photo
from helpers.cli import Cli, one_line


def tile(sheet: Tensor, size: int, top: int, left: int) -> Tensor:
    """Cut out the tile whose frame begins here and make each of its squares one of `size` x `size` pixels again."""
    side = size * math.ceil(64 / size)
    return sheet[:, top + 1 : top + 1 + side, left + 1 : left + 1 + side][:, :: side // size, :: side // size]


def test_show_writes_an_image_of_each_class_and_its_augmentations(cli: Cli) -> None:
    result = cli("data", "show", "digits", "--augment", "flip", "crop:1", "--count", 6, "--seed", 3)
    assert result.code == 0, result
    assert result.out == (
        "digits-show.png: 10 of 10 classes, 8 x 8, for each class one image and 6 augmented versions (flip, crop:1)\n"
    )
    sheet, train = read_image(Path("digits-show.png")), load_dataset("digits").train
    assert sheet.shape == (1, 16 + 10 * (56 + 66), 16 + 66 + 16 + 6 * 70 - 4 + 16)
    moved = 0
    for label in range(10):
        top = 56 + label * (56 + 66)
        original = tile(sheet, 8, top, 16)
        own = (train.images == original).flatten(1).all(1) & (train.labels == label)
        assert own.any(), label
        for column in range(6):
            shown = tile(sheet, 8, top, 16 + 66 + 16 + 70 * column)[0]
            padded = F.pad(original[0], (1, 1, 1, 1))
            crops = [
                side[y : y + 8, x : x + 8] for side in (padded, padded.flip(1)) for y in range(3) for x in range(3)
            ]
            assert any(shown.equal(crop) for crop in crops), (label, column)
            moved += not shown.equal(original[0])
    assert moved > 40


def test_show_without_augmentation_shows_training_images(cli: Cli) -> None:
    assert cli("data", "show", "digits", "--count", 2, "--output", "two.png").out.startswith(
        "two.png: 10 of 10 classes"
    )
    sheet, train = read_image(Path("two.png")), load_dataset("digits").train
    for label in range(10):
        both = [tile(sheet, 8, 56 + label * (56 + 66), 16 + 70 * column) for column in range(2)]
        assert not both[0].equal(both[1])
        for shown in both:
            assert ((train.images == shown).flatten(1).all(1) & (train.labels == label)).any()


def test_show_is_the_same_for_the_same_seed(cli: Cli) -> None:
    def bytes_of(*arguments: object) -> bytes:
        assert cli("data", "show", "digits", "--count", 3, "--output", "x.png", *arguments).code == 0
        return Path("x.png").read_bytes()

    one = bytes_of("--augment", "flip", "jitter:0.5", "trivial")
    assert one == bytes_of("--augment", "flip,jitter:0.5,trivial")
    assert one != bytes_of("--augment", "flip,jitter:0.5,trivial", "--seed", 1)


def test_show_reads_a_folder_of_photos(cli: Cli, tmp_path: Path) -> None:
    for index, name in enumerate(["cat", "dog", "owl"]):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for number in range(4):
            write_image(tmp_path / "zoo" / name / f"{number}.png", read_like_a_photo(40 + 9 * index, 60 - number)[0])
    (tmp_path / "zoo" / "cat" / "bad.png").write_bytes(b"no picture")
    result = cli("data", "show", "zoo", "--augment", "rrc", "rand", "--image-size", 96, "--count", 20)
    assert result.code == 0, result
    assert "3 of 3 classes, 96 x 96, for each class one image and 20 augmented versions (rrc, rand)" in result.out
    assert result.out.endswith("; 1 unreadable: cnnkit data check zoo\n")
    sheet = read_image(tmp_path / "zoo-show.png")
    assert sheet.shape == (3, 16 + 3 * (56 + 68), 16 + 68 + 16 + 20 * 72 - 4 + 16)  # shrunk, to fill a row


def test_show_of_shards_equals_show_of_their_folder(cli: Cli, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "zoo" / "train" / name).mkdir(parents=True)
        for number in range(3):
            write_image(tmp_path / "zoo" / "train" / name / f"{number}.png", pictures(1, 1, seed=number)[0])
    assert cli("data", "pack", "zoo", "shards", "--images-per-shard", 4).code == 0
    result = cli("data", "show", "shards", "--count", 3)
    assert result.out == "shards-show.png: 2 of 2 classes, 11 x 14, for each class up to 3 images\n"
    assert cli("data", "show", "zoo", "--count", 3).code == 0
    assert read_image(Path("shards-show.png")).shape == read_image(Path("zoo-show.png")).shape


def test_show_samples_many_classes(cli: Cli, tmp_path: Path) -> None:
    for name in range(45):
        (tmp_path / "many" / f"{name:02}").mkdir(parents=True)
        for number in range(2):
            write_image(tmp_path / "many" / f"{name:02}" / f"{number}.png", pictures(1, 1, seed=name)[0])
    assert cli("data", "show", "many", "--count", 1).out.startswith("many-show.png: 15 of 45 classes, 11 x 14, ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["digits", "--augment", "flop"], 2, ["unknown augmentation 'flop'", "did you mean 'flip'"]),
        (["digits", "--augment", "crop", "rrc:7"], 2, ["'rrc:7'", "smallest must be a number from 0.01 to 1"]),
        (["digits", "--count", 0], 2, ["count must be an int >= 1, not 0"]),
        (["digits", "--image-size", 0], 2, ["image_size must be an int >= 1, not 0"]),
        (["digitz"], 2, ["did you mean 'digits'"]),
        (["./nowhere"], 3, ["nowhere"]),
        (["digits", "--output", "x.abc"], 2, ["x.abc", "use .png"]),
    ],
)
def test_show_reports_errors(cli: Cli, arguments: list[object], code: int, words: list[str]) -> None:
    one_line(cli("data", "show", *arguments), code, *words)


def test_show_help_lists_all_augmentations(cli: Cli) -> None:
    help_text = " ".join(cli("data", "show", "--help").out.replace("│", " ").split())
    for usage in (
        line.partition(":")[0] if "[" not in line else line[: line.rindex("]") + 1] for line in AUGMENT_HELP.split("; ")
    ):
        assert usage in help_text
