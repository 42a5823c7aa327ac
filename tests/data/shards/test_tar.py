"""Tar files as shards: written by other programs, corrupt, and not seekable."""

import gc
import io
import os
import re
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import webdataset
from PIL import Image

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data.shards import tar
from helpers.shards import COUNT, batches, flat, label, load, numbers, picture, png, samples, seen, spoil, tar_file


def test_shards_of_webdatasets_own_writer(tmp_path: Path) -> None:
    for start in (0, 20):
        with webdataset.TarWriter(str(tmp_path / f"x-{start}.tar")) as writer:
            for number in range(start, start + 20):
                image = Image.open(io.BytesIO(picture(number)))
                writer.write({"__key__": f"deep/{number:03}", "png": image, "cls": label(number), "json": {"a": 1}})
    data = load(tmp_path / "x-{0,20}.tar")
    assert data.classes == ("0", "1", "2")
    assert data.skipped == ()
    assert sorted(flat(seen(batches(data).epoch(1)))) == list(range(40))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # it leaves files open
def test_webdataset_reads_ours(shards: Path) -> None:
    files = [str(path) for path in sorted(shards.glob("train-*.tar"))]
    found = webdataset.WebDataset(files, shardshuffle=False, empty_check=False).decode("l8").to_tuple("png", "cls")
    pairs = [(int(image[0, 0]) * 256 + int(image[0, 1]), number) for image, number in found]
    gc.collect()
    assert sorted(pairs) == [(number, label(number)) for number in range(COUNT["train"])]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_any_tar_with_long_names(tmp_path: Path, form: int) -> None:
    folder = "/".join(["a-rather-long-name"] * 6)
    many = {f"{folder}/{name}": content for name, content in samples(0, 9).items()}
    data = load(tar_file(tmp_path / "x.tar", {"README": b"", "._00001.png": b"", **many}, form))
    assert sorted(numbers(data.train.images[:])) == list(range(9))


def test_labels_as_names_and_as_json_before_or_behind_the_picture(tmp_path: Path) -> None:
    words = [b'{"label": "ape"}', b'{"class": "cow", "label": 7}', b'{"class": "bee"}']
    members = {}
    for number in range(9):
        pair = [(f"{number}.json", words[label(number)]), (f"{number}.PNG", picture(number))]
        members |= dict(pair if number % 2 else reversed(pair))
    data = load(tar_file(tmp_path / "x.tar", members))
    assert data.classes == ("ape", "bee", "cow")
    names = [data.classes[index] for index in data.train.labels]
    assert names == [["ape", "cow", "bee"][label(number)] for number in numbers(data.train.images[:])]


def test_numbers_count_as_numbers_and_need_not_begin_at_zero(tmp_path: Path) -> None:
    data = load(tar_file(tmp_path / "x.tar", samples(0, 9, lambda number: f" {9 + label(number)}\n")))
    assert data.classes == ("9", "10", "11")
    assert data.train.labels.tolist() == [label(number) for number in range(9)]


def test_splits_by_the_names_of_foreign_shards(tmp_path: Path) -> None:
    for name, first in [("set-train-0", 0), ("set-train-1", 10), ("set-val-0", 20), ("x-Test", 30)]:
        tar_file(tmp_path / f"{name}.tar", samples(first, 10))
    data = load(tmp_path)
    assert data.validation is not None
    assert data.test is not None
    assert sorted(numbers(data.train.images[:])) == list(range(20))
    assert numbers(data.validation.images[:]) == list(range(20, 30))
    assert numbers(data.test.images[:]) == list(range(30, 40))
    assert load(tmp_path / "set-{train-1,val-0}.tar").train.labels.shape == (10,)


def test_foreign_shards_are_read_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = []
    original = tar.read_tar
    monkeypatch.setattr(tar, "read_tar", lambda place: read.append(Path(place).name) or original(place))
    for number in range(3):
        tar_file(tmp_path / f"{number}.tar", samples(10 * number, 10))
    for _ in range(2):
        assert len(load(tmp_path / "{0..2}.tar").train) == 30
    assert sorted(read) == ["0.tar", "1.tar", "2.tar"]
    tar_file(tmp_path / "1.tar", samples(50, 12))
    assert sorted(numbers(load(tmp_path).train.images[:])) == [*range(10), *range(20, 30), *range(50, 62)]
    assert read[3:] == ["1.tar"]


BAD = {
    "no label": ({"x.png": picture(1)}, "x.png", "no .cls"),
    "no picture": ({"x.cls": b"1"}, "x", "no image beside"),
    "empty label": ({"x.png": picture(1), "x.cls": b" "}, "x.png", "label is ''"),
    "negative": ({"x.png": picture(1), "x.cls": b"-1"}, "x.png", "label is '-1'"),
    "no text": ({"x.png": picture(1), "x.cls": b"\xff"}, "x.png", "label cannot be read"),
    "no JSON": ({"x.png": picture(1), "x.json": b"{"}, "x.png", "label cannot be read"),
    "another JSON": ({"x.png": picture(1), "x.json": b"[1]"}, "x.png", "no .json that says"),
    "no image": ({"x.png": b"nonsense", "x.cls": b"1"}, "x.png", "not an image"),
}


