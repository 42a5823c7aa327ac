"""Folders of one's own pictures: how they lie, what is wrong with them, the cache of decoded pictures, streaming."""

import io
import json
import os
import resource
import shutil
import struct
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.parallel import ahead
from cnnkit.data import (
    Batches,
    Dataset,
    Preprocess,
    channel_statistics,
    load_dataset,
    load_folder,
    read_image,
    scan_folder,
)
from cnnkit.data.folder import cache as cache_module
from cnnkit.data.folder import store as store_module

SIZE = (8, 8)
DECODERS = ("decode_image", "decode_with_thumb", "thumbnail")


def picture(path: Path | str, seed: int | None = None, size: tuple[int, int] = SIZE, mode: str = "L") -> Path:
    """Write a picture of noise; without a seed, its path is one."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    seed = zlib.crc32(str(path).encode()) if seed is None else seed
    shape = size if mode == "L" else (*size, 3)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, shape, np.uint8)).save(path)
    return path


def flat(root: str = "photos", count: int = 10, classes: tuple[str, ...] = ("cat", "dog"), **how: object) -> Path:
    for name in classes:
        for number in range(count):
            picture(Path(root, name, f"{number:02}.png"), **how)
    return Path(root)


def load(root: Path | str, **how: object) -> Dataset:
    return load_folder(Path(root), **({"workers": 2, "progress": False} | how))


def contents(root: Path, data: Dataset) -> None:
    """Assert that each image of the sets is what its file holds."""
    for part in (data.train, data.validation, data.test):
        if part is not None:
            images = part.images[torch.arange(len(part))]
            assert images.shape == (len(part), *part.images.shape[1:]) == tuple(part.images.shape)
            assert images.permute(0, 2, 3, 1).is_contiguous(), "channels last"
            assert len(part.names) == len(part) == len(images)
            for image, name, label in zip(images, part.names, part.labels.tolist(), strict=True):
                assert image.equal(read_image(root / name, image.shape[0], tuple(image.shape[1:]))), name
                assert data.classes[label] in name.split("/")


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The contents that are decoded for the cache."""
    seen: list[bytes] = []
    for name in DECODERS:
        monkeypatch.setattr(store_module, name, counting(getattr(store_module, name), seen))
    return seen


def counting(function: Callable[..., Any], seen: list[bytes]) -> Callable[..., Any]:
    def decode(content: bytes, *arguments: object, **options: object) -> Any:
        seen.append(content)
        return function(content, *arguments, **options)

    return decode


# --- how a folder lies


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_a_folder_for_each_split(validation: str) -> None:
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
    assert not found.complaints()
    data = load("photos")
    assert [len(part) for part in (data.train, data.validation, data.test)] == [3, 2, 2]


def test_what_is_not_a_picture_is_passed_over() -> None:
    flat("photos", 2)
    for name in ("photos/.git/x.png", "photos/cat/.thumbs/x.png", "photos/cat/.x.png", "photos/loose.png"):
        picture(name)
    for name in ("photos/readme.txt", "photos/cat/notes.csv", "photos/cat/png"):
        Path(name).write_text("x")
    assert scan_folder(Path("photos")).splits["train"].paths == ("cat/00.png", "cat/01.png", "dog/00.png", "dog/01.png")


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm", "JPG"])
def test_the_fields_formats(suffix: str) -> None:
    for name in ("a", "b"):
        picture(f"photos/{name}/1.{suffix}")
    assert len(load("photos", test_fraction=0).train) == 2


def test_the_order_is_that_of_the_names_not_of_the_disk() -> None:
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


