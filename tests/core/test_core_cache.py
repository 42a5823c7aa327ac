"""Cached records of shards, plans and archives: corrupt ones are rebuilt with a line in the log."""

import json
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from torch import nn

from cnnkit.core.cache import to_record
from cnnkit.data.folder.archive import unpacked
from cnnkit.data.shards.pack import pack_folder
from cnnkit.data.shards.tar import Contents, read_tars
from cnnkit.train import TrainConfig
from cnnkit.train.autotune import choose as choose_module
from cnnkit.train.autotune.choose import choose_plan
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.autotune.steps import Autotuner
from helpers.images import world_readable_photos
from helpers.records import JUNK, rewrite


@pytest.fixture
def shard() -> str:
    world_readable_photos(Path("classes"))
    Image.new("RGB", (5, 5), "red").save("classes/a/red.png")
    pack_folder(Path("classes"), Path("shards"), progress=False)
    return str(next(Path("shards").glob("train-*.tar")).absolute())


def read(place: str) -> Contents:
    (found,) = read_tars([place], 1, False)
    return found


def test_junk_in_cached_shard_index_is_harmless(shard: str) -> None:
    first = read(shard)
    (kept,) = Path("cache/shards").glob("*.json")
    whole = kept.read_bytes()
    ways = [(key, None) for key in json.loads(whole)["contents"]]
    ways += [(key, 0) for key in ("offsets", "sizes", "labels", "version", "size")]
    harmless = ("labels", "problems", "error", "grey", "size", "bytes")
    for key, number in ways:
        for junk in (*JUNK, [1] * 3, [-5] * len(first.offsets), [10**12] * len(first.offsets)):
            kept.write_bytes(whole)

            def put(content: dict[str, Any], key: str = key, number: int | None = number, junk: Any = junk) -> None:
                if number is None:
                    content["contents"][key] = junk
                elif content["contents"][key]:
                    content["contents"][key][number] = junk

            rewrite(kept, put)
            found = read(shard)
            assert found == first or key in harmless or junk == 7, (key, number, junk)  # 7 may be an offset
            assert len(found.labels) == len(first.labels)
    for junk in (b"", b"{", b"[" * 100_000, whole[:-20] + b"9" + whole[-19:]):
        kept.write_bytes(junk)
        assert read(shard) == first


# --- plans and archives


def test_plan_of_another_network_is_chosen_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(2))
    net(torch.zeros(1, 3, 8, 8))
    made: list[Plan] = []

    def choose(*asked: Any) -> Plan:
        made.append(Plan(threads=len(made) + 1))
        return made[-1]

    monkeypatch.setattr(Autotuner, "choose", choose)
    monkeypatch.setattr(choose_module, "LANES_WORTH", float("inf"))

    def chosen() -> Plan:
        return choose_plan(net, (3, 8, 8), 4, 10**12, TrainConfig())

    chosen()
    (file,) = (tmp_path / "cache/plans").iterdir()
    texts = [
        '{"convolutions": {"conv9": ["onednn", "onednn", "onednn"]}}', '{"convolutions": {"0": ["junk"]}}', "", "{",
        '{"threads": -1}', '{"threads": 0}', '{"threads": 1e9}', '{"graph": true}', "[" * 100_000, "null", "\xff",
    ]  # fmt: skip
    texts += [to_record(json.loads(text)) for text in texts if text.startswith("{") and text.endswith("}")]
    for text in texts:
        caplog.clear()
        file.write_text(text, encoding="latin-1")
        count = len(made)
        assert chosen() == chosen() == made[-1]
        assert len(made) == count + 1, text
        assert [record.levelname for record in caplog.records] == ["WARNING"], caplog.text


def test_archive_with_missing_files_is_unpacked_again(caplog: pytest.LogCaptureFixture) -> None:
    world_readable_photos(Path("data"), 6)
    with zipfile.ZipFile("data.zip", "w") as archive:
        for path in Path("data").rglob("*.png"):
            archive.write(path, path.relative_to("data"))
    folder = unpacked(Path("data.zip"), False)
    whole = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")}
    assert len(whole) == 6
    listed = folder.with_name(f".{folder.name}.json")
    harms: list[Callable[[], object]] = [
        lambda: (folder / "a/0.png").unlink(), lambda: shutil.rmtree(folder / "b"), lambda: shutil.rmtree(folder),
        lambda: os.truncate(folder / "a/2.png", 10), lambda: (folder / "a/9.png").write_bytes(b"x"),
        listed.unlink, lambda: listed.write_text("junk"), lambda: listed.write_text(to_record({"sizes": [3]})),
    ]  # fmt: skip
    for number, harm in enumerate(harms):
        caplog.clear()
        harm()
        assert unpacked(Path("data.zip"), False) == folder
        assert {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*.png")} == whole
        assert ("unpacked again" in caplog.text) == (number != 2)
        changed = folder.stat().st_mtime_ns
        assert unpacked(Path("data.zip"), False).stat().st_mtime_ns == changed
    assert sorted(path.name for path in folder.parent.iterdir()) == [f".{folder.name}.json", folder.name]
