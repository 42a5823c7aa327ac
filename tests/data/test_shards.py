"""Tar shards: packed from folders, found and indexed, read over files and a real server, shared, resumed, damaged."""

import gc
import io
import json
import os
import re
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler, ThreadingHTTPServer
from itertools import cycle, islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
import webdataset
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor, nn

from cnnkit.cli import data_pack
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data import Batches, Dataset, Preprocess, load_folder
from cnnkit.data.shards import images as shard_images
from cnnkit.data.shards import pack, remote, tar
from cnnkit.data.shards.dataset import load_shards
from cnnkit.data.shards.images import LANES, ShardImages
from cnnkit.data.shards.index import SAMPLE, Shard, ShardIndex, expand, is_shards
from cnnkit.data.shards.pack import pack_folder
from cnnkit.train import TrainConfig, Trainer
from conftest import Cli, one_line
from webserver import drip, raw_server

RAW = Preprocess((6, 6), std=(1 / 255,))
COUNT = {"train": 203, "val": 31, "test": 17}
FIRST = {"train": 0, "val": 300, "test": 400}


def picture(number: int) -> bytes:
    """A grey PNG of 6 x 6 that holds a number."""
    pixels = np.full((6, 6), 7, np.uint8)
    pixels[0, :2] = divmod(number, 256)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def png(height: int, width: int) -> bytes:
    file = io.BytesIO()
    Image.new("L", (width, height)).save(file, "png")
    return file.getvalue()


def numbers(x: Tensor) -> list[int]:
    high, low = x[:, 0, 0, :2].round().int().unbind(1)
    return (high * 256 + low).tolist()


def label(number: int) -> int:
    return number % 3


def write_folder(root: Path) -> Path:
    for split, count in COUNT.items():
        for number in range(FIRST[split], FIRST[split] + count):
            path = root / split / "abc"[label(number)] / f"n.{number}.PNG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(picture(number))
    return root


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("originals")
    pack_folder(write_folder(place / "photos"), place / "shards", images_per_shard=12, progress=False)
    return place


@pytest.fixture
def folder(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "photos", tmp_path / "photos")


@pytest.fixture
def shards(originals: Path, tmp_path: Path) -> Path:
    return shutil.copytree(originals / "shards", tmp_path / "shards")


def load(spec: object, **options: object) -> Dataset:
    return load_shards(str(spec), progress=False, workers=2, **options)


def batches(data: Dataset, batch_size: int = 16, rank: int = 0, world: int = 1, **options: object) -> Batches:
    return Batches(data.train, batch_size, RAW, **{"seed": 5, "shard": (rank, world)} | options)


def seen(parts: Iterator[tuple[Tensor, Tensor]]) -> list[list[int]]:
    """The numbers of the pictures in each batch; their labels must be right."""
    result = []
    for x, y in parts:
        result.append(numbers(x))
        assert y.tolist() == [label(number) for number in result[-1]]
    return result


def flat(parts: Sequence[Sequence[int]]) -> list[int]:
    return [number for part in parts for number in part]


# the order


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8, 11])
def test_each_picture_once_over_all_processes_in_equally_many_steps(shards: Path, world: int) -> None:
    data = load(shards)
    parts = [seen(batches(data, 24, rank, world).epoch(1)) for rank in range(world)]
    assert {len(part) for part in parts} == {len(batches(data, 24, 0, world))}
    assert sorted(number for part in parts for number in flat(part)) == list(range(COUNT["train"]))
    for step, size in enumerate(batches(data, 24, 0, world).sizes):
        sizes = [len(part[step]) for part in parts]
        assert sum(sizes) == size
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [2, 4, 8])
def test_the_batches_are_those_of_one_process(shards: Path, world: int) -> None:
    data = load(shards)
    parts = [seen(batches(data, 56, rank, world).epoch(2)) for rank in range(world)]
    for step, whole in enumerate(seen(batches(data, 56).epoch(2))):
        assert sorted(whole) == sorted(number for part in parts for number in part[step])


