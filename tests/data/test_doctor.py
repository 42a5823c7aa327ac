"""The doctor of folders of pictures: every ill by its name, nothing that stops it, and files moved but never lost."""

import errno
import io
import json
import os
import shutil
import tracemalloc
import warnings
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data import load_dataset, read_image
from cnnkit.data.check import quarantine as quarantine_module
from cnnkit.data.check.file import Trouble, examine
from cnnkit.data.check.findings import KINDS
from cnnkit.data.check.quarantine import JOURNAL, quarantine
from cnnkit.data.check.run import Diagnosis, diagnose
from cnnkit.data.images.decode import THUMB
from cnnkit.data.images.duplicates import NEIGHBOURS, PASSES, gather, near_pairs
from conftest import Cli, one_line

DRAW = np.random.default_rng(0)
FORMAT_OF = {"jpg": "JPEG", "png": "PNG", "gif": "GIF", "tif": "TIFF", "webp": "WEBP", "bmp": "BMP", "ppm": "PPM"}


def noise(height: int = 20, width: int = 30) -> np.ndarray:
    return DRAW.integers(0, 256, (height, width, 3), np.uint8)


def photo(seed: int, size: tuple[int, int] = (200, 150)) -> Image.Image:
    """A picture with forms and shades, as photographs have them."""
    coarse = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), np.uint8)
    return Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC)


def save(path: str | Path, pixels: np.ndarray | Image.Image | None = None, **how: object) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(noise() if pixels is None else pixels)
    picture.save(path, **how)
    return path


def folders(root: str = "data", splits: tuple[str, ...] = ("train", "test"), count: int = 3) -> Path:
    for split in splits:
        for name in ("cat", "dog"):
            for number in range(count):
                save(Path(root, split, name, f"{number}.png"))
    return Path(root)


def found(root: Path | str, **how: object) -> dict[str, list[tuple[str, ...]]]:
    """The kinds of what the doctor finds, and the files of each."""
    result = defaultdict(list)
    for finding in look(root, **how).findings:
        result[finding.kind].append(finding.paths)
    return dict(result)


def look(root: Path | str, **how: object) -> Diagnosis:
    return diagnose(Path(root), **({"workers": 2, "progress": False} | how))


def details(diagnosis: Diagnosis, kind: str) -> list[str]:
    return [finding.detail for finding in diagnosis.findings if finding.kind == kind]


