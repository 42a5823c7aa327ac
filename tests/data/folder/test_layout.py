"""Layouts of folders: splits, classes, ignored files, archives, tables beside images."""

import io
import json
import os
import shutil
import tarfile
import zipfile
from functools import partial
from pathlib import Path

import pytest

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.data import Dataset, load_dataset, scan_folder
from cnnkit.data.split_names import split_of
from helpers.cli import Cli, one_line
from helpers.images import save_noise

image = partial(save_noise, size=(8, 8), mode="L")


def images(*folders: str, count: int = 4) -> None:
    for folder in folders:
        for number in range(count):
            image(f"photos/{folder}/{number}.png")


def load(data: str | Path = "photos", **options: object) -> Dataset:
    return load_dataset(data, **({"progress": False} | options))


def counts(data: Dataset) -> dict[str, int]:
    parts = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: len(part) for name, part in parts.items() if part is not None}


# --- splits


@pytest.mark.parametrize(
    ("train", "test"),
    [
        ("train", "test"),
        ("Training", "Testing"),
        ("training_set", "test_set"),
        ("seg_train", "seg_test"),
        ("TrainData", "EvalData"),
        ("train2017", "test2017"),
        ("train-images", "holdout"),
        ("训练集", "测试集"),
        ("訓練データ", "テストデータ"),
        ("훈련", "시험"),
        ("Trainingsdaten", "Testdaten"),
        ("entraînement", "essai"),
        ("entrenamiento", "prueba"),
        ("обучающая выборка", "тестовая выборка"),
    ],
)
def test_common_split_names_are_recognised(train: str, test: str) -> None:
    images(f"{train}/cat", f"{train}/dog", f"{test}/cat", f"{test}/dog")
    data = load()
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": 8, "test": 8}
    said = [remark for remark in data.remarks if "is used as the" in remark]
    assert len(said) == (0 if train == "train" else 2)


def test_training_prints_the_splits_it_found(cli: Cli) -> None:
    images("Training/cat", "Training/dog", "Testing/cat", "Testing/dog")
    result = cli("train", "lenet", "--data", "photos", "--epochs", 1, "--batch-size", 4)
    assert result.code == 0, result
    log = Path("runs/lenet-photos-1/log.txt").read_text()
    for told in (result.out, log):
        assert "photos/Training is used as the train images" in told
        assert "photos/Testing is used as the test images" in told
    assert json.loads(cli("evaluate", "runs/lenet-photos-1", "--json").out)["images"] == 8


def test_split_words_within_other_words_are_ignored() -> None:
    names = ["test_tube", "contest", "latest", "training_shoes", "invalid", "evaluation_board", "dataset"]
    assert [split_of(name) for name in names] == [None] * len(names)


def test_class_may_be_named_like_a_split() -> None:
    images("bus", "car", "train")
    data = load()
    assert data.classes == ("bus", "car", "train")
    assert counts(data) == {"train": 9, "test": 3}
    assert "photos/train is used as a class, as it is beside others" in data.remarks


def test_classes_may_be_named_valid_and_invalid() -> None:
    images("valid", "invalid")
    assert load().classes == ("invalid", "valid")


def test_split_may_be_nested_in_a_folder_of_its_name() -> None:
    images("seg_train/seg_train/sea", "seg_train/seg_train/hill", "seg_test/seg_test/sea", "seg_test/seg_test/hill")
    for number in range(3):
        image(f"photos/seg_pred/seg_pred/{number}.png")
    data = load()
    assert data.classes == ("hill", "sea")
    assert counts(data) == {"train": 8, "test": 8}
    assert any("seg_pred holds 3 images without a class" in remark for remark in data.remarks)


def test_test_folder_without_classes_is_for_prediction(cli: Cli) -> None:
    images("train/cat", "train/dog", count=10)
    for number in range(5):
        image(f"photos/test/{number}.png")
    data = load()
    assert counts(data) == {"train": 18, "test": 2}
    result = cli("train", "lenet", "--data", "photos", "--epochs", 1, "--batch-size", 4)
    assert result.code == 0, result
    assert "photos/test holds 5 images without a class" in result.out + result.err
    assert "cnnkit predict RUN" in result.out + result.err
    assert cli("evaluate", "runs/lenet-photos-1").code == 0


def test_classes_may_be_one_folder_deeper() -> None:
    images("animals/cat", "animals/dog")
    assert load().classes == ("cat", "dog")
    assert "photos/animals is used as the folder of the data set" in load().remarks
    images("../other/a/b/train/x", "../other/a/b/train/y", "../other/a/b/test/x", "../other/a/b/test/y")
    assert counts(load("other")) == {"train": 8, "test": 8}