def test_links_are_followed_and_circles_end() -> None:
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
        (lambda: Path("photos").mkdir(), "photos has no folder of images in it"),
        (lambda: Path("photos/train").mkdir(parents=True), "photos/train has no folder of images in it"),
        (lambda: mixed("cat"), "photos has only one class, 'cat'"),
        (lambda: (mixed("cat", "dog"), Path("photos/cow").mkdir()), "class 'cow' has no image: add some"),
        (lambda: mixed("train/a", "train/b", "test/a", "test/c"), "'c' has images in test, but none in train"),
        (lambda: mixed("val/a", "val/b", "test/a"), "photos has test/, val/ but no train/"),
        (lambda: mixed("train/a", "val/a", "valid/a"), "both val/ and valid/ for validation"),
        (lambda: mixed("train/a", "Train/a"), "both Train/ and train/ for train"),
        (lambda: mixed("train/a", "train/b", "cat"), "images in cat/ beside it"),
    ],
)
def test_what_no_network_can_be_trained_on(make: Callable[[], object], reason: str) -> None:
    make()
    with pytest.raises(DataError, match=reason):
        load("photos")


def test_folders_without_pictures_may_lie_beside_the_splits() -> None:
    mixed("train/a", "train/b")
    Path("photos/annotations").mkdir()
    Path("photos/annotations/a.json").write_text("{}")
    assert len(load("photos").train) == 2


def test_all_complaints_are_told_at_once() -> None:
    mixed("train/a", "train/b", "val/a", "test/c", "test/d")
    assert len(scan_folder(Path("photos")).complaints()) == 2
    with pytest.raises(DataError, match=r"'c' has images in test, but none in train.*; .*'d' has images in test"):
        load("photos")


# --- as a data set


def test_a_flat_folder_has_the_same_test_set_everywhere() -> None:
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
    with pytest.raises(UsageError, match="the fraction to set aside"):
        load("photos", test_fraction=1)


GOLDEN_TEST = ("cat/02.bmp", "cat/17.bmp", "dog/04.bmp", "dog/19.bmp")


def test_names_win_and_paths_are_folders(monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(UsageError, match=r"unknown data set 'photo'.*nor is there such a folder"):
        load_dataset("photo")
    with pytest.raises(UsageError, match="photos is a place of its own"):
        load_dataset("photos", Path("/usr"))


def test_a_subset_reads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
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


def test_one_size_is_kept_and_many_are_fitted() -> None:
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


def test_a_turned_photo_counts_as_it_is_shown() -> None:
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


def test_grey_if_all_are() -> None:
    root = flat("photos", 2)
    assert load(root).train.images.shape[1] == 1
    assert load(root, channels=3).train.images.shape[1] == 3
    picture(root / "dog/red.png", mode="RGB")
    assert load(root).train.images.shape[1] == 3
    assert load(root, channels=1).train.images.shape[1] == 1
    with pytest.raises(UsageError, match="channels must be 1 or 3, not 2"):
        load(root, channels=2)


# --- the cache


def place() -> Path:
    (found,) = Path("cache/images").glob("photos-*")
    return found


def test_the_second_start_decodes_nothing(decoded: list[bytes]) -> None:
    root = flat("photos", 10)
    contents(root, load(root))
    assert len(decoded) == 20
    contents(root, load(root))
    assert len(decoded) == 20


def test_a_touched_file_is_not_decoded_again(decoded: list[bytes]) -> None:
    root = flat("photos", 3)
    load(root)
    for path in root.rglob("*.png"):
        os.utime(path, (1, 1))
    contents(root, load(root))
    assert len(decoded) == 6
    index = (place() / "index.json").stat().st_mtime_ns
    load(root)
    assert (place() / "index.json").stat().st_mtime_ns == index, "the new times are kept"


@pytest.mark.parametrize("same_size", [True, False])
def test_a_changed_file_alone_is_decoded_again(decoded: list[bytes], same_size: bool) -> None:
    root = flat("photos", 3)
    for path in root.rglob("*.png"):
        Image.open(path).save(path.with_suffix(".bmp"))
        path.unlink()
    load(root)
    del decoded[:]
    path = root / "cat/01.bmp"
    before = path.stat()
    picture(path, seed=1, size=SIZE if same_size else (4, 4))
    assert (path.stat().st_size == before.st_size) == same_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns + 1))
    data = load(root, image_size=SIZE, test_fraction=0)
    assert decoded == [path.read_bytes()]
    contents(root, data)