def tree(root: Path) -> dict[str, bytes]:
    """What lies below a folder: the content of files, the targets of links."""
    return {
        os.path.relpath(path, root): os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def spoil(root: Path) -> None:
    """Put a bad file of each kind into a folder."""
    cut = save("cut.jpg", photo(1)).read_bytes()
    (root / "train/cat/empty.jpg").touch()
    (root / "train/cat/text.png").write_text("no picture")
    (root / "train/dog/cut.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "train/dog/dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "train/dog/pipe.png")
    (root / "test/dog/damaged.png").write_bytes(damaged())


def damaged() -> bytes:
    content = bytearray(save("whole.png", noise(64, 64)).read_bytes())
    content[600:700] = bytes(100)
    return bytes(content)


# What is found


def test_a_sound_folder_has_no_findings() -> None:
    diagnosis = look(folders())
    assert diagnosis.findings == ()
    assert not diagnosis.harms
    assert diagnosis.files == 12
    assert diagnosis.statistics["pictures"] == 12
    assert diagnosis.statistics["classes"] == {"cat": {"train": 3, "test": 3}, "dog": {"train": 3, "test": 3}}


def test_each_bad_file_is_named_with_its_ill() -> None:
    root = folders()
    spoil(root)
    save(root / "train/cat/bomb.png", Image.new("1", (8000, 7000)))
    diagnosis = look(root)
    assert found(root) == {
        "empty-file": [("train/cat/empty.jpg",)],
        "no-picture": [("train/cat/text.png",)],
        "truncated": [("train/dog/cut.jpg",)],
        "unreadable": [("train/dog/dangling.jpg",), ("train/dog/pipe.png",)],
        "damaged": [("test/dog/damaged.png",)],
        "too-large": [("train/cat/bomb.png",)],
    }
    assert diagnosis.harms
    assert all(finding.harms and finding.culprits == finding.paths for finding in diagnosis.findings)
    assert details(diagnosis, "unreadable") == ["no such file", "not a regular file"]
    assert diagnosis.statistics["pictures"] == 12


def test_a_suffix_that_is_wrong_is_only_noted() -> None:
    root = folders()
    save(root / "train/cat/x.jpg", noise(), format="PNG")
    save(root / "train/cat/y.jpeg", photo(0), format="MPO")
    diagnosis = look(root)
    assert found(root) == {"wrong-suffix": [("train/cat/x.jpg",)]}
    assert details(diagnosis, "wrong-suffix") == ["holds a PNG"]
    assert not diagnosis.harms


def test_what_training_does_not_see() -> None:
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


def test_copies_within_a_split_and_across_splits() -> None:
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
    assert details(diagnosis, "leak") == ["same bytes", "same pixels, as cat and dog"]
    assert details(diagnosis, "duplicate") == ["same pixels"]
    assert [finding.culprits for finding in diagnosis.findings if finding.kind == "leak"] == [
        ("train/cat/three.png",),
        ("val/cat/four.png",),
    ]


def test_a_turned_picture_equals_the_upright_one() -> None:
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


def test_equal_bytes_in_another_shape_are_another_picture() -> None:
    pixels = noise()
    save("data/a/1.png", pixels)
    save("data/b/2.png", pixels.reshape(30, 20, 3))
    assert found("data").keys() == {"few"}


def test_statistics() -> None:
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
    assert details(diagnosis, "imbalance") == ["common has 30 pictures, rare 3: 10 times as many"]
    assert not diagnosis.harms


def test_the_number_of_threads_changes_nothing() -> None:
    root = folders(count=20)
    spoil(root)
    assert look(root, workers=1) == look(root, workers=5)
    with pytest.raises(UsageError, match="workers must be an int >= 1, not 0"):
        look(root, workers=0)


# Folders that are no data set


def test_classes_without_pictures() -> None:
    root = folders()
    (root / "train/emu").mkdir()
    save(root / "test/fox/1.png")
    for path in (root / "test/dog").iterdir():
        path.write_bytes(b"")
    diagnosis = look(root)
    remedy = "add some, take the folder away, or leave out such classes with --min-images 1"
    assert details(diagnosis, "class") == [
        f"data: class 'emu' has no image: {remedy}",
        f"data: class 'fox' has images in test, but none in train: {remedy}",
    ]
    assert details(diagnosis, "few") == ["dog has none in test"]
    assert diagnosis.harms


def test_a_broken_layout_does_not_hide_the_rest() -> None:
    root = folders(splits=("train", "val", "valid"))
    spoil(folders(root="data"))
    save(root / "val/cat/leak.png", Image.open(root / "train/cat/0.png"))
    save(root / "more/cat/0.png")
    kinds = found(root)
    assert kinds.keys() >= {"layout", "empty-file", "truncated", "damaged", "leak", "unseen"}
    assert kinds["leak"] == [("train/cat/0.png", "val/cat/leak.png")]
    assert kinds["unseen"] == [("more/cat/0.png",)]
    assert "both val/ and valid/" in details(look(root), "layout")[0]


def test_pictures_without_a_class_are_still_examined() -> None:
    save("loose/1.png")
    Path("loose/2.png").touch()
    diagnosis = look("loose")
    assert found("loose").keys() == {"layout", "empty-file"}
    assert diagnosis.statistics["pictures"] == 1


def test_a_folder_with_nothing_in_it() -> None:
    Path("empty").mkdir()
    diagnosis = look("empty")
    assert found("empty") == {"layout": [()]}
    assert (diagnosis.files, diagnosis.statistics["pictures"]) == (0, 0)
    with pytest.raises(DataError, match="nowhere: no such folder"):
        look("nowhere")


# Pictures that are nearly the same


def test_copies_that_were_changed_a_little_are_found() -> None:
    for number in range(40):
        whole = photo(number)
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


def test_pictures_of_few_details_raise_no_false_alarm() -> None:
    digits = load_dataset("digits").train.images[:, 0].numpy()
    shades = [np.linspace(0, 255, size, dtype=np.uint8)[None].repeat(size, 0) for size in (40, 41)]
    grey = [np.full((20, 20), level, np.uint8) for level in range(100, 104)]
    pictures = [*digits, shades[0], shades[1].T, *grey]
    thumbs = [Image.fromarray(each).convert("RGB").resize((THUMB, THUMB)) for each in pictures]
    night = np.zeros((2, THUMB * THUMB * 3), np.uint8)
    night[:, 200] = 30  # all that is left of a star, and too little to tell one from another
    assert not any(near_pairs(np.stack([*(np.asarray(thumb).reshape(-1) for thumb in thumbs), *night])))


def test_neighbours_are_nearly_all_found_that_comparing_all_with_all_finds() -> None:
    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 1, THUMB)
    shapes = np.stack([np.cos(3 * a * ramp)[:, None] * np.cos(3 * b * ramp)[None] for a in range(4) for b in range(4)])
    weights = draw.normal(size=(4000, 16)) * ([10] + 15 * [1])  # most differ in brightness most of all
    weights[2000:] = weights[:2000] + draw.normal(scale=0.01, size=(2000, 16))  # copies, more or less close
    thumbs = np.einsum("nk,khw->nhw", weights, shapes)[..., None].repeat(3, -1).reshape(4000, -1)
    thumbs = (128 + 6 * thumbs).clip(0, 255).astype(np.uint8)
    values = thumbs.astype(float)
    contrast = values.std(1)
    expected = set()
    for row in range(len(values)):
        near = np.sqrt(((values[row + 1 :] - values[row]) ** 2).mean(1))
        expected |= {
            (row, row + 1 + int(k)) for k in (near < 0.05 * np.minimum(contrast[row], contrast[row + 1 :])).nonzero()[0]
        }
    pairs = {tuple(sorted(pair)) for portion in near_pairs(thumbs) for pair in portion}
    assert len(expected) > 1000
    assert pairs <= expected
    assert len(pairs) > 0.99 * len(expected)


