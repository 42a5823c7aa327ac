"""The check of single files: any content, name or change on disk ends in a finding."""

import os
import tracemalloc
import warnings
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnkit.core.errors import DataError
from cnnkit.data import read_image
from cnnkit.data.check.file import Trouble, examine
from cnnkit.data.check.findings import KINDS
from helpers.check import folders, found, look, noise, save
from helpers.images import encoded, smooth_image

FORMAT_OF = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP", "ppm": "PPM"}


def samples() -> dict[str, bytes]:
    files = {}
    for suffix, name in FORMAT_OF.items():
        files[suffix] = encoded(name, smooth_image(3, (9, 12)))
    return files


@pytest.mark.parametrize("suffix", sorted(FORMAT_OF))
def test_no_beginning_of_a_picture_stops_it(suffix: str) -> None:
    content = samples()[suffix]
    path = Path(f"x.{suffix}")
    bad = 0
    for end in range(len(content)):
        path.write_bytes(content[:end])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result = examine(str(path))
            assert isinstance(result, Trouble) == (not readable(path)), end
        bad += isinstance(result, Trouble)
    assert bad > 0.6 * len(content)
    path.write_bytes(content)
    assert not isinstance(examine(str(path)), Trouble)


def test_nothing_that_decoding_raises_stops_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def surprise(*arguments: object, **options: object) -> None:
        raise RuntimeError("two\nlines")

    path = str(save("x.png"))
    monkeypatch.setattr("cnnkit.data.check.file.open_image", surprise)
    assert examine(path) == ("damaged", "two lines")


def readable(path: Path) -> bool:
    try:
        read_image(path)
    except DataError:
        return False
    return True


@given(st.sampled_from(sorted(FORMAT_OF)), st.binary(max_size=40), st.integers(0, 400), st.booleans())
def test_no_bytes_stop_it(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, junk: bytes, at: int, cut: bool
) -> None:
    root = tmp_path_factory.mktemp("fuzz", numbered=True)
    content = samples()[suffix]
    (root / "a").mkdir()
    (root / "a" / f"x.{suffix}").write_bytes(content[:at] + junk + (b"" if cut else content[at + len(junk) :]))
    (root / "a" / "y.unknown").write_bytes(junk + content[at:])
    (root / "a" / f"z.{suffix}").write_bytes(junk)
    diagnosis = look(root)
    assert diagnosis.files == 3
    for finding in diagnosis.findings:
        assert finding.kind in KINDS
        assert "\n" not in finding.detail


def test_names_links_and_folders_of_all_sorts() -> None:
    root = folders()
    odd = b"train/cat/new\nline \xff \xe7\x8c\xab.png"
    save(os.fsdecode(bytes(root) + b"/" + odd))
    deep = root.joinpath("train/dog", *["d"] * 400)
    save(deep / "deep.png")
    (root / "train/dog/folder.jpg").mkdir()
    (root / "train/dog/up").symlink_to("..")
    (root / "train/dog/linked.png").symlink_to(Path("0.png"))
    (root / "test/cat/self.jpg").symlink_to("self.jpg")
    kinds = found(root)
    assert kinds["unreadable"] == [("test/cat/self.jpg",)]
    assert ("train/dog/0.png", "train/dog/linked.png") in kinds["duplicate"]
    assert look(root).statistics["pictures"] == 15
    named = " ".join(path for groups in kinds.values() for paths in groups for path in paths)
    assert "deep" not in named
    assert "line" not in named


def test_a_file_that_vanishes(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    look_at = os.stat

    def stat(path: object, **how: object) -> os.stat_result:
        if str(path).endswith("cat/1.png"):
            Path(str(path)).unlink(missing_ok=True)
        return look_at(path, **how)

    monkeypatch.setattr(os, "stat", stat)
    kinds = found(root, workers=1)
    assert kinds["unreadable"] == [("test/cat/1.png",), ("train/cat/1.png",)]


def test_pillow_is_silent(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    whole = save(root / "train/cat/y.tif", smooth_image(0), tiffinfo={0x0112: 1}).read_bytes()
    at = whole.index(b"\x12\x01\x03\x00\x01") + 4  # how many values the tag is said to have
    (root / "train/cat/y.tif").write_bytes(whole[:at] + b"\x02" + whole[at + 1 :])
    with pytest.warns(UserWarning, match="too many entries"):
        assert readable(root / "train/cat/y.tif")
    save(root / "train/cat/bomb.png", Image.new("1", (300, 300)))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 80_000)  # of which Pillow only warns
    tif = bytearray(save(root / "train/cat/x.tif", noise(), compression="tiff_lzw").read_bytes())
    tif[200:210] = b"\xff" * 10
    (root / "train/cat/x.tif").write_bytes(tif)
    assert not readable(root / "train/cat/x.tif")
    assert "tif" in capfd.readouterr().err  # libtiff writes by itself
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        before = list(warnings.filters)
        look(root)
        assert warnings.filters == before
    assert caught == []
    assert capfd.readouterr() == ("", "")
    assert not readable(root / "train/cat/x.tif")
    assert "tif" in capfd.readouterr().err  # as before


def test_memory_does_not_grow_with_the_pictures() -> None:
    for number in range(40):
        save(f"data/{number % 2}/{number}.png", Image.new("RGB", (1000, 1000), (number, 0, 0)))
    look("data")
    tracemalloc.start()
    look("data")
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10 * 3_000_000  # of 40 decoded pictures