def test_files_that_come_and_go(decoded: list[bytes]) -> None:
    root = flat("photos", 4)
    load(root)
    del decoded[:]
    (root / "cat/00.png").unlink()
    picture(root / "dog/new.png")
    (root / "dog/01.png").rename(root / "dog/renamed.png")
    data = load(root, test_fraction=0)
    contents(root, data)
    assert len(data.train) == 8
    assert decoded == [(root / "dog/new.png").read_bytes()]
    assert (place() / "pixels.u8").stat().st_size == 9 * 64


def test_what_belongs_to_no_file_is_thrown_away_in_time(decoded: list[bytes]) -> None:
    root = flat("photos", 10)
    load(root)
    for path in list(root.rglob("0[0-6].png")):
        path.unlink()
    contents(root, load(root))
    assert (place() / "pixels.u8").stat().st_size == 6 * 64


def test_another_size_takes_the_place_of_the_old_one(decoded: list[bytes]) -> None:
    root = flat("photos", 2)
    before = load(root, image_size=(4, 4), test_fraction=0)
    kept = before.train.images[:]
    contents(root, load(root, image_size=(6, 6), channels=3))
    assert len(decoded) == 8
    assert (place() / "pixels.u8").stat().st_size == 4 * 6 * 6 * 3
    assert before.train.images[:].equal(kept), "who has the old file mapped still sees it"


def test_a_moved_folder_is_another_one_and_the_old_cache_goes() -> None:
    root = flat("photos", 2)
    load(root)
    shutil.move(root, "moved")
    contents(Path("moved"), load("moved"))
    (left,) = [path for path in Path("cache/images").iterdir() if path.is_dir()]
    assert left.name.startswith("moved-")


def test_two_folders_of_one_name_have_two_caches(decoded: list[bytes]) -> None:
    one, two = flat("one/photos", 2), flat("two/photos", 2)
    for root in (one, two, one, two):
        contents(root, load(root))
    assert len(decoded) == 8


def test_a_damaged_cache_is_made_anew(decoded: list[bytes]) -> None:
    root = flat("photos", 2)
    load(root)
    (place() / "index.json").write_text('{"version": 1, "canvas"')
    contents(root, load(root))
    index = json.loads((place() / "index.json").read_text())
    (place() / "index.json").write_text(json.dumps(index | {"version": 0}))
    contents(root, load(root))
    with (place() / "pixels.u8").open("r+b") as file:
        file.truncate(100)
    contents(root, load(root))
    (place() / "pixels.u8").unlink()
    contents(root, load(root))
    assert len(decoded) == 20


def test_an_interrupted_start_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch, decoded: list[bytes]) -> None:
    """Whole chunks are kept; half a row that a kill has left behind is cut off."""
    root = flat("photos", 10)
    monkeypatch.setattr(store_module, "CHUNK", 4)
    decode = store_module.decode_with_thumb

    def stops(content: bytes, *arguments: object, **options: object) -> Any:
        if len(decoded) >= 9:
            raise KeyboardInterrupt
        return decode(content, *arguments, **options)

    monkeypatch.setattr(store_module, "decode_with_thumb", stops)
    with pytest.raises(KeyboardInterrupt):
        load(root, workers=1)
    assert (place() / "pixels.u8").stat().st_size == 8 * 64
    assert not list(place().glob(".*"))
    with (place() / "pixels.u8").open("ab") as file:
        file.write(b"half a row")
    monkeypatch.setattr(store_module, "decode_with_thumb", decode)
    del decoded[:]
    contents(root, load(root))
    assert len(decoded) == 12