def test_a_thousand_frames_of_a_still_scene_are_one_group() -> None:
    frames = DRAW.integers(0, 256, 432) + DRAW.integers(-2, 3, (1000, 432))
    pairs = [pair for portion in near_pairs(frames.clip(0, 255).astype(np.uint8)) for pair in portion]
    assert len(pairs) <= 1000 * PASSES * NEIGHBOURS  # not 1000 * 999 / 2: linear, however alike they are
    assert gather(pairs) == [list(range(1000))]


# Whatever lies there


def samples() -> dict[str, bytes]:
    files = {}
    for suffix, name in FORMAT_OF.items():
        buffer = io.BytesIO()
        photo(3, (12, 9)).save(buffer, name)
        files[suffix] = buffer.getvalue()
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
    whole = save(root / "train/cat/y.tif", photo(0), tiffinfo={0x0112: 1}).read_bytes()
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


# Quarantine


def test_quarantine_moves_what_harms_and_can_be_undone() -> None:
    root = folders()
    spoil(root)
    save(root / "test/cat/leak.bmp", Image.open(root / "train/cat/0.png"))
    save(root / "train/cat/copy.png", Image.open(root / "train/cat/1.png"))
    before = tree(root)
    moved, failed = quarantine(look(root), Path("away"))
    assert failed == {}
    assert moved == {
        path: path
        for path in (
            "train/dog/dangling.jpg", "train/dog/pipe.png", "train/cat/empty.jpg", "train/cat/text.png",
            "train/dog/cut.jpg", "test/dog/damaged.png", "train/cat/0.png",
        )
    }  # fmt: skip
    assert found(root).keys() == {"duplicate"}
    journal = json.loads(Path("away", JOURNAL).read_text())
    assert [set(entry) for entry in journal] == [{"what", "from", "why"}] * 7
    assert journal[2]["why"] == "files of zero bytes"
    for entry in journal:
        Path("away", entry["what"]).rename(entry["from"])
    assert tree(root) == before


