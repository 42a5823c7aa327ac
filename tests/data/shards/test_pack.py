"""Packing folders into shards."""

import json
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from cnnkit.cli import data_pack
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data import load_folder
from cnnkit.data.shards import pack
from cnnkit.data.shards.pack import pack_folder
from helpers.shards import label, load, numbers, picture


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