def test_ambiguous_layout_is_an_error_with_a_command_for_each_reading(cli: Cli) -> None:
    images("cat/indoor", "cat/outdoor", "dog/indoor", "dog/outdoor")
    result = cli("train", "lenet", "--data", "photos", "--epochs", 1)
    one_line(result, 3, "cat, dog hold the same folders, indoor, outdoor")
    root = Path("photos").absolute()
    assert f"mkdir split && ln -s {root} split/train, then --data split" in result.err
    assert f"--data {root}/cat --test-data {root}/dog" in result.err
    Path("split").mkdir()
    Path("split/train").symlink_to(root)
    assert load("split").classes == ("cat", "dog")
    flags = ["--epochs", 1, "--batch-size", 4]
    assert cli("train", "lenet", "--data", "photos/cat", "--test-data", "photos/dog", *flags).code == 0
    image("photos/cat/0.png")  # it is a class that has folders besides
    assert load().classes == ("cat", "dog")


def test_class_folders_may_contain_splits() -> None:
    images("cat/train", "cat/test", "dog/train", "dog/test")
    data = load()
    assert (data.classes, counts(data)) == (("cat", "dog"), {"train": 8, "test": 8})
    assert any("each class has its own train, test folders" in remark for remark in data.remarks)


def test_validation_folder_may_hold_unlabelled_images() -> None:
    images("train/n01/images", "train/n02/images", "val/images", "test/images", count=10)
    data = load()
    assert (data.classes, counts(data)) == (("n01", "n02"), {"train": 18, "test": 2})
    assert sum("10 images without a class" in remark for remark in data.remarks) == 2
    assert not any("outside" in remark for remark in data.remarks)


def test_unsupported_layouts_are_named() -> None:
    for number in range(3):
        image(f"one/{number}.png")
    with pytest.raises(DataError, match=r"one holds 3 images, but no folders of classes.*CSV file"):
        load("one")
    with pytest.raises(DataError, match=r"one/0.png is a file: data must be a folder, a CSV file, or an archive"):
        load("one/0.png")
    packed("zip")
    Path("two").mkdir()
    shutil.move("photos.zip", "two/train.zip")
    with pytest.raises(DataError, match=r"two has archives, but no folder of images.*two/train.zip"):
        load("two")


def test_unicode_forms_of_a_class_are_merged() -> None:
    images("train/caf\u00e9", "train/bar", "test/cafe\u0301", "test/bar")
    data = load()
    assert data.classes == ("bar", "caf\u00e9")
    assert counts(data) == {"train": 8, "test": 8}
    assert [remark for remark in data.remarks if "Unicode" in remark] == [
        "2 folders spell caf\u00e9 in different forms of Unicode: they are one class"
    ]
    images("../flat/caf\u00e9", "../flat/bar", "../flat/cafe\u0301")
    assert load("flat", test_fraction=0).train.labels.tolist() == [0] * 4 + [1] * 8


# --- what is passed over


def test_thumbnail_and_leftover_files_are_skipped_and_counted() -> None:
    images("cat", "dog")
    for path in (
        "cat/@eaDir/0.png/SYNOPHOTO_THUMB_SM.jpg",
        "cat/.thumbnails/0.png",
        "__MACOSX/cat/._0.png",
        "dog/._1.png",
        "#recycle/x.png",
        "dog/$RECYCLE.BIN/x.png",
    ):
        image(f"photos/{path}.png" if not path.endswith((".png", ".jpg")) else f"photos/{path}")
    Path("photos/dog/Thumbs.db").write_bytes(b"x")
    data = load(test_fraction=0)
    assert data.classes == ("cat", "dog")
    assert len(data.train) == 8
    said = [remark for remark in data.remarks if "of other programs" in remark]
    assert len(said) == 1
    assert "7 files" in said[0]


def test_misplaced_images_are_reported() -> None:
    images("cat", "dog")
    shutil.copy("photos/cat/0.png", "photos/cat/nameless")
    shutil.copy("photos/cat/1.png", "photos/cat/wrong.txt")
    Path("photos/cat/photo.nef").write_bytes(b"II*\0" + bytes(60))
    image("photos/loose.png")
    image("photos/cat/.hidden.png")
    image("photos/.backup/cat/1.png")
    data = load(test_fraction=0)
    assert len(data.train) == 8
    assert any("1 image ignored (loose.png): outside the class folders" in remark for remark in data.remarks)
    assert any("2 images ignored (.backup/cat/1.png and 1 more): hidden" in remark for remark in data.remarks)
    assert any("1 PNG image ignored (cat/nameless): no extension; add .png" in remark for remark in data.remarks)
    assert any(
        "1 PNG image ignored (cat/wrong.txt): wrong extension; rename *.txt to *.png" in remark
        for remark in data.remarks
    )
    assert any("1 RAW image ignored (cat/photo.nef): convert to JPEG or PNG" in remark for remark in data.remarks)


