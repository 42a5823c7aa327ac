"""Shards on a web server: interrupted, slow, failing and changing answers."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from http.server import BaseHTTPRequestHandler
from itertools import cycle, repeat
from pathlib import Path

import pytest
import torch

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.data.shards.images import ShardImages
from helpers.cli import Cli, one_line
from helpers.shards import batches, flat, load, numbers, seen
from helpers.webserver import drip, handler_server, raw_server


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
    with handler_server(server.answer) as server.url:
        yield server


def test_training_from_server_equals_training_from_disk(server: Server) -> None:
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
def test_broken_connections_are_resumed(server: Server, ranges: bool) -> None:
    server.ranges = ranges
    data, here = load(f"{server.url}/shards.json"), load(server.root)
    server.cut = cycle([3000, 10**6, 20_000, 0, 700] if ranges else [3000, 10**6])
    server.refuse = iter([0, 503, 0, 429, 0, 0, 500])
    for first in (0, 4):
        assert seen(batches(data).epoch(1, first)) == seen(batches(here).epoch(1, first))
    if ranges:
        assert any(first % 512 for _, first in server.asked), "within a picture"


def test_server_without_lengths_is_read(server: Server) -> None:
    server.ranges = server.length = False
    data = load(f"{server.url}/train-{{00000..00004}}.tar")
    assert len(flat(seen(batches(data).epoch(1)))) == len(data.train) == 59


def test_remote_foreign_shards_are_scanned_once(server: Server) -> None:
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


@pytest.mark.parametrize(
    "head",
    [b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n", b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: "],
)
@pytest.mark.parametrize("name", ["shards.json", "a.tar"])
def test_slow_shard_server_is_one_line(head: bytes, name: str, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.3")
    with raw_server() as raw:
        raw.reply(lambda _: drip(b"HTTP/1.1 200 OK\r\n" + head))
        place = f"{raw.url.replace('://', '://me:secret@')}/{name}"
        result = cli("train", "lenet", "--data", place, "--epochs", 1, "--plan", "off")
    one_line(result, 1, "http://me:***@127.0.0.1", "fewer than 1,000 bytes arrived in 0.3 seconds", "tried 4 times")


def test_slow_server_stops_the_training(server: Server) -> None:
    data = load(f"{server.url}/shards.json", on_bad_image="skip")
    with raw_server() as raw:
        raw.reply(lambda _: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 30720\r\n\r\n"))
        shards = [shard._replace(place=f"{raw.url}/x.tar") for shard in data.train.images.index.shards]
        index = replace(data.train.images.index, shards=tuple(shards))
        images = ShardImages(torch.arange(3), (1, 6, 6), 1, True, index)
        with pytest.raises(CnnkitError, match=r"x\.tar: fewer than 1,000 bytes arrived in 0\.5 seconds"):
            images.read(torch.arange(3))


@pytest.mark.parametrize("harm", ["huge", "digest", "more"])
def test_wrong_remote_index_is_refused(server: Server, harm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = server.root / "shards.json"
    content = json.loads(path.read_text())
    if harm == "digest":
        content["samples_sha256"] = "../../x"
        words = "'../../x' is not a SHA-256"
    elif harm == "more":
        content["shards"] = content["shards"][:1]
        words = r"samples\.npy: has .* bytes; at most"
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


@pytest.mark.parametrize(
    "place", ["ftp://host/a.tar", "http:///a.tar", "http://host/\x1b[2J.tar", "file:///a/shards.json"]
)
def test_invalid_data_url_is_refused(place: str) -> None:
    with pytest.raises(DataError) as caught:
        load(place)
    assert "only http:// and https://" in str(caught.value) or "invalid URL" in str(caught.value)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize(("code", "words"), [(404, "the server says 404 Not Found"), (403, "403 Forbidden")])
def test_refusing_server_is_reported(server: Server, code: int, words: str) -> None:
    data, tolerant = (load(f"{server.url}/shards.json", on_bad_image=how) for how in ("error", "skip"))
    server.refuse = iter([code])
    with pytest.raises(DataError, match=words):
        seen(batches(data).epoch(1))
    (server.root / "train-00004.tar").unlink()
    assert len(flat(seen(batches(tolerant).epoch(1)))) == 203 - 12
    with pytest.raises(DataError, match=r"other\.json: the server says 404"):
        load(f"{server.url}/other.json")


def test_shard_changed_on_server_is_an_error(server: Server) -> None:
    data = load(f"{server.url}/shards.json")
    with (server.root / "train-00004.tar").open("ab") as file:
        file.write(bytes(512))
    with pytest.raises(DataError, match=r"train-00004\.tar: it has 31,232 bytes, but 30,720 in its index"):
        seen(batches(data).epoch(1))


def test_unreachable_server_stops_a_training_that_skips_errors(server: Server) -> None:
    data = load(f"{server.url}/shards.json", on_bad_image="skip")
    server.refuse = repeat(503)
    with pytest.raises(CnnkitError, match=r"503 Service Unavailable .*; tried 4 times") as caught:
        seen(batches(data).epoch(1))
    assert caught.value.exit_code == 1
    with pytest.raises(CnnkitError, match=r"refused .*; tried 4 times"):
        load("http://127.0.0.1:9/shards.json")