def test_names_that_are_taken_get_numbers() -> None:
    root = folders()
    for content in ("first", "second", "third"):
        (root / "train/cat/bad.png").write_text(content)
        quarantine(look(root), Path("away"))
    assert [entry["what"] for entry in json.loads(Path("away", JOURNAL).read_text())] == [
        "train/cat/bad.png",
        "train/cat/bad-2.png",
        "train/cat/bad-3.png",
    ]
    assert [Path(f"away/train/cat/bad{tag}.png").read_text() for tag in ("", "-2", "-3")] == [
        "first",
        "second",
        "third",
    ]


def test_nothing_to_move_makes_no_folder() -> None:
    assert quarantine(look(folders()), Path("away")) == ({}, {})
    assert not Path("away").exists()


def test_a_quarantine_must_not_be_part_of_the_data() -> None:
    root = folders()
    spoil(root)
    before = tree(root)
    Path("file").touch()
    Path("link").symlink_to(root / "train")
    for place in (root, root / "bad", root / "train/bad", Path(), Path("link/bad")):
        with pytest.raises(UsageError, match="lie in each other"):
            quarantine(look(root), place)
    with pytest.raises(UsageError, match="file is no folder"):
        quarantine(look(root), Path("file"))
    assert tree(root) == before
    quarantine(look(root), root / ".bad")
    assert found(root) == {}


def test_onto_another_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    spoil(root)
    before = tree(root)

    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        moved, failed = quarantine(look(root), Path("away"))
    assert list(failed) == ["train/dog/pipe.png"]  # not to be copied, and so still there
    assert not os.path.lexists("away/train/dog/pipe.png")
    assert {path: content for path, content in tree(Path("away")).items() if path != JOURNAL} | tree(root) == before
    assert not tree(root).keys() & moved.keys()
    assert [entry["what"] for entry in json.loads(Path("away", JOURNAL).read_text())] == list(moved)


def test_a_full_disk_leaves_no_half_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    spoil(root)
    before = tree(root)

    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def copy(source: Path, target: Path, **how: object) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(shutil, "copy2", copy)
    moved, failed = quarantine(look(root), Path("away"))
    assert (moved, set(failed.values())) == ({}, {"No space left on device"})
    assert tree(root) == before
    assert tree(Path("away")).keys() == {JOURNAL}


def test_what_cannot_be_moved_stays() -> None:
    root = folders()
    spoil(root)
    Path("away").mkdir()
    Path("away/train").touch()  # where a folder should be
    before = tree(root)
    moved, failed = quarantine(look(root), Path("away"))
    assert list(moved) == ["test/dog/damaged.png"]
    assert len(failed) == 5
    assert tree(root) == {path: content for path, content in before.items() if path not in moved}