def test_a_long_start_is_kept_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a `kill -9` finds: an index of the rows that were written before."""
    root = flat("photos", 4)
    monkeypatch.setattr(store_module, "CHUNK", 2)
    monkeypatch.setattr(cache_module, "COMMIT_SECONDS", 0)
    rows = []
    write = cache_module.atomic_write

    def spy(path: Path, content: str) -> None:
        write(path, content)
        if path.name == "index.json":
            rows.append(json.loads(content)["rows"])

    monkeypatch.setattr(cache_module, "atomic_write", spy)
    load(root)
    assert rows == [2, 4, 6, 8, 8]


LOAD = """
import sys, zlib
from pathlib import Path
from cnnkit.data import load_folder
from cnnkit.data.folder import store
count, decode = 0, store.decode_with_thumb
def counting(*arguments, **options):
    global count
    count += 1
    return decode(*arguments, **options)
store.decode_with_thumb = counting
data = load_folder(Path("photos"), test_fraction=0)
print(count, zlib.crc32(data.train.images[:].contiguous().numpy().tobytes()))
"""


def start_loading() -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", LOAD], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_of_two_processes_one_decodes() -> None:
    flat("photos", 200)
    processes = [start_loading(), start_loading()]
    answers = [process.communicate() for process in processes]
    assert [process.returncode for process in processes] == [0, 0], answers
    counts, sums = zip(*(out.split() for out, _ in answers), strict=True)
    assert sorted(counts) == ["0", "400"]
    assert len(set(sums)) == 1


@pytest.mark.parametrize("room", [2000, 20_000])
def test_a_full_disk_is_told_and_given_back(room: int) -> None:
    """A limit on the size of files, as a disk that is full, met by the pixels or by the thumbnails."""
    root = flat("photos", 40)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(CnnkitError, match=r"cannot write .*photos-.*: .*make room or set \$CNNKIT_CACHE"):
            load(root)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(place().glob("*.u8"))
    contents(root, load(root))


# --- streaming


def test_what_is_too_large_for_the_budget_is_streamed(monkeypatch: pytest.MonkeyPatch, decoded: list[bytes]) -> None:
    root = flat("photos", 10)
    for how in ({"budget": 20 * 64 - 1}, {"budget": 0}):
        data = load(root, **how)
        contents(root, data)
        assert not (place() / "pixels.u8").exists()
    free = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=2 * 20 * 64 - 1))
    contents(root, load(root))
    assert len(decoded) == 20, "each is decoded once, for its thumbnail and to see that it can be"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=2 * 20 * 64))
    contents(root, load(root, budget=20 * 64))
    assert len(decoded) == 40


@pytest.mark.parametrize("budget", [0, 10**9])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_batches_from_the_disk_are_those_from_memory(budget: int, shard: tuple[int, int]) -> None:
    root = flat("photos", 12)
    stored = load(root, budget=budget).train
    memory = type(stored)(stored.images[:], stored.labels, stored.names)
    one, other = (Batches(data, 5, Preprocess((16, 16)), seed=1, shard=shard) for data in (stored, memory))
    for ours, theirs in ((one.epoch(1), other.epoch(1)), (one.epoch(2, 3), other.epoch(2, 3)), (one, other)):
        for (x, y), (expected, labels) in zip(ours, theirs, strict=True):
            assert x.equal(expected)
            assert x.stride() == expected.stride()
            assert y.equal(labels)
    assert channel_statistics(stored.images) == channel_statistics(memory.images)


def test_statistics_of_what_is_on_the_disk_look_at_some(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load(flat("photos", 12), test_fraction=0).train
    monkeypatch.setattr("cnnkit.data.storage.SAMPLE", 4)
    spread = stored.images[torch.tensor([0, 7, 15, 23])]
    assert channel_statistics(stored.images) == channel_statistics(spread)


def test_threads_work_in_order_and_not_for_those_who_left() -> None:
    done = []

    def work(item: int) -> int:
        done.append(item)
        time.sleep(0.001 * (item % 3))
        return item

    assert list(ahead(work, range(50), 4, 8)) == list(range(50))
    del done[:]
    results = ahead(work, range(1000), 2, 1000)
    assert next(results) == 0
    results.close()
    assert len(done) < 500


def test_streaming_ends_with_its_batches() -> None:
    data = load(flat("photos", 30), budget=0).train
    before = threading.active_count()
    batches = Batches(data, 2, Preprocess(SIZE), seed=0)
    for stop_after in (1, 5, 1000):
        epoch = batches.epoch(1)
        for number, _ in enumerate(epoch, 1):
            if number == stop_after:
                break
        epoch.close()
        assert threading.active_count() == before


def resident() -> int:
    """Bytes of memory that belong to no file."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_memory_stays_flat_over_an_epoch() -> None:
    for name in ("a/1", "b/1"):
        picture(f"photos/{name}.bmp", size=(512, 512), mode="RGB")
    for number in range(2, 60):
        shutil.copy("photos/a/1.bmp", f"photos/a/{number}.bmp")
    data = load("photos", test_fraction=0).train
    epoch = Batches(data, 1, Preprocess((512, 512)), seed=0).epoch(1)
    for number, _ in enumerate(epoch):
        if number == 10:
            before = resident()
    assert resident() - before < 50 * 512 * 512 * 3 / 3