@pytest.mark.parametrize(("members", "name", "reason"), BAD.values(), ids=BAD)
def test_samples_that_cannot_be_used(tmp_path: Path, members: dict[str, bytes], name: str, reason: str) -> None:
    path = tar_file(tmp_path / "x.tar", samples(0, 5) | members | samples(5, 5))
    with pytest.raises(DataError, match=r"1 shards or pictures cannot be used.*--on-bad-image skip") as caught:
        load(path)
    assert reason in str(caught.value)
    data = load(path, on_bad_image="skip")
    [(bad, why)] = data.skipped
    assert bad == f"{path}: {name}"
    assert reason in why
    assert sorted(flat(seen(batches(data, 4).epoch(1)))) == list(range(10))


@pytest.mark.parametrize("keep", [5 * 2048 + 700, 5 * 2048, 5 * 2048 + 100], ids=["picture", "no end", "header"])
def test_a_foreign_shard_that_is_cut_short(tmp_path: Path, keep: int) -> None:
    path = tar_file(tmp_path / "x.tar", samples(0, 20))
    os.truncate(path, keep)
    with pytest.raises(DataError, match=r"x\.tar \("):
        load(path)
    data = load(path, on_bad_image="skip")
    assert str(path) in dict(data.skipped)
    assert numbers(data.train.images[:]) == list(range(5))


def test_a_foreign_shard_that_is_damaged_or_compressed(tmp_path: Path) -> None:
    tar_file(tmp_path / "a.tar", samples(0, 20))
    with (tmp_path / "a.tar").open("r+b") as file:
        file.seek(10 * 2048)
        file.write(b"garbage" * 60)
    with pytest.raises(DataError, match="it is damaged at byte 20,480"):
        load(tmp_path / "a.tar")
    assert len(load(tmp_path / "a.tar", on_bad_image="skip").train) == 10
    with tarfile.open(tmp_path / "b.tar", "w:gz") as packed:
        packed.add(tmp_path / "a.tar")
    with pytest.raises(DataError, match="compressed"):
        load(tmp_path / "b.tar")


def test_a_damaged_picture(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = shards / "train-00003.tar"
    name = spoil(path, 2)
    with pytest.raises(DataError, match=re.escape(f"{path}: {name}: ")):
        seen(batches(load(shards)).epoch(1))
    data = load(shards, on_bad_image="skip")
    lost = set(range(203)) - set(flat(seen(batches(data).epoch(1))))
    assert lost == {int(re.findall(r"n_(\d+)-", name)[0])}
    for epoch in (1, 2):
        own = batches(data)
        whole = seen(own.epoch(epoch))
        assert seen(own.epoch(epoch, 4)) == whole[4:]
    assert caplog.text.count("left out") == 1
    assert len(data.train.images[:]) == 202


@pytest.mark.parametrize("harm", [lambda path: os.truncate(path, 5000), Path.unlink], ids=["cut", "gone"])
def test_a_damaged_shard_shows_when_the_data_is_opened(shards: Path, harm: Callable[[Path], object]) -> None:
    harm(shards / "train-00003.tar")
    with pytest.raises(DataError, match=r"1 shards .*train-00003\.tar \("):
        load(shards)
    data = load(shards, on_bad_image="skip")
    assert len(data.skipped) == 1
    assert len(flat(seen(batches(data).epoch(1)))) == len(data.train) == 203 - 12


def test_a_shard_that_is_damaged_while_training(shards: Path, caplog: pytest.LogCaptureFixture) -> None:
    data, tolerant = load(shards), load(shards, on_bad_image="skip")
    os.truncate(shards / "train-00003.tar", 5000)
    with pytest.raises(DataError, match=r"train-00003\.tar: it has 5,000 bytes, and its index says"):
        seen(batches(data).epoch(1))
    assert len(flat(seen(batches(tolerant).epoch(1)))) == 203 - 12
    assert caplog.text.count("left out") == 1


def test_a_batch_without_any_picture(tmp_path: Path) -> None:
    path = tar_file(tmp_path / "x.tar", samples(0, 6))
    data = load(path, on_bad_image="skip")
    for number in range(6):
        spoil(path, number)
    with pytest.raises(DataError, match="batch 0 of epoch 1 has no image"):
        next(batches(data).epoch(1))


def test_shards_that_cannot_be_trained_on(shards: Path, tmp_path: Path) -> None:
    for spec, words in {
        tmp_path / "nowhere-{0..3}.tar": "nowhere-0.tar: no such shard \\(4 of 4 are missing",
        shards / "train-{00000..00099}.tar": "train-00017.tar: no such shard \\(83 of 100",
        tmp_path / "x-{5..3}.tar": "there are no shards",
        tar_file(tmp_path / "one.tar", samples(0, 5, lambda number: "a")): "a classifier needs two or more",
    }.items():
        with pytest.raises(DataError, match=words):
            load(spec)
    tar_file(tmp_path / "mixed" / "train.tar", samples(0, 2))
    tar_file(tmp_path / "mixed" / "test.tar", samples(0, 9))
    with pytest.raises(DataError, match="no picture of class '2' is there to train on"):
        load(tmp_path / "mixed")
    tar_file(tmp_path / "sizes.tar", samples(0, 9) | {"x.png": png(5, 5), "x.cls": b"1"})
    with pytest.raises(UsageError, match="the pictures have several sizes"):
        load(tmp_path / "sizes.tar")
    assert load(tmp_path / "sizes.tar", image_size=(5, 5)).train.images.shape == (10, 1, 5, 5)


def test_a_pipe_in_the_place_of_a_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar"):
        load(str(tmp_path / "a.tar"))