# --- classes of few images


def test_classes_without_training_or_test_images_are_reported(cli: Cli) -> None:
    images("cat", "dog", count=30)
    images("emu", count=1)
    images("fox", count=2)
    flags = ["--epochs", 1, "--batch-size", 4]
    result = cli("train", "lenet", "--data", "photos", *flags)
    assert result.code == 0, result
    log = Path("runs/lenet-photos-1/log.txt").read_text()
    assert "too few images to train, validate or test on in 2 of 4 classes" in log
    rows = [line.split() for line in log.splitlines() if line.split()[:1] in (["emu"], ["fox"])]
    assert rows == [["emu", "1", "0", "0"], ["fox", "2", "0", "0"]]
    found = cli("evaluate", "runs/lenet-photos-1", "--json")
    assert "no test images of emu, fox: the metrics skip these classes" in found.err
    assert [row["recall"] is None for row in json.loads(found.out)["classes"]] == [False, False, True, True]
    assert "0.000" not in next(
        line for line in cli("evaluate", "runs/lenet-photos-1").out.splitlines() if "emu" in line
    )
    result = cli("train", "lenet", "--data", "photos", "--min-images", 3, *flags)
    assert result.code == 0, result
    log = Path("runs/lenet-photos-2/log.txt").read_text()
    assert "classes with fewer than 3 training images are left out: emu (1), fox (2)" in log
    assert "too few images" not in log
    report = json.loads(cli("evaluate", "runs/lenet-photos-2", "--json").out)
    assert [row["class"] for row in report["classes"]] == ["cat", "dog"]
    assert report["images"] == 6


def test_min_images_without_classes_left_is_an_error(cli: Cli) -> None:
    images("cat", "dog")
    result = cli("train", "lenet", "--data", "photos", "--min-images", 100)
    one_line(result, 3, "min_images 100 leaves no class: the largest has 4 training images")


def test_empty_validation_set_is_reported(cli: Cli) -> None:
    images("cat", "dog", count=3)
    result = cli("train", "lenet", "--data", "photos", "--epochs", 1, "--batch-size", 4)
    assert result.code == 0, result
    assert "no validation images to choose the best epoch by: the classes are too small" in result.out
    images("../own/train/cat", "../own/train/dog", "../own/val/cat", "../own/val/dog")
    shutil.copy("own/train/cat/0.png", "own/val/cat/copy.png")
    result = cli("train", "lenet", "--data", "own", "--epochs", 1, "--batch-size", 4)
    assert "1 validation image also used for training: val/cat/copy.png" in result.out
    assert "the data have no test images" in result.out


def test_test_folder_may_lack_a_class(cli: Cli) -> None:
    images("train/cat", "train/dog", "train/emu", "test/cat", "test/dog", count=8)
    result = cli("train", "lenet", "--data", "photos", "--epochs", 1, "--batch-size", 4)
    assert result.code == 0, result
    assert "too few images to train, validate or test on in 1 of 3 classes" in result.out + result.err
    assert json.loads(cli("evaluate", "runs/lenet-photos-1", "--json").out)["images"] == 16
    images("test/fox")  # nothing to train on
    result = cli("train", "lenet", "--data", "photos", "--epochs", 1)
    one_line(result, 3, "class 'fox' has images in test, but none in train", "--min-images 1")
    assert cli("train", "lenet", "--data", "photos", "--epochs", 1, "--batch-size", 4, "--min-images", 1).code == 0


# --- archives


def packed(kind: str) -> Path:
    images("cat", "dog")
    path = Path(f"photos.{kind}")
    files = sorted(Path("photos").rglob("*.png"))
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file in files:
                archive.write(file)
            archive.writestr("__MACOSX/photos/cat/._0.png", b"x")
    else:
        with tarfile.open(path, f"w:{kind.rpartition('.')[2].replace('tgz', 'gz')}") as archive:
            for file in files:
                archive.add(file)
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tgz", "tar.bz2", "tar.xz"])
def test_archive_is_unpacked_into_the_cache(kind: str, cli: Cli) -> None:
    path = packed(kind)
    expected = load()
    data = load(path)
    assert data.classes == ("cat", "dog")
    assert (data.name, data.test.digests) == ("photos", expected.test.digests)
    assert cli("train", "lenet", "--data", path, "--epochs", 1, "--batch-size", 4).code == 0
    path.rename("elsewhere." + kind)
    assert load(f"elsewhere.{kind}").train.digests == data.train.digests
    path.write_bytes(Path(f"elsewhere.{kind}").read_bytes()[:100])
    with pytest.raises(DataError, match=r"the archive is corrupt"):
        load(path)


