"""The check of a data set: findings on files, layout, copies, classes and statistics."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data.check.run import Diagnosis
from helpers.check import folders, found, look, noise, save, spoil
from helpers.images import smooth_image


def details(diagnosis: Diagnosis, kind: str) -> list[str]:
    return [finding.detail for finding in diagnosis.findings if finding.kind == kind]


def test_valid_folder_has_no_findings() -> None:
    diagnosis = look(folders())
    assert diagnosis.findings == ()
    assert not diagnosis.harms
    assert diagnosis.files == 12
    assert diagnosis.statistics["images"] == 12
    assert diagnosis.statistics["classes"] == {"cat": {"train": 3, "test": 3}, "dog": {"train": 3, "test": 3}}


def test_bad_files_are_named_with_their_problems() -> None:
    root = folders()
    spoil(root)
    save(root / "train/cat/bomb.png", Image.new("1", (8000, 7000)))
    diagnosis = look(root)
    assert found(root) == {
        "empty-file": [("train/cat/empty.jpg",)],
        "no-image": [("train/cat/text.png",)],
        "truncated": [("train/dog/cut.jpg",)],
        "unreadable": [("train/dog/dangling.jpg",), ("train/dog/pipe.png",)],
        "corrupt": [("test/dog/damaged.png",)],
        "too-large": [("train/cat/bomb.png",)],
    }
    assert diagnosis.harms
    assert all(finding.harms and finding.culprits == finding.paths for finding in diagnosis.findings)
    assert details(diagnosis, "unreadable") == ["no such file", "cannot be read (not a regular file)"]
    assert diagnosis.statistics["images"] == 12


def test_wrong_suffix_is_only_a_note() -> None:
    root = folders()
    save(root / "train/cat/x.jpg", noise(), format="PNG")
    save(root / "train/cat/y.jpeg", smooth_image(0), format="MPO")
    diagnosis = look(root)
    assert found(root) == {"wrong-suffix": [("train/cat/x.jpg",)]}
    assert details(diagnosis, "wrong-suffix") == ["holds a PNG"]
    assert not diagnosis.harms


def test_files_unseen_by_training_are_found() -> None:
    root = folders()
    save(root / "train/stray.png")
    save(root / "train/cat/x.xyz", noise(), format="JPEG")
    (root / "train/cat/notes.txt").write_text("hello")
    (root / "train/cat/.hidden.png").write_text("hello")
    save(root / ".trash/cat/y.png")
    assert found(root) == {
        "unseen": [("train/cat/.hidden.png",), ("train/cat/x.xyz",), ("train/stray.png",)],
        "other-file": [("train/cat/notes.txt",)],
        "leftover": [(".trash/cat/y.png",)],
    }


def test_duplicates_within_and_across_splits_are_found() -> None:
    root = folders(splits=("train", "val", "test"))
    one, two, three, four = (noise() for _ in range(4))
    save(root / "train/cat/one.png", one)
    save(root / "train/cat/one too.bmp", one)
    save(root / "train/cat/two.png", two)
    save(root / "train/dog/two.png", two)
    save(root / "train/cat/three.png", three)
    save(root / "test/cat/three.png", three)
    save(root / "val/cat/four.png", four)
    save(root / "test/dog/four.tif", four)
    diagnosis = look(root)
    assert found(root) == {
        "duplicate": [("train/cat/one too.bmp", "train/cat/one.png")],
        "label-conflict": [("train/cat/two.png", "train/dog/two.png"), ("val/cat/four.png", "test/dog/four.tif")],
        "leak": [("train/cat/three.png", "test/cat/three.png"), ("val/cat/four.png", "test/dog/four.tif")],
    }
    assert details(diagnosis, "leak") == ["identical", "same pixels, in classes cat and dog"]
    assert details(diagnosis, "duplicate") == ["same pixels"]
    assert [finding.culprits for finding in diagnosis.findings if finding.kind == "leak"] == [
        ("train/cat/three.png",),
        ("val/cat/four.png",),
    ]


def test_rotated_copy_equals_the_upright_image() -> None:
    pixels = noise()
    exif = Image.Exif()
    exif[0x0112] = 6
    save("data/a/upright.png", np.rot90(pixels, -1).copy())
    save("data/a/turned.png", pixels, exif=exif)
    save("data/a/more.png")
    for number in range(3):
        save(f"data/b/{number}.png")
    diagnosis = look("data")
    assert found("data") == {"duplicate": [("a/turned.png", "a/upright.png")]}
    assert diagnosis.statistics["turned"] == 1
    assert diagnosis.statistics["height"]["max"] == 30


def test_equal_pixels_of_another_shape_are_no_duplicate() -> None:
    pixels = noise()
    save("data/a/1.png", pixels)
    save("data/b/2.png", pixels.reshape(30, 20, 3))
    assert found("data").keys() == {"few"}


def test_statistics_describe_the_images() -> None:
    save("data/a/1.png", np.zeros((10, 20), np.uint8))
    save("data/a/2.jpg", noise(30, 30))
    save("data/b/3.png", noise(50, 25))
    seen = look("data").statistics
    assert seen["width"] == {"min": 20, "median": 25, "max": 30}
    assert seen["aspect"] == {"min": 0.5, "median": 1, "max": 2}
    assert (seen["modes"], seen["formats"]) == ({"RGB": 2, "L": 1}, {"PNG": 2, "JPEG": 1})
    assert seen["bytes"]["sum"] == sum(path.stat().st_size for path in Path("data").rglob("*.*"))


def test_imbalance_is_a_warning() -> None:
    for number in range(32):
        save(f"data/{'rare' if number < 3 else 'common'}/{number}.png")
    assert found("data") == {}
    save("data/common/one more.png")
    diagnosis = look("data")
    assert found("data") == {"imbalance": [()]}
    assert details(diagnosis, "imbalance") == ["common has 30 images, rare 3: 10 times as many"]
    assert not diagnosis.harms


def test_findings_do_not_depend_on_the_threads() -> None:
    root = folders(count=20)
    spoil(root)
    assert look(root, workers=1) == look(root, workers=5)
    with pytest.raises(UsageError, match="workers must be an int >= 1, not 0"):
        look(root, workers=0)


def test_classes_without_images_are_found() -> None:
    root = folders()
    (root / "train/emu").mkdir()
    save(root / "test/fox/1.png")
    for path in (root / "test/dog").iterdir():
        path.write_bytes(b"")
    diagnosis = look(root)
    remedy = "add some, remove the folder, or skip such classes with --min-images 1"
    assert details(diagnosis, "class") == [
        f"data: class 'emu' has no images: {remedy}",
        f"data: class 'fox' has images in test, but none in train: {remedy}",
    ]
    assert details(diagnosis, "few") == ["dog has none in test"]
    assert diagnosis.harms


def test_broken_layout_does_not_hide_other_findings() -> None:
    root = folders(splits=("train", "val", "valid"))
    spoil(folders(root="data"))
    save(root / "val/cat/leak.png", Image.open(root / "train/cat/0.png"))
    save(root / "more/cat/0.png")
    kinds = found(root)
    assert kinds.keys() >= {"layout", "empty-file", "truncated", "corrupt", "leak", "unseen"}
    assert kinds["leak"] == [("train/cat/0.png", "val/cat/leak.png")]
    assert kinds["unseen"] == [("more/cat/0.png",)]
    assert "both val/ and valid/" in details(look(root), "layout")[0]


def test_images_without_class_are_examined() -> None:
    save("loose/1.png")
    Path("loose/2.png").touch()
    diagnosis = look("loose")
    assert found("loose").keys() == {"layout", "empty-file"}
    assert diagnosis.statistics["images"] == 1


def test_empty_folder_is_a_layout_finding() -> None:
    Path("empty").mkdir()
    diagnosis = look("empty")
    assert found("empty") == {"layout": [()]}
    assert (diagnosis.files, diagnosis.statistics["images"]) == (0, 0)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        look("nowhere")


def test_near_duplicates_are_found() -> None:
    for number in range(40):
        whole = smooth_image(number)
        save(f"data/train/{number % 2}/{number}.png", whole)
        if number < 10:
            save(f"data/train/{number % 2}/{number} again.jpg", whole, quality=60)
        elif number < 20:
            save(f"data/test/{number % 2}/{number} small.jpg", whole.resize((100, 75)), quality=80)
        elif number < 24:
            save(f"data/test/{number % 2}/{number}.webp", whole, quality=60)
    kinds = found("data")
    assert kinds.keys() == {"near-duplicate", "near-leak"}
    assert sorted(kinds["near-duplicate"]) == [
        (f"train/{number % 2}/{number} again.jpg", f"train/{number % 2}/{number}.png") for number in (0, 2, 4, 6, 8)
    ] + [(f"train/{number % 2}/{number} again.jpg", f"train/{number % 2}/{number}.png") for number in (1, 3, 5, 7, 9)]
    assert len(kinds["near-leak"]) == 14
    assert not look("data").harms
