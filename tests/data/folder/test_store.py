"""The store of decoded images: digests, thumbnails, and detection of changed files."""

import hashlib
import os
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data.check.file import examine
from cnnkit.data.files import read_with_stamp
from cnnkit.data.folder import store as store_module
from cnnkit.data.folder.store import Opened, open_images
from cnnkit.data.images.decode import THUMB, thumbnail
from cnnkit.data.reading import Reading
from helpers.images import smooth_image

SIZE = (40, 30)
photo = partial(smooth_image, size=SIZE)


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The files that are read to be decoded."""
    seen: list[str] = []
    monkeypatch.setattr(store_module, "read_with_stamp", spy(read_with_stamp, seen))
    return seen


def spy(function: Callable[..., Any], seen: list[str]) -> Callable[..., Any]:
    def call(path: str) -> Any:
        seen.append(os.path.relpath(path, "photos"))
        return function(path)

    return call


def photos(**sizes: tuple[int, int]) -> list[str]:
    """Write images of several formats, and return their paths, which are not sorted."""
    Path("photos").mkdir()
    paths = []
    for number, suffix in enumerate(("png", "jpg", "bmp", "gif", "webp", "tif", "ppm", "jpeg")):
        paths.insert(0, f"{number}.{suffix}")
        photo(number, size=sizes.get(suffix, SIZE)).save(Path("photos", paths[0]))
    return paths


def opened(paths: list[str], **how: Any) -> Opened:
    return open_images(Path("photos"), paths, Reading(**({"workers": 2, "progress": False, "image_size": SIZE} | how)))


@pytest.mark.parametrize("budget", [0, 10**9])
def test_digests_and_thumbnails_match_the_files(budget: int, read: list[str]) -> None:
    paths = photos(jpeg=(900, 1200))
    Path("photos/cut.png").write_bytes(Path("photos/0.png").read_bytes()[:-60])
    asked = [*paths[:3], "cut.png", *paths[3:]]
    for number in range(2):
        found = opened(asked, budget=budget)
        assert list(found.problems) == ["cut.png"]
        contents = [Path("photos", path).read_bytes() for path in paths]
        assert found.digests == tuple(hashlib.blake2b(content, digest_size=16).hexdigest() for content in contents)
        assert found.facts.thumbs().tolist() == [thumbnail(content).tolist() for content in contents]
        assert sorted(read) == sorted(asked), f"the second start ({number}) reads nothing but what could not be decoded"


def test_thumbnails_are_independent_of_image_size_and_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = photos(jpeg=(900, 1200), png=(300, 200))
    first = opened(paths).facts.thumbs()
    assert first.shape == (len(paths), THUMB * THUMB * 3)
    assert first.dtype == np.uint8
    monkeypatch.setattr(store_module, "thumbnail", None)
    monkeypatch.setattr(store_module, "decode_with_thumb", None)
    for how in ({"image_size": (300, 300)}, {"image_size": (8, 8), "channels": 1}, {"budget": 0}, {}):
        assert (opened(paths, **how).facts.thumbs() == first).all()


def test_data_check_compares_the_same_thumbnails() -> None:
    paths = photos(jpeg=(900, 1200), png=(300, 200))
    Image.new("L", (20, 20), 7).save("photos/0.png")
    found = opened(paths).facts.thumbs()
    rows = np.concatenate([examine(f"photos/{path}") for path in paths])  # type: ignore[arg-type]
    assert (rows["thumb"] == found).all()


def test_thumbnail_resembles_its_image() -> None:
    for path in photos(jpeg=(900, 1200), png=(300, 200)):
        with Image.open(f"photos/{path}") as picture:
            whole = picture.convert("RGB").resize((THUMB, THUMB), Image.Resampling.BILINEAR)
        thumb = thumbnail(Path("photos", path).read_bytes())
        assert np.abs(thumb.astype(int) - np.asarray(whole).reshape(-1)).mean() < 2, path


def test_rotated_image_has_an_upright_thumbnail() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    for suffix in ("png", "jpg"):
        photo(0).transpose(Image.Transpose.ROTATE_90).save(f"turned.{suffix}", exif=exif, quality=95)
        photo(0).save(f"upright.{suffix}", quality=95)
        one, other = (thumbnail(Path(f"{name}.{suffix}").read_bytes()) for name in ("turned", "upright"))
        assert np.abs(one.astype(int) - other).mean() < 2


# --- a file that is another one


def bitmaps(*seeds: int) -> list[str]:
    """Write images whose files have the same size and the same times."""
    Path("photos").mkdir(exist_ok=True)
    for seed in seeds:
        photo(seed).save(f"photos/{seed}.bmp")
        os.utime(f"photos/{seed}.bmp", (1, 1))
    return [f"{seed}.bmp" for seed in seeds]


def check(paths: list[str], **how: Any) -> None:
    """Assert that what is opened is what the files hold."""
    found = opened(paths, **how)
    assert not found.problems
    expected = [np.asarray(Image.open(f"photos/{path}").convert("RGB")).tolist() for path in paths]
    assert found.images[:].permute(0, 2, 3, 1).tolist() == expected
    contents = [Path("photos", path).read_bytes() for path in paths]
    assert found.digests == tuple(hashlib.blake2b(content, digest_size=16).hexdigest() for content in contents)
    assert (found.facts.thumbs() == [thumbnail(content) for content in contents]).all()


def swap(one: str, other: str) -> None:
    Path("photos", one).rename("photos/between")
    Path("photos", other).rename(f"photos/{one}")
    Path("photos/between").rename(f"photos/{other}")


def overwrite(one: str, other: str) -> None:
    Path("photos", one).write_bytes(Path("photos", other).read_bytes())
    os.utime(f"photos/{one}", (1, 1))


def put_in_place(one: str, other: str) -> None:
    shutil.copy2(f"photos/{other}", "photos/new")
    Path("photos/new").replace(f"photos/{one}")


@pytest.mark.parametrize("change", [swap, overwrite, put_in_place])
@pytest.mark.parametrize("budget", [0, 10**9])
def test_replaced_file_of_same_size_and_times_is_detected(
    change: Callable[[str, str], None], budget: int, read: list[str]
) -> None:
    paths = bitmaps(0, 1, 2)
    check(paths, budget=budget)
    del read[:]
    change("0.bmp", "2.bmp")
    check(paths, budget=budget)
    assert not read, "its content is known"
    check(paths, budget=budget)


def test_copied_or_renamed_file_is_not_decoded_again(read: list[str]) -> None:
    paths = bitmaps(0, 1, 2)
    check(paths)
    shutil.copytree("photos", "copy")
    shutil.rmtree("photos")
    shutil.move("copy", "photos")
    Path("photos/1.bmp").rename("photos/11.bmp")
    shutil.copy("photos/2.bmp", "photos/22.bmp")
    del read[:]
    check(["0.bmp", "11.bmp", "2.bmp", "22.bmp"])
    assert not read


def test_file_changed_during_decoding_is_read_again(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = bitmaps(0, 1)

    def changing(path: str) -> Any:
        if path.endswith("1.bmp"):
            photo(7, size=(8, 9)).save(path)
            monkeypatch.setattr(store_module, "read_with_stamp", read_with_stamp)
        return read_with_stamp(path)

    monkeypatch.setattr(store_module, "read_with_stamp", changing)
    one = opened(paths, workers=1)
    content = Path("photos/1.bmp").read_bytes()
    assert one.digests[1] == hashlib.blake2b(content, digest_size=16).hexdigest()
    assert opened(paths).images[:].equal(one.images[:])
    with pytest.raises(UsageError, match="2 sizes"):
        opened(paths, image_size=None)


def test_file_that_keeps_changing_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    paths = bitmaps(0, 1)

    def restless(path: str) -> Any:
        if path.endswith("1.bmp"):
            Path(path).write_bytes(Path(path).read_bytes())
        return read_with_stamp(path)

    monkeypatch.setattr(store_module, "read_with_stamp", restless)
    assert opened(paths).problems == {"1.bmp": "the file changes while it is read"}


def test_second_write_at_the_same_time_is_detected() -> None:
    """The clock of a file system stands still for some milliseconds."""
    for number in range(5):
        paths = bitmaps(0, 1)
        photo(2 + number).save("photos/1.bmp")
        opened(paths, workers=1)
        photo(3 + number).save("photos/1.bmp")
        found = opened(paths)
        assert found.digests[1] == hashlib.blake2b(Path("photos/1.bmp").read_bytes(), digest_size=16).hexdigest()


def test_read_returns_the_file_stamp() -> None:
    (path,) = bitmaps(0)
    content, stamp = read_with_stamp(f"photos/{path}")
    status = Path("photos", path).stat()
    assert content == Path("photos", path).read_bytes()
    assert stamp == (status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
    with pytest.raises(DataError, match="no such file"):
        read_with_stamp("photos/none")
