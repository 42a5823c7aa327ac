"""The cache of decoded images: when it is used, updated, rebuilt and shared."""

import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from cnnkit.core.errors import CnnkitError
from cnnkit.data.folder import cache as cache_module
from cnnkit.data.folder import store as store_module
from helpers.folders import SIZE, contents, flat, load, picture, place


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