@pytest.mark.parametrize(("world", "batch_size"), [(1, 16), (1, 7), (2, 16), (3, 20)])
def test_an_epoch_is_entered_at_any_batch(shards: Path, world: int, batch_size: int) -> None:
    data = load(shards)
    for rank in range(world):
        own = batches(data, batch_size, rank, world)
        whole = seen(own.epoch(3))
        for first in range(len(own) + 1):
            assert seen(own.epoch(3, first)) == whole[first:]


def test_epochs_and_seeds_have_orders_of_their_own(shards: Path) -> None:
    data = load(shards)
    orders = [flat(seen(batches(data, seed=seed).epoch(epoch))) for seed, epoch in [(0, 1), (0, 2), (1, 1)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert flat(seen(batches(load(shards), seed=0).epoch(1))) == orders[0]


def images(counts: Sequence[int], size: int = 500) -> ShardImages:
    """Images of shards that are not there: enough for their order."""
    samples = np.zeros(sum(counts), SAMPLE)
    samples["size"] = size
    index = ShardIndex(
        tuple(Shard(str(n), "train", count, 1) for n, count in enumerate(counts)), samples, (), None, True
    )
    return ShardImages(index, torch.arange(len(samples)), (1, 1, 1), 1, False)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.integers(1, 20),
    st.integers(0, 2**40),
    st.integers(1, 100),
)
def test_the_order_for_any_shards(counts: list[int], world: int, seed: int, epoch: int) -> None:
    order = images(counts).order(seed, epoch, world)
    assert order.sort().values.equal(torch.arange(sum(counts)))
    if LANES % world == 0:
        assert order.equal(images(counts).order(seed, epoch, 1))


def test_processes_read_shards_of_their_own_and_batches_mix_many() -> None:
    data = images([1000] * 64)
    shard = torch.arange(64_000) // 1000
    for world in (1, 4, 16):
        order = data.order(0, 1, world)
        own = [set(shard[order[rank::world]].tolist()) for rank in range(world)]
        assert max(map(len, own)) <= 64 // world + max(LANES // world, 1)
        assert len(set(shard[order[:256]].tolist())) >= max(LANES, world)


def test_images_move_within_a_window_of_their_lane() -> None:
    lane = images([16_000]).order(0, 1, 1)[::LANES]
    assert lane.sort().values.equal(torch.arange(2000))
    moved = (lane - torch.arange(2000)).abs()
    assert 100 < moved.double().mean() < moved.max() <= 512


def test_the_window_is_smaller_for_large_pictures_and_small_shards() -> None:
    assert images([1000]).window == 512
    assert images([1000], 1 << 20).window == 32
    assert images([1000], 1 << 30).window == 1
    assert images([90, 110, 0, 0]).window == 50


def test_augmentation_draws_the_same_for_each_picture_however_many_processes(shards: Path) -> None:
    class Mark:
        """Writes each image's random number into it."""

        numbers = 1

        def __call__(self, images: Tensor, u: Tensor) -> Tensor:
            images[:, :, 0, 2:3] = (u[:, :, None] * 255).byte()
            return images

    def marks(rank: int, world: int) -> dict[int, float]:
        found = {}
        for x, _ in batches(load(shards, on_bad_image="skip"), 24, rank, world, augment=Mark()).epoch(1):
            found |= dict(zip(numbers(x), x[:, 0, 0, 2].round().tolist(), strict=True))
        return found

    whole = marks(0, 1)
    assert len(set(whole.values())) > 100
    assert whole == marks(0, 2) | marks(1, 2)
    spoil(shards / "train-00003.tar", 2)
    less = marks(0, 1)
    assert len(less) == 202
    assert less.items() < whole.items(), "also when one is left out"


@pytest.mark.parametrize("world", [1, 2, 5])
def test_iteration_is_exact_over_all_processes(shards: Path, world: int) -> None:
    test = load(shards).test
    assert test is not None
    parts = [flat(seen(iter(Batches(test, 10, RAW, shard=(rank, world))))) for rank in range(world)]
    assert sorted(flat(parts)) == list(range(400, 417))


def test_too_few_images_and_no_seed(shards: Path) -> None:
    data = load(shards)
    with pytest.raises(UsageError, match="no seed"):
        next(batches(data, seed=None).epoch(1))
    few = Batches(data.train.subset(torch.arange(2)), 8, RAW, seed=0, shard=(0, 3))
    with pytest.raises(UsageError, match="2 images are too few for 3 processes"):
        next(few.epoch(1))


# what a data set offers


def test_the_shards_hold_the_folder(folder: Path, shards: Path) -> None:
    data, source = load(shards), load_folder(folder, progress=False)
    assert (data.name, data.classes, data.skipped) == ("shards", source.classes, ())
    for packed, plain in [(data.train, source.train), (data.validation, source.validation), (data.test, source.test)]:
        assert packed is not None
        assert plain is not None
        assert packed.images.shape == plain.images.shape
        assert sorted(numbers(packed.images[:])) == sorted(numbers(plain.images[:]))
        assert packed.labels.tolist() == [label(number) for number in numbers(packed.images[:])]


def test_rows_are_read_in_any_order_and_twice(shards: Path) -> None:
    train = load(shards).train
    everything = train.images[:]
    rows = torch.tensor([200, 3, 3, 77, 0])
    assert train.images[rows].equal(everything[rows])
    assert train.images.subset(rows)[1:3].equal(everything[rows[1:3]])
    assert train.images[:0].shape == (0, 1, 6, 6)


def test_pictures_are_fitted_and_coloured_as_asked(shards: Path) -> None:
    assert load(shards, image_size=(4, 4), channels=3).train.images[:2].shape == (2, 3, 4, 4)
    assert load(shards, image_size=(9, 9)).train.images.shape == (203, 1, 6, 6), "enlarged on the batch"
    with pytest.raises(UsageError, match="channels must be 1 or 3"):
        load(shards, channels=2)


def test_validation_images_are_set_aside_in_stretches(shards: Path) -> None:
    train = load(shards).train
    kept, aside = train.hold_out(0.2, seed=1)
    assert torch.cat([kept, aside]).sort().values.equal(torch.arange(203))
    assert len(aside) == 41
    assert (aside.diff() > 1).sum() <= 4, "of few shards"
    assert aside.equal(train.hold_out(0.2, seed=1)[1])
    assert not aside.equal(train.hold_out(0.2, seed=2)[1])
    own = Batches(train.subset(kept), 16, RAW, seed=0)
    assert sorted(flat(seen(own.epoch(1)))) == sorted(numbers(train.images[kept]))
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        train.hold_out(1, seed=1)


def test_a_sample_of_many_is_read_in_stretches() -> None:
    data = images([1000] * 20)
    rows = data.sample().rows
    assert len(rows) == len(rows.unique()) == 4096
    assert (rows.diff() > 1).sum() == 15
    assert (rows[0], rows[-1]) == (0, 19_999)
    assert images([4096]).sample().shape[0] == 4096


def test_a_training_is_resumed_to_the_bit(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet:
        def on_step_end(self, record: object) -> None: ...
        def on_epoch_end(self, record: object) -> None: ...

    def trainer(name: str) -> Trainer:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        (tmp_path / name).mkdir(exist_ok=True)
        return Trainer(
            net,
            batches(load(shards)),
            Batches(load(shards).validation, 10, RAW),
            TrainConfig(epochs=2, batch_size=16, lr=0.001, checkpoint_steps=5),
            checkpoint=tmp_path / name / "last.ckpt",
            callbacks=[Quiet()],
            save_best=lambda net, record: None,
            num_classes=3,
        )

    whole, stopped = trainer("whole"), trainer("stopped")
    whole.run()
    epoch = stopped.train.epoch

    def cut(number: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(epoch(number, first), 8)
        raise KeyboardInterrupt

    monkeypatch.setattr(stopped.train, "epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = trainer("stopped")
    assert resumed.resume() == ([], [])
    assert (resumed.epoch, resumed.step) == (1, 5)
    resumed.run()
    for one, other in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        assert one.equal(other)


# files that are damaged, foreign, on a server


def tar_file(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def samples(first: int, count: int, word: Callable[[int], str] = lambda number: str(label(number))) -> dict[str, bytes]:
    return {
        name: content
        for number in range(first, first + count)
        for name, content in ((f"{number:05}.png", picture(number)), (f"{number:05}.cls", word(number).encode()))
    }


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


def spoil(path: Path, number: int) -> str:
    """Overwrite a picture within a shard, and return its name."""
    with tarfile.open(path) as shard:
        member = shard.getmembers()[2 * number]
    with path.open("r+b") as file:
        file.seek(member.offset_data + 20)
        file.write(b"\xff" * 30)
    return member.name


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


@pytest.mark.parametrize("harm", ["{", "{}", '{"version": 99}', "[]"])
def test_a_damaged_index(shards: Path, harm: str) -> None:
    (shards / "shards.json").write_text(harm)
    with pytest.raises(DataError, match=r"shards\.json: (not an index|this cnnkit reads version 1)"):
        load(shards)


def test_an_index_of_other_shards(shards: Path) -> None:
    content = (shards / "samples.npy").read_bytes()
    (shards / "samples.npy").write_bytes(content[:-1] + b"x")
    with pytest.raises(DataError, match=r"samples\.npy beside it is of other shards"):
        load(shards)
    (shards / "samples.npy").unlink()
    with pytest.raises(DataError, match="No such file"):
        load(shards)


def test_ways_to_name_shards(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(shards.parent)
    for spec in ("shards", "shards/", "shards/shards.json", str(shards)):
        assert is_shards(spec)
        assert len(load(spec).train) == 203
        assert load(spec).name == "shards"
    some = load("shards/train-{00000..00003}.tar")
    assert some.classes == ("a", "b", "c"), "from the index beside"
    assert some.test is None
    assert len(some.train) == 47
    assert len(load("shards/{train-00000,test-00001}.tar").test) == 9
    assert is_shards("http://host/x/shards.json")
    assert is_shards("https://host/x-{0..9}.tar")
    assert not is_shards("digits")
    assert not is_shards("photos")
    for spec in ("x-{0..1000000000000}.tar", f"x-{{0..{'9' * 5000}}}.tar", "{0..9999}{0..9999}.tar", "{a}" * 20_000):
        with pytest.raises(DataError, match="braces"):
            expand(spec)
    assert sorted(expand("a{b{1..2},c}-{8..9}.tar")) == [f"a{x}-{n}.tar" for x in ("b1", "b2", "c") for n in (8, 9)]


@dataclass
class Server:
    """A folder on the web: answers Range requests or not, breaks off, refuses, and counts what it sends."""

    root: Path
    url: str = ""
    ranges: bool = True
    length: bool = True
    cut: Iterator[int] = field(default_factory=lambda: iter(()))  # bytes after which the next answers break off
    refuse: Iterator[int] = field(default_factory=lambda: iter(()))  # codes of the next answers
    asked: list[tuple[str, int]] = field(default_factory=list)  # names and first bytes
    sent: int = 0

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        path = self.root / request.path.lstrip("/")
        first = int((request.headers.get("Range") or "bytes=0-")[6:-1]) if self.ranges else 0
        self.asked.append((path.name, first))
        code = next(self.refuse, 0)
        if code or not path.is_file():
            request.send_error(code or 404)
            return
        body = path.read_bytes()
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        if self.length:
            request.send_header("Content-Length", str(len(body) - first))
        request.end_headers()
        part = body[first:][: next(self.cut, None)]
        for start in range(0, len(part), 1000):
            request.wfile.write(part[start : start + 1000])
            self.sent += 1000


@pytest.fixture
def server(shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.5")
    server = Server(shards)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # whoever has read enough hangs up
                server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        http.shutdown()
        thread.join()


def test_training_from_a_server_is_that_from_the_disk(server: Server) -> None:
    here, there = load(server.root), load(f"{server.url}/shards.json")
    assert there.classes == here.classes
    for epoch, first in [(1, 0), (2, 5)]:
        assert seen(batches(there).epoch(epoch, first)) == seen(batches(here).epoch(epoch, first))
    assert there.test is not None
    assert sorted(numbers(there.test.images[:])) == list(range(400, 417))
    some = load(f"{server.url}/train-{{00002..00003}}.tar")
    assert some.classes == ("a", "b", "c")
    assert len(some.train) == 24


@pytest.mark.parametrize("ranges", [True, False], ids=["ranges", "no ranges"])
def test_broken_connections_are_taken_up(server: Server, ranges: bool) -> None:
    server.ranges = ranges
    data, here = load(f"{server.url}/shards.json"), load(server.root)
    server.cut = cycle([3000, 10**6, 20_000, 0, 700] if ranges else [3000, 10**6])
    server.refuse = iter([0, 503, 0, 429, 0, 0, 500])
    for first in (0, 4):
        assert seen(batches(data).epoch(1, first)) == seen(batches(here).epoch(1, first))
    if ranges:
        assert any(first % 512 for _, first in server.asked), "within a picture"


def test_a_server_without_lengths(server: Server) -> None:
    server.ranges = server.length = False
    data = load(f"{server.url}/train-{{00000..00004}}.tar")
    assert len(flat(seen(batches(data).epoch(1)))) == len(data.train) == 59


def test_foreign_shards_on_a_server_are_read_through_once(server: Server) -> None:
    (server.root / "shards.json").unlink()
    server.cut = cycle([3000, 10**6])
    spec = f"{server.url}/train-{{00000..00003}}.tar"
    for _ in range(2):
        data = load(spec)
        assert data.classes == ("0", "1", "2")
        assert len(data.train) == 47
        server.asked, asked = [], server.asked
    assert [name for name, _ in asked] == ["shards.json"], "the second time"
    assert len(flat(seen(batches(data).epoch(1)))) == 47


def one_shard(path: Path, label: int) -> None:
    """Write a shard of one picture; it has the same size and time whatever its label is."""
    path.parent.mkdir(exist_ok=True)
    with tarfile.open(path, "w") as file:
        for name, content in (("1.png", png(6, 6)), ("1.cls", str(label).encode())):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            file.addfile(member, io.BytesIO(content))
    os.utime(path, (1, 1))


def test_a_shard_of_the_same_size_and_time_is_seen_to_be_another() -> None:
    for label, name in enumerate("ab"):
        one_shard(Path("foreign", f"{name}.tar"), label)
    for _ in range(2):
        found = tar.read_tars(["foreign/a.tar", "foreign/b.tar"], 1, progress=False)
        assert [contents.labels for contents in found] == [[0], [1]]
        Path("foreign/a.tar").rename("c")
        Path("foreign/b.tar").rename("foreign/a.tar")
        Path("c").rename("foreign/b.tar")
        found = tar.read_tars(["foreign/a.tar", "foreign/b.tar"], 1, progress=False)
        assert [contents.labels for contents in found] == [[1], [0]]
        for label, name in enumerate("ab"):
            one_shard(Path("foreign", f"{name}.tar"), label)


def test_a_shard_that_was_replaced_on_a_server_is_read_again() -> None:
    one_shard(Path("foreign/a.tar"), 1)

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            gets.append(self.command)

    gets: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory="foreign")) as http:
        threading.Thread(target=http.serve_forever, daemon=True).start()
        place = f"http://127.0.0.1:{http.server_port}/a.tar"
        for expected in (1, 1, 2):
            if expected == 2:
                one_shard(Path("foreign/a.tar"), 2)
                os.utime("foreign/a.tar", (100, 100))
            (contents,) = tar.read_tars([place], 1, progress=False)
            assert contents.labels == [expected]
        assert gets.count("GET") == 2
        http.shutdown()


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that is read for batches, in small blocks."""
    sizes: list[int] = []
    read = shard_images.read_range

    def count(file: remote.ByteFile, start: int, stop: int) -> memoryview:
        sizes.append(stop - start)
        return read(file, start, stop)

    monkeypatch.setattr(shard_images, "read_range", count)
    monkeypatch.setattr(shard_images, "BLOCK", 4096)
    return sizes


def test_each_process_reads_its_own_and_a_resumed_epoch_what_is_left(shards: Path, reads: list[int]) -> None:
    data = load(shards)

    def cost(rank: int, world: int, first: int) -> int:
        reads.clear()
        seen(batches(data, 16, rank, world).epoch(1, first))
        return sum(reads)

    whole = cost(0, 1, 0)
    assert whole < sum(path.stat().st_size for path in shards.glob("train-*.tar"))
    assert max(cost(rank, 8, 0) for rank in range(8)) < whole / 6
    assert cost(0, 1, 10) < whole / 3


def test_a_large_shard_is_never_in_memory(tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """Of one that all lanes are in, little is read before the first batch."""
    monkeypatch.setattr(shard_images, "WINDOW", 4)
    path = tar_file(tmp_path / "train.tar", samples(0, 2000))
    own = batches(load(path))
    for first in (0, 60):
        reads.clear()
        epoch = own.epoch(1, first)
        next(epoch)
        epoch.close()
        assert sum(reads) < path.stat().st_size / 10


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
)
@pytest.mark.parametrize("name", ["shards.json", "a.tar"])
def test_a_server_that_dribbles_costs_a_line(head: bytes, name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.3")
    with raw_server() as raw:
        raw.reply(lambda _: drip(b"HTTP/1.1 200 OK\r\n" + head))
        place = f"{raw.url.replace('://', '://me:secret@')}/{name}"
        result = cli("train", "lenet", "--data", place, "--epochs", 1, "--plan", "off")
    one_line(result, 1, "http://me:***@127.0.0.1", "fewer than 1,000 bytes came in 0.3 seconds", "tried 4 times")


def test_a_server_that_dribbles_while_it_trains(server: Server) -> None:
    data = load(f"{server.url}/shards.json", on_bad_image="skip")
    with raw_server() as raw:
        raw.reply(lambda _: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 30720\r\n\r\n"))
        shards = [shard._replace(place=f"{raw.url}/x.tar") for shard in data.train.images.index.shards]
        index = replace(data.train.images.index, shards=tuple(shards))
        images = ShardImages(index, torch.arange(3), (1, 6, 6), 1, True)
        with pytest.raises(CnnkitError, match=r"x\.tar: fewer than 1,000 bytes came in 0\.5 seconds"):
            images.read(torch.arange(3))


@pytest.mark.parametrize("harm", ["huge", "digest", "more"])
def test_an_index_on_a_server_that_is_wrong(server: Server, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = server.root / "shards.json"
    content = json.loads(path.read_text())
    if harm == "digest":
        content["samples_sha256"] = "../../x"
        words = "'../../x' is no SHA-256"
    elif harm == "more":
        content["shards"] = content["shards"][:1]
        words = r"samples\.npy: has .* bytes, and may have no more than"
        with (server.root / "samples.npy").open("ab") as file:
            file.write(bytes(5000))
    path.write_text(json.dumps(content))
    if harm == "huge":
        with path.open("ab") as file:
            file.truncate((1 << 28) + 1)
        words = r"it has more than 268,435,456 bytes"
        monkeypatch.setattr(Server, "answer", lambda self, request: _declare(request))
    with pytest.raises(DataError, match=words):
        load(f"{server.url}/shards.json")


def _declare(request: BaseHTTPRequestHandler) -> None:
    request.send_response(200)
    request.end_headers()
    while True:
        request.wfile.write(b" " * (1 << 20))


def test_a_pipe_in_the_place_of_a_shard(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.tar")
    with pytest.raises(DataError, match=r"a\.tar"):
        load(str(tmp_path / "a.tar"))


@pytest.mark.parametrize(
    "place", ["ftp://host/a.tar", "http:///a.tar", "http://host/\x1b[2J.tar", "file:///a/shards.json"]
)
def test_data_by_a_url_that_is_none(place: str) -> None:
    with pytest.raises(DataError) as caught:
        load(place)
    assert "only http:// and https://" in str(caught.value) or "no URL" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("code", "words"), [(404, "the server says 404 Not Found"), (403, "403 Forbidden")])
def test_a_server_that_refuses(server: Server, code: int, words: str) -> None:
    data, tolerant = (load(f"{server.url}/shards.json", on_bad_image=how) for how in ("error", "skip"))
    server.refuse = iter([code])
    with pytest.raises(DataError, match=words):
        seen(batches(data).epoch(1))
    (server.root / "train-00004.tar").unlink()
    assert len(flat(seen(batches(tolerant).epoch(1)))) == 203 - 12
    with pytest.raises(DataError, match=r"other\.json: the server says 404"):
        load(f"{server.url}/other.json")


def test_a_shard_that_changes_on_the_server(server: Server) -> None:
    data = load(f"{server.url}/shards.json")
    with (server.root / "train-00004.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match=r"train-00004\.tar: it has 31,232 bytes, and its index says 30,720"):
        seen(batches(data).epoch(1))


def test_a_server_that_is_gone_stops_a_training_that_skips_too(server: Server) -> None:
    data = load(f"{server.url}/shards.json", on_bad_image="skip")
    server.refuse = repeat(503)
    with pytest.raises(CnnkitError, match=r"503 Service Unavailable .*; tried 4 times") as caught:
        seen(batches(data).epoch(1))
    assert caught.value.exit_code == 1
    with pytest.raises(CnnkitError, match=r"refused .*; tried 4 times"):
        load("http://127.0.0.1:9/shards.json")


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in Linux' /proc")
def test_few_files_are_open_and_none_is_left(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tars() -> int:
        found = 0
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found += link.readlink().suffix == ".tar"
        return found

    monkeypatch.setattr(shard_images, "BLOCK", 1)
    pack_folder(folder, tmp_path / "many", images_per_shard=4, progress=False)
    own = batches(load(tmp_path / "many"), 4)
    most = max(tars() for _ in own.epoch(1))
    assert 0 < most <= 3 * LANES
    assert tars() == 0
    started = own.epoch(1)
    next(started)
    started.close()
    assert tars() == 0


# packing


def test_packing_changes_no_byte_and_is_the_same_each_time(folder: Path, shards: Path, tmp_path: Path) -> None:
    files = {path.name: path.read_bytes() for path in shards.iterdir()}
    pack_folder(folder, tmp_path / "again", images_per_shard=12, progress=False)
    assert {path.name: path.read_bytes() for path in (tmp_path / "again").iterdir()} == files
    pack_folder(folder, tmp_path / "other", images_per_shard=12, seed=1, progress=False)
    assert (tmp_path / "other" / "train-00000.tar").read_bytes() != files["train-00000.tar"]
    with tarfile.open(shards / "validation-00000.tar") as shard:
        names = shard.getnames()
        assert re.fullmatch(r"val/[abc]/n_3\d\d-\d{8}\.png", names[0])
        assert names[1] == names[0][:-3] + "cls"
        number = int(names[0][8:11])
        assert shard.extractfile(names[0]).read() == picture(number)
        assert shard.extractfile(names[1]).read() == str(label(number)).encode()
    index = json.loads(files["shards.json"])
    assert {row["split"] for row in index["shards"]} == {"train", "validation", "test"}
    assert {row["images"] for row in index["shards"] if row["split"] == "train"} <= {11, 12}


def test_a_flat_folder_gives_the_test_set_of_the_folder(folder: Path, tmp_path: Path) -> None:
    root = folder / "train"
    pack_folder(root, tmp_path / "flat", megabytes=1, test_fraction=0.2, progress=False)
    plain, packed = load_folder(root, test_fraction=0.2, progress=False), load(tmp_path / "flat")
    assert plain.test is not None
    assert packed.test is not None
    assert sorted(numbers(packed.test.images[:])) == sorted(numbers(plain.test.images[:]))
    assert sorted(numbers(packed.train.images[:])) == sorted(numbers(plain.train.images[:]))
    assert len(list((tmp_path / "flat").glob("train-*.tar"))) == 1


def test_megabytes_bound_a_shard(tmp_path: Path) -> None:
    noise = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "noise" / "ab"[number % 2] / f"{number}.bmp"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise.integers(0, 256, (200, 200, 3), np.uint8)).save(path)
    index = pack_folder(tmp_path / "noise", tmp_path / "out", megabytes=1, progress=False)
    assert [shard.images for shard in index.shards] == [7, 7, 7, 7, 8, 4]
    assert max(shard.bytes or 0 for shard in index.shards) < 1.1e6


def test_what_cannot_be_packed(folder: Path, tmp_path: Path) -> None:
    bad = folder / "train" / "a" / "bad.png"
    bad.write_bytes(picture(0)[:-30])
    with pytest.raises(DataError, match=r"train/a/bad\.png .*cnnkit data check .*--on-bad-image skip"):
        pack_folder(folder, tmp_path / "out", progress=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "photos"], "nothing is left behind"
    index = pack_folder(folder, tmp_path / "out", on_bad_image="skip", progress=False)
    assert [path for path, _ in index.problems] == ["train/a/bad.png"]
    assert len(load(tmp_path / "out").train) == 203
    before = sorted((tmp_path / "out").iterdir())
    with pytest.raises(UsageError, match="out is there and not empty"):
        pack_folder(folder, tmp_path / "out", progress=False)
    assert sorted((tmp_path / "out").iterdir()) == before
    for options, words in [
        ({"megabytes": 0}, "megabytes must be"),
        ({"images_per_shard": 0}, "images_per_shard must be"),
    ]:
        with pytest.raises(UsageError, match=words):
            pack_folder(folder, tmp_path / "new", progress=False, **options)
    with pytest.raises(UsageError, match="lies within"):
        pack_folder(folder, folder / "train" / "out", progress=False)
    with pytest.raises(DataError, match="no such folder"):
        pack_folder(tmp_path / "nowhere", tmp_path / "new", progress=False)
    (folder / "train" / "empty").mkdir()
    with pytest.raises(DataError, match="class 'empty' has no image"):
        pack_folder(folder, tmp_path / "new", progress=False)


def test_a_disk_that_does_not_keep_what_it_is_given(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    add = pack._add
    monkeypatch.setattr(pack, "_add", lambda archive, name, content: add(archive, name, content) + 512)
    with pytest.raises(CnnkitError, match="is not what was written"):
        pack_folder(folder, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_verb(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "test" / "a" / "bad.jpg").write_bytes(b"")
    data_pack.pack(folder, Path("out"), images_per_shard=50, on_bad_image="skip")
    captured = capsys.readouterr()
    assert captured.err.startswith("cnnkit: left out: test/a/bad.jpg: ")
    assert re.search(r"train\s+5\s+203\s+0\.\d", captured.out)
    assert "3 classes; next: cnnkit train NET --data out" in captured.out
    assert len(load("out").train) == 203
