"""Corrupt caches: rebuilt with a line in the log, never used, no traceback."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnkit.data.folder import cache as cache_module
from cnnkit.data.folder import store as store_module
from cnnkit.data.folder.store import Opened, open_images
from cnnkit.data.images.decode import THUMB
from cnnkit.data.reading import Reading
from helpers.images import save_noise
from helpers.records import JUNK, rewrite

SIZE = (9, 7)
PATHS = [f"{number}.png" for number in range(6)]


@pytest.fixture
def decoded(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are decoded."""
    seen: list[str] = []
    decode = store_module._decode

    def spy(place: str, path: str, *rest: Any) -> Any:
        seen.append(path)
        return decode(place, path, *rest)

    monkeypatch.setattr(store_module, "_decode", spy)
    return seen


@pytest.fixture
def photos() -> Path:
    for number, path in enumerate(PATHS):
        save_noise(Path("photos", path), number, SIZE)
    return Path("photos")


def opened(root: Path = Path("photos"), **how: Any) -> Opened:
    return open_images(root, PATHS, Reading(**({"image_size": SIZE, "workers": 2, "progress": False} | how)))


def check(found: Opened) -> None:
    """Assert that what is opened is what the files hold."""
    expected = np.stack([np.asarray(Image.open(f"photos/{path}")) for path in PATHS])
    assert (found.images[:].permute(0, 2, 3, 1).numpy() == expected).all()
    assert found.paths == tuple(PATHS)
    assert not found.problems
    assert (found.facts.thumbs().reshape(len(PATHS), -1).std(1) > 0).all()


def place() -> Path:
    (found,) = (path for path in Path("cache/images").iterdir() if path.is_dir())
    return found


def overwrite(path: Path, start: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(content)


ROW, SMALL = SIZE[0] * SIZE[1] * 3, THUMB * THUMB * 3
FILES: dict[str, tuple[Callable[[Path], object], int]] = {
    "pixels cut": (lambda at: os.truncate(at / "pixels.u8", 2 * ROW + 5), 6),
    "pixels empty": (lambda at: (at / "pixels.u8").write_bytes(b""), 6),
    "no pixels": (lambda at: (at / "pixels.u8").unlink(), 6),
    "a pipe for pixels": (lambda at: ((at / "pixels.u8").unlink(), os.mkfifo(at / "pixels.u8")), 6),
    "pixels of other bytes": (lambda at: (at / "pixels.u8").write_bytes(os.urandom(6 * ROW)), 6),
    "two rows changed": (lambda at: overwrite(at / "pixels.u8", 3 * ROW - 1, b"\x01\x02"), 2),
    "one bit": (lambda at: overwrite(at / "pixels.u8", 5, bytes([(at / "pixels.u8").read_bytes()[5] ^ 4])), 1),
    "rows swapped": (lambda at: overwrite(at / "pixels.u8", 0, swapped((at / "pixels.u8").read_bytes())), 2),
    "thumbnails cut": (lambda at: os.truncate(at / "thumbs.u8", 100), 6),
    "a thumbnail changed": (lambda at: overwrite(at / "thumbs.u8", SMALL, b"abcdefgh" * 8), 1),
    "both": (lambda at: [overwrite(at / name, 0, b"12345678") for name in ("pixels.u8", "thumbs.u8")], 1),
}


def swapped(rows: bytes) -> bytes:
    return rows[ROW : 2 * ROW] + rows[:ROW]


@pytest.mark.parametrize("harm", FILES)
def test_corrupt_pixels_and_thumbnails_are_rebuilt(
    harm: str, photos: Path, decoded: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    first = opened().facts.thumbs().copy()
    del decoded[:]
    check(opened())
    assert not decoded
    change, count = FILES[harm]
    change(place())
    found = opened()
    check(found)
    assert (found.facts.thumbs() == first).all()
    assert len(decoded) == count
    assert [record.getMessage() for record in caplog.records] == [
        f"{found_place()}: {count} of 6 images are corrupt and will be decoded again"
    ]
    check(opened())
    assert len(decoded) == count, "and that is kept"
    assert len(caplog.records) == 1


def found_place() -> str:
    return str(Path(os.environ["CNNKIT_CACHE"]) / "images" / place().name)


def test_only_used_rows_are_verified_and_large_files_after_changes(
    photos: Path, decoded: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    opened()
    del decoded[:]
    looked: list[int] = []
    corrupt = cache_module.Rows.corrupt

    def spy(rows: Any, numbers: Any, workers: int) -> set[int]:
        looked.extend(numbers if rows.path.name == "pixels.u8" else ())
        return corrupt(rows, numbers, workers)

    monkeypatch.setattr(cache_module.Rows, "corrupt", spy)
    open_images(photos, PATHS[:2], Reading(image_size=SIZE, progress=False))
    assert len(looked) == 2
    opened()
    monkeypatch.setattr(cache_module, "ALWAYS_CHECKED", 0)
    del looked[:], decoded[:]
    check(opened())
    assert not looked
    overwrite(place() / "pixels.u8", 0, b"other bytes")
    check(opened())
    assert len(looked) == 6
    assert len(decoded) == 1
    del looked[:]
    check(opened())
    assert not looked


KEYS = ("version", "canvas", "rows", "thumbs", "row_sums", "thumb_sums", "row_stamp", "files")


def keys(content: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The ways to each value in an index."""
    within = [("canvas", number) for number in range(3)] + [("row_sums", 0), ("thumb_sums", 5), ("row_stamp", 1)]
    entry = [("files", "1.png", number) for number in range(11)]
    return [*((key,) for key in KEYS), *within, ("files", "1.png"), *entry]


def test_junk_in_the_index_is_harmless(photos: Path) -> None:
    opened()
    index = place() / "index.json"
    whole = index.read_bytes()
    for way in keys(json.loads(whole)):
        for junk in JUNK:
            index.write_bytes(whole)

            def put(content: dict[str, Any], way: tuple[Any, ...] = way, junk: Any = junk) -> None:
                for key in way[:-1]:
                    content = content[key]
                content[way[-1]] = junk

            rewrite(index, put)
            found = opened()
            assert found.images.shape[1:] == (3, *SIZE), (way, junk)
            harmless = way[-1] in ("row_stamp",) or way[:1] + way[2:] in {("files", 7), ("files", 10)}
            if not harmless:
                check(found)


@pytest.mark.parametrize(
    "junk",
    [
        b"",
        b"{",
        b"junk",
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"null",
        b"[]",
        b'{"version": 2}',
        b"1" * 9999,
    ],
)
def test_invalid_index_is_rebuilt(junk: bytes, photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    opened()
    (place() / "index.json").write_bytes(junk)
    check(opened())
    assert "index.json is corrupt, or of another version" in caplog.text
    assert "will be rebuilt" in caplog.text


def test_changed_digit_of_the_index_is_detected(photos: Path, decoded: list[str]) -> None:
    opened()
    index = place() / "index.json"
    text = index.read_text()
    at = text.index('"1.png"')
    index.write_text(text[:at] + text[at:].replace(", 1, 1, ", ", 1, 2, ", 1))
    assert index.read_text() != text
    check(opened())
    assert len(decoded) == 12


def test_leftovers_of_killed_process_are_removed(photos: Path) -> None:
    opened()
    left = [place() / f".index.json.{'0' * 16}.tmp", place() / ".index.json.backup.tmp"]
    for path in left:
        path.write_text("half an index")
    check(opened())
    assert [path.exists() for path in left] == [False, True]