def test_an_interrupt_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    spoil(root)
    before = tree(root)
    moves = []
    move = quarantine_module._move

    def interrupted(source: Path, target: Path) -> None:
        if len(moves) == 2:
            raise KeyboardInterrupt
        moves.append(source)
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(quarantine_module, "_move", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quarantine(look(root), Path("away"))
    quarantine(look(root), Path("away"))
    assert found(root) == {}
    for entry in json.loads(Path("away", JOURNAL).read_text()):
        if os.path.lexists(Path("away", entry["what"])):
            Path("away", entry["what"]).rename(entry["from"])
    assert tree(root) == before


def test_a_journal_that_is_none_is_kept() -> None:
    root = folders()
    spoil(root)
    before = tree(root)
    Path("away").mkdir()
    for content in ("{", "{}", "[1]", '[{"what": 1}]'):
        Path("away", JOURNAL).write_text(content)
        with pytest.raises(CnnkitError, match="not readable as a list of files"):
            quarantine(look(root), Path("away"))
    assert Path("away", JOURNAL).read_text() == content
    assert tree(root) == before


def test_the_same_file_seen_through_a_link_is_not_moved() -> None:
    root = folders(splits=("train",))
    (root / "test").symlink_to("train")
    before = tree(root)
    assert len(found(root)["leak"]) == 6
    assert quarantine(look(root), Path("away")) == ({}, {})
    assert tree(root) == before


# The command


def test_the_command_reports_and_leaves_with_3(cli: Cli) -> None:
    root = folders()
    for number in range(47):
        (root / f"train/cat/bad {number:02}[red].png").write_text("x")
    result = cli("data", "check", root)
    one_line(result, 3, "data: a training would be harmed: files without a picture in them (47)", "--quarantine DIR")
    assert "train/cat/bad 09[red].png" in result.out
    assert "train/cat/bad 10[red].png" not in result.out
    assert "and 37 more" in result.out
    assert result.out.startswith("data: 59 files, 12 pictures that can be read")


def test_a_sound_folder_ends_with_its_verdict(cli: Cli) -> None:
    root = folders()
    assert cli("data", "check", root).out.splitlines()[-1] == "data: fit for training"
    save(root / "train/cat/copy.png", Image.open(root / "train/cat/0.png"))
    result = cli("data", "check", root)
    assert (result.code, result.err) == (0, "")
    assert result.out.splitlines()[-1] == "data: fit for training (warnings: 1)"
    assert "train/cat/0.png  train/cat/copy.png  (same" in result.out


def test_json_has_everything(cli: Cli) -> None:
    root = folders()
    spoil(root)
    name = os.fsdecode(b"\xff\n.png")
    (root / "train/cat" / name).touch()
    result = cli("data", "check", root, "--json")
    assert result.code == 3
    report = json.loads(result.out)
    assert report["harms"]
    assert {"kind", "severity", "text", "remedy", "detail", "paths", "culprits"} == set(report["findings"][0])
    assert [f"train/cat/{name}"] in [finding["paths"] for finding in report["findings"]]
    assert report["statistics"]["pictures"] == 12
    assert report["verdict"] == result.err.removeprefix("cnnkit: ").strip()
    assert cli("data", "check", root).code == 3  # and its text can be printed


def test_the_command_moves_and_the_next_is_clean(cli: Cli) -> None:
    root = folders()
    spoil(root)
    result = cli("data", "check", root, "--quarantine", "away")
    assert (result.code, result.err) == (0, "")
    assert "moved train/cat/empty.jpg to away/train/cat/empty.jpg" in result.out
    assert cli("data", "check", root).out.splitlines()[-1] == "data: fit for training"
    (root / "train/emu").mkdir()
    spoil(root)
    result = cli("data", "check", root, "--quarantine", "away", "--json")
    assert json.loads(result.out)["moved"]["train/cat/empty.jpg"] == "train/cat/empty-2.jpg"
    one_line(result, 3, "classes that cannot be trained on (1)")
    assert "--quarantine" not in result.err


def test_the_command_tells_what_could_not_be_moved(cli: Cli) -> None:
    root = folders()
    (root / "train/cat/bad.png").write_text("x")
    Path("away").mkdir()
    Path("away/train").touch()
    result = cli("data", "check", root, "--quarantine", "away")
    one_line(result, 3, "files without a picture in them (1)")
    assert "not moved: train/cat/bad.png: " in result.out
    assert "--quarantine" not in result.err  # it was tried


def test_wrong_use(cli: Cli) -> None:
    one_line(cli("data", "check", "nowhere"), 3, "nowhere: no such folder")
    root = folders()
    one_line(cli("data", "check", root, "--quarantine", root / "bad"), 2, "lie in each other", ".quarantine")
    one_line(cli("data", "check", root, "--workers", 0), 2, "workers")


def test_many_classes_are_shown_by_the_largest_and_the_smallest(cli: Cli) -> None:
    for label in range(30):
        for number in range(3 + label // 10):
            save(f"data/class {label:02}/{number}.png", noise(4, 4))
    lines = cli("data", "check", "data").out.splitlines()
    assert sum(line.strip().startswith("class ") for line in lines) == 21  # and the head
    assert any("10 classes between them" in line for line in lines)
