"""The index of shards: corrupt, of other shards, and the ways to name shards."""

import os
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cnnkit.core.errors import DataError
from cnnkit.data.shards import tar
from cnnkit.data.shards.index import expand, is_shards
from helpers.shards import load, png, tar_file


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


def one_shard(path: Path, label: int) -> None:
    """Write a shard of one picture; it has the same size and time whatever its label is."""
    os.utime(tar_file(path, {"1.png": png(6, 6), "1.cls": str(label).encode()}), (1, 1))


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