# --- bad pictures


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def saved(kind: str, **how: object) -> bytes:
    array = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(array).save(buffer, kind, **how)
    return buffer.getvalue()


def damaged(content: bytes, first: int, last: int) -> bytes:
    return content[:first] + bytes(byte ^ 0xA5 for byte in content[first:last]) + content[last:]


BOMB = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">II5B", 50_000, 50_000, 8, 2, 0, 0, 0))
BAD: dict[str, tuple[bytes | None, str]] = {
    "unreadable.png": (None, "cannot be read"),
    "cut.jpg": (saved("JPEG")[:1500], "corrupt or cut short"),
    "cut.png": (saved("PNG")[:1500], "corrupt or cut short"),
    "text.jpg": (b"<html><body>404 not found</body></html>", "not an image"),
    "empty.png": (b"", "not an image"),
    "bomb.png": (BOMB + png_chunk(b"IDAT", zlib.compress(bytes(1000))), "more memory than max_pixels"),
    "deflate.png": (damaged(saved("PNG"), 60, 400), "corrupt or cut short"),
    "drawing.png": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG images are not read"),
    "phone.jpg": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200), ""),
    "broken.gif": (saved("GIF")[:1500], "corrupt or cut short"),
    "broken.tif": (damaged(saved("TIFF"), 8, 60), ""),
    "broken.webp": (saved("WEBP")[:600], ""),
}


def with_bad_ones(root: Path) -> Path:
    """Put twelve files that cannot be read, of ten kinds, among the good pictures of a class."""
    for name, (content, _) in BAD.items():
        if content is None:
            (root / "cat" / name).symlink_to("nowhere")
        else:
            (root / "cat" / name).write_bytes(content)
    (root / "cat/00.png").rename(root / "cat/really a png.jpg")
    return root


@pytest.mark.parametrize("budget", [0, 10**9])
def test_bad_pictures_are_left_out_and_named(budget: int, caplog: pytest.LogCaptureFixture) -> None:
    root = with_bad_ones(flat("photos", 10))
    for _ in range(2):
        data = load(root, on_bad_image="skip", budget=budget, image_size=SIZE, test_fraction=0)
        batches = Batches(data.train, 6, Preprocess(SIZE), seed=0)
        labels = torch.cat([y for _, y in batches.epoch(1)])
        assert torch.bincount(labels).tolist() == [10, 10]
        assert torch.bincount(torch.cat([y for _, y in batches])).tolist() == [10, 10]
        told = dict(data.skipped)
        assert set(told) == {f"cat/{name}" for name in BAD}
        for name, (_, reason) in BAD.items():
            assert reason in told[f"cat/{name}"], told
    assert "cat/really a png.jpg" in data.train.names
    assert not caplog.messages