@pytest.mark.parametrize("kind", ["zip", "tar.gz", "tar.bz2", "tar.xz"])
def test_corrupt_archive_is_reported(kind: str) -> None:
    path = packed(kind)
    content = bytearray(path.read_bytes())
    for at in range(len(content) // 4, 3 * len(content) // 4, 50):
        content[at] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(DataError, match="the archive is corrupt"):
        load(path)


def hostile(kind: str, name: str, how: str) -> Path:
    path = Path(f"bad.{kind}")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as archive:
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o120777 if how == "link" else 0o100644) << 16
            archive.writestr(info, b"/etc")
    else:
        with tarfile.open(path, "w:gz") as archive:
            member = tarfile.TarInfo(name)
            member.type = {"link": tarfile.SYMTYPE, "device": tarfile.CHRTYPE}.get(how, tarfile.REGTYPE)
            member.linkname = "/etc" if how == "link" else ""
            member.size = 4 if how == "file" else 0
            archive.addfile(member, io.BytesIO(b"/etc"))
    return path


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
@pytest.mark.parametrize(
    "name", ["../out.png", "/tmp/out-of-archive.png", "cat/../../out.png", "..\\out.png", "C:/x.png"]
)
def test_archive_writes_nothing_outside_its_folder(kind: str, name: str) -> None:
    with pytest.raises(DataError, match="refused: it names a file outside"):
        load(hostile(kind, name, "file"))
    assert not list(Path.cwd().parent.rglob("out.png"))
    assert not Path("/tmp/out-of-archive.png").exists()
    assert not list(Path(os.environ["CNNKIT_CACHE"]).rglob("*.png"))


@pytest.mark.parametrize(("kind", "how"), [("zip", "link"), ("tar.gz", "link"), ("tar.gz", "device")])
def test_archive_creates_no_links_or_devices(kind: str, how: str) -> None:
    with pytest.raises(DataError, match="has no folder of images"):
        load(hostile(kind, "cat", how))
    assert not [path for path in Path(os.environ["CNNKIT_CACHE"]).rglob("*") if path.is_symlink()]


def test_archive_larger_than_the_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile("bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"cat/{number}.png", bytes(10**6))
    usage = shutil.disk_usage("/")
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage._replace(free=10**6))
    with pytest.raises(CnnkitError, match="more than half of the free disk"):
        load("bomb.zip")
    assert not [path for path in Path(os.environ["CNNKIT_CACHE"]).rglob("*") if path.suffix == ".png"]


# --- a list beside images


@pytest.mark.parametrize("names", ["{n}.png", "images/{n}.png", "{n}"])
@pytest.mark.parametrize("header", ["filename,label", "id,class", "image,category", "path,label", "id,breed"])
def test_csv_beside_images_gives_the_labels(names: str, header: str) -> None:
    for number in range(20):
        image(f"photos/images/{number}.png")
    rows = [f"{names.format(n=number)},{'cat' if number % 2 else 'dog'}" for number in range(20)]
    Path("photos/labels.csv").write_text("\n".join([header, *rows]))
    data = load()
    assert data.classes == ("cat", "dog")
    assert counts(data) == {"train": 18, "test": 2}
    assert all(
        (data.classes[label] == "cat") == bool(int(Path(name).stem) % 2)
        for name, label in zip(data.train.names, data.train.labels.tolist(), strict=True)
    )
    assert "the classes of the images are read from photos/labels.csv" in data.remarks


def test_competition_layout_is_read() -> None:
    for number in range(20):
        image(f"photos/train/{number}.png")
    image("photos/test/100.png")
    rows = "\n".join(f"{number},{'cat' if number % 2 else 'dog'}" for number in range(20))
    Path("photos/train.csv").write_text(f"id,label\n{rows}")
    Path("photos/sample_submission.csv").write_text("id,label\n100,cat")
    assert counts(load()) == {"train": 18, "test": 2}
    Path("photos/train.csv").rename("photos/one.csv")
    Path("photos/sample_submission.csv").rename("photos/two.csv")
    with pytest.raises(DataError, match=r"several CSV files.*--data photos/one.csv or --data photos/two.csv"):
        load()


def test_images_without_classes_are_refused(cli: Cli) -> None:
    images("train", "test")
    one_line(cli("train", "lenet", "--data", "photos"), 3, "train/ hold images, but no folders of classes", "CSV file")


def test_scanning_reads_no_image(monkeypatch: pytest.MonkeyPatch) -> None:
    images("cat", "dog")
    Path("photos/cat/0.png").write_bytes(b"no image")
    assert len(scan_folder(Path("photos")).splits["train"].paths) == 8
