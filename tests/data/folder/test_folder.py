"""Folders of images as data sets: layout, errors, sizes and channels."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data import (
    load_dataset,
    read_image,
    scan_folder,
)
from helpers.folders import SIZE, contents, flat, load, picture


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_split_folders_become_splits(validation: str) -> None:
    for split in ("train", validation, "test"):
        for name in ("dog", "cat"):
            picture(f"photos/{split}/{name}/1.png")
    picture("photos/train/cat/by night/2.JPG")
    found = scan_folder(Path("photos"))
    assert found.classes == ("cat", "dog")
    assert list(found.splits) == ["train", "validation", "test"]
    assert found.splits["train"].paths == ("train/cat/1.png", "train/cat/by night/2.JPG", "train/dog/1.png")
    assert found.splits["train"].labels == (0, 0, 1)
    assert found.splits["validation"].paths == (f"{validation}/cat/1.png", f"{validation}/dog/1.png")
    assert not found.problems()
    data = load("photos")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [3, 2, 2]


def test_non_images_are_ignored() -> None:
    flat("photos", 2)
    for name in ("photos/.git/x.png", "photos/cat/.thumbs/x.png", "photos/cat/.x.png", "photos/loose.png"):
        picture(name)
    for name in ("photos/readme.txt", "photos/cat/notes.csv", "photos/cat/png"):
        Path(name).write_text("x")
    assert scan_folder(Path("photos")).splits["train"].paths == ("cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "JPG"])
def test_common_formats_are_read(suffix: str) -> None:
    for name in ("a", "b"):
        picture(f"photos/{name}/1.{suffix}")
    assert len(load("photos", test_fraction=0).train) == 2


def test_order_follows_names_not_the_disk() -> None:
    names = ["b/10.png", "a/x/1.png", "a-b/1.png", "b/9.png", "a/0.png", "B/1.png"]
    for name in names:
        picture(f"one/{name}")
    for name in reversed(names):
        picture(f"two/{name}")
    one, two = (scan_folder(Path(root)) for root in ("one", "two"))
    assert one.splits == two.splits
    assert one.splits["train"].paths == ("B/1.png", "a-b/1.png", "a/0.png", "a/x/1.png", "b/10.png", "b/9.png")
    assert one.classes == ("B", "a", "a-b", "b")
    assert one.splits["train"].labels == (0, 2, 1, 1, 3, 3)


def test_links_are_followed_and_cycles_end() -> None:
    picture("elsewhere/cats/1.png")
    picture("elsewhere/2.png")
    flat("photos", 1, ("dog",))
    Path("photos/cat").symlink_to(Path("elsewhere/cats").resolve())
    Path("photos/dog/linked.png").symlink_to(Path("elsewhere/2.png").resolve())
    for place, target in {"photos/dog/up": "photos", "photos/dog/self": "photos/dog", "photos/cat/x": "photos"}.items():
        Path(place).symlink_to(Path(target).resolve())
    paths = scan_folder(Path("photos")).splits["train"].paths
    assert paths == ("cat/1.png", "dog/00.png", "dog/linked.png")
    Path("photos/dog/loop").symlink_to("loop")  # names itself
    Path("photos/dog/again").symlink_to(Path("elsewhere/cats").resolve())
    assert "dog/again/1.png" in scan_folder(Path("photos")).splits["train"].paths


def mixed(*folders: str) -> None:
    for folder in folders:
        picture(f"photos/{folder}/1.png")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: None, "photos: no such folder"),
        (lambda: Path("photos").mkdir(), "photos has no folder of images"),
        (lambda: Path("photos/train").mkdir(parents=True), "photos/train has no folder of images"),
        (lambda: mixed("cat"), "photos has only one class, 'cat'"),
        (lambda: (mixed("cat", "dog"), Path("photos/cow").mkdir()), "class 'cow' has no images: add some"),
        (lambda: mixed("train/a", "train/b", "test/a", "test/c"), "'c' has images in test, but none in train"),
        (lambda: mixed("val/a", "val/b", "test/a"), "photos has test/, val/ but no train/"),
        (lambda: mixed("train/a", "val/a", "valid/a"), "both val/ and valid/ for validation"),
        (lambda: mixed("train/a", "Train/a"), "both Train/ and train/ for train"),
        (lambda: mixed("train/a", "train/b", "cat"), "images in cat/ beside it"),
    ],
)
def test_untrainable_folders_are_refused(make: Callable[[], object], reason: str) -> None:
    make()
    with pytest.raises(DataError, match=reason):
        load("photos")


def test_folders_without_images_beside_splits_are_allowed() -> None:
    mixed("train/a", "train/b")
    Path("photos/annotations").mkdir()
    Path("photos/annotations/a.json").write_text("{}")
    assert len(load("photos").train) == 2


def test_all_problems_are_reported_together() -> None:
    mixed("train/a", "train/b", "val/a", "test/c", "test/d")
    assert len(scan_folder(Path("photos")).problems()) == 2
    with pytest.raises(DataError, match=r"'c' has images in test, but none in train.*; .*'d' has images in test"):
        load("photos")


def test_test_set_of_flat_folder_is_machine_independent() -> None:
    for name in ("cat", "dog"):  # of a format without compression: the bytes are the same everywhere
        for number in range(20):
            picture(f"photos/{name}/{number:02}.bmp")
    data = load("photos")
    assert data.validation is None
    assert [len(data.train), len(data.test)] == [36, 4]
    assert data.test.names == GOLDEN_TEST
    assert data.test.labels.tolist() == [0, 0, 1, 1]
    assert set(data.train.names).isdisjoint(data.test.names)
    assert load("photos", test_fraction=0).test is None
    assert len(load("photos", test_fraction=0.5).test) == 20
    with pytest.raises(UsageError, match="the fraction to hold out"):
        load("photos", test_fraction=1)


GOLDEN_TEST = ("cat/02.bmp", "cat/17.bmp", "dog/04.bmp", "dog/19.bmp")


def test_dataset_names_take_precedence_over_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    flat("digits", 3)
    flat("photos", 3)
    assert load_dataset("digits").classes == tuple("0123456789")
    for name in ("./digits", "digits/", str(Path("digits").resolve()), "~/digits", "photos"):
        monkeypatch.setenv("HOME", str(Path.cwd()))
        data = load_dataset(name, progress=False)
        assert data.classes == ("cat", "dog")
        assert data.name == Path(name).name
    with pytest.raises(DataError, match=r"nowhere/photos: no such folder"):
        load_dataset("nowhere/photos")
    with pytest.raises(UsageError, match=r"unknown data set 'photo'.*no folder of this name exists either"):
        load_dataset("photo")
    with pytest.raises(UsageError, match="not for photos"):
        load_dataset("photos", Path("/usr"))


def test_subset_reads_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    root = flat("photos", 5)
    for how in ({}, {"budget": 0}):
        data = load(root, test_fraction=0, **how)
        few = data.train.subset(torch.tensor([9, 0, 4]))
        part = few.subset(torch.tensor([2, 0]))
        shutil.move(root, "away")
        assert part.names == ("cat/04.png", "dog/04.png")
        assert part.labels.tolist() == [0, 1]
        assert tuple(part.images.shape) == (2, 1, *SIZE)
        shutil.move("away", root)
        assert part.images[:][0].equal(read_image(root / "cat/04.png"))
        assert part.images[torch.tensor([1])][0].equal(read_image(root / "dog/04.png"))


def test_common_size_is_kept_and_other_sizes_are_fitted() -> None:
    root = flat("photos", 2, size=(6, 10), mode="RGB")
    assert tuple(load(root).train.images.shape) == (4, 3, 6, 10)
    assert tuple(load(root, image_size=(10, 10)).train.images.shape) == (4, 3, 6, 10)
    small = load(root, image_size=(10, 8))
    assert tuple(small.train.images.shape) == (4, 3, 10, 8)
    contents(root, small)
    picture(root / "dog/odd.png", size=(7, 10))
    fitted = load(root, image_size=(10, 10), test_fraction=0)
    assert tuple(fitted.train.images.shape) == (5, 3, 10, 10)
    contents(root, fitted)
    with pytest.raises(UsageError, match="the images have 2 sizes"):
        load(root)


def test_exif_rotation_is_applied_before_sizes() -> None:
    """EXIF says that the camera was turned: upright, both are of one size."""
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a", "b"):
        path = picture(f"photos/{name}/flat.jpg", size=(6, 10))
        turned = Image.open(path).transpose(Image.Transpose.ROTATE_90)
        turned.save(path.with_name("turned.jpg"), exif=exif)
    data = load("photos", test_fraction=0)
    assert tuple(data.train.images.shape) == (4, 1, 6, 10)
    contents(Path("photos"), data)


def test_images_are_grey_only_if_all_are() -> None:
    root = flat("photos", 2)
    assert load(root).train.images.shape[1] == 1
    assert load(root, channels=3).train.images.shape[1] == 3
    picture(root / "dog/red.png", mode="RGB")
    assert load(root).train.images.shape[1] == 3
    assert load(root, channels=1).train.images.shape[1] == 1
    with pytest.raises(UsageError, match="channels must be 1 or 3, not 2"):
        load(root, channels=2)


def test_non_regular_files_do_not_block() -> None:
    root = flat("photos", 2)
    os.mkfifo(root / "cat/pipe.png")
    assert load(root, on_bad_image="skip").skipped == (("cat/pipe.png", "cannot be read (not a regular file)"),)