def test_bad_pictures_are_an_error_at_the_start() -> None:
    root = with_bad_ones(flat("photos", 10))
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            load(root, image_size=SIZE)
        message = str(caught.value)
        assert "photos: 12 of 32 images cannot be read: cat/bomb.png (refused: 50,000 x 50,000" in message
        assert "and 7 more; " in message
        assert "cnnkit data check photos" in message
        assert "--on-bad-image skip" in message
        assert "\n" not in message


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_an_image_of_a_stream_that_becomes_corrupt_is_an_error_when_it_is_met() -> None:
    root = flat("photos", 10)
    data = load(root, budget=0, test_fraction=0).train
    cut_short(root / "cat/05.png")
    before = threading.active_count()
    with pytest.raises(DataError, match=r"cat/05.png: .*cut short.*--on-bad-image skip"):
        list(Batches(data, 4, Preprocess(SIZE), seed=0).epoch(1))
    assert threading.active_count() == before


def test_labels_and_random_numbers_go_with_their_pictures() -> None:
    """Streaming leaves out pictures; what is left of a batch is augmented as it would be among all."""
    root = flat("photos", 10)

    class Stamp:
        numbers = 2

        def __call__(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return (u[:, :1, None, None] * 256).to(torch.uint8).expand_as(images)

    data = load(root, budget=0, test_fraction=0, on_bad_image="skip").train
    for name in ("cat/03.png", "dog/07.png"):
        cut_short(root / name)
    fine = type(data)(torch.zeros(20, 1, *SIZE, dtype=torch.uint8), torch.arange(20))
    bad = [data.names.index(name) for name in ("cat/03.png", "dog/07.png")]
    ours, theirs = (Batches(d, 6, Preprocess(SIZE), seed=0, augment=Stamp()) for d in (data, fine))
    for (x, y), (expected, rows) in zip(ours.epoch(3), theirs.epoch(3), strict=True):
        kept = [number for number, row in enumerate(rows.tolist()) if row not in bad]
        assert x.equal(expected[kept])
        assert y.equal(data.labels[rows[kept]])


def test_a_batch_without_any_picture() -> None:
    root = flat("photos", 2)
    data = load(root, budget=0, test_fraction=0, on_bad_image="skip").train
    for path in root.rglob("*.png"):
        path.unlink()
    assert list(Batches(data, 2, Preprocess(SIZE))) == []
    with pytest.raises(DataError, match="batch 0 of epoch 1 has no image"):
        next(Batches(data, 2, Preprocess(SIZE), seed=0).epoch(1))


def test_a_class_of_which_nothing_can_be_read() -> None:
    root = flat("photos", 2)
    for path in (root / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image of class 'dog' is left to train on"):
        load(root, on_bad_image="skip")
    for path in (root / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="4 of 4 images cannot be read"):
        load(root)


def test_what_was_bad_may_be_good_another_time(decoded: list[bytes]) -> None:
    root = flat("photos", 3)
    good = (root / "cat/00.png").read_bytes()
    (root / "cat/00.png").write_bytes(good[:-30])
    (root / "cat/link.png").symlink_to("later.bin")
    assert len(load(root, on_bad_image="skip").skipped) == 2
    (root / "cat/00.png").write_bytes(good)
    (root / "cat/later.bin").write_bytes(good)
    del decoded[:]
    data = load(root, test_fraction=0)
    contents(root, data)
    assert len(decoded) == 2


def test_what_is_no_file_is_not_waited_for() -> None:
    root = flat("photos", 2)
    os.mkfifo(root / "cat/pipe.png")
    assert load(root, on_bad_image="skip").skipped == (("cat/pipe.png", "not a file"),)


def test_progress_is_told_without_a_terminal(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    root = flat("photos", 4)
    load(root, progress=True)
    assert capfd.readouterr().err == ""
    monkeypatch.setattr("cnnkit.core.progress.PLAIN_SECONDS", 0)
    load(root, progress=True, image_size=(4, 4))
    lines = capfd.readouterr().err.splitlines()
    assert lines[:2] == ["looking at photos: 8 of 8", "decoding photos: 8 of 8"]
    assert lines[-1] == "comparing images: 64 of 64"
    load(root, image_size=(3, 3))
    assert capfd.readouterr().err == ""
