"""Downloads from a real server that cuts, corrupts, refuses and recovers."""

import gzip
import hashlib
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.core.fetch import fetch
from cnnkit.core.http import PAUSES

ATTEMPTS = len(PAUSES) + 1
PAYLOAD = bytes(range(256)) * 4000
PACKED = gzip.compress(PAYLOAD, mtime=0)
DIGEST = hashlib.sha256(PAYLOAD).hexdigest()


@dataclass
class Server:
    """A mirror whose next answers are scripted: "ok", "cut", "corrupt", "other", "no-range", or a status code."""

    url: str = ""
    script: list[str] = field(default_factory=list)
    asked: list[str | None] = field(default_factory=list)  # the Range header of each request

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        wanted = request.headers.get("Range")
        self.asked.append(wanted)
        step = self.script.pop(0) if self.script else "ok"
        if step.isdigit():
            request.send_error(int(step))
            return
        body = gzip.compress(b"something else") if step == "other" else PACKED
        first = int(wanted.removeprefix("bytes=").removesuffix("-")) if wanted and step != "no-range" else 0
        if first >= len(body):
            request.send_response(416)
            request.send_header("Content-Range", f"bytes */{len(body)}")
            request.send_header("Content-Length", "0")
            request.end_headers()
            return
        part = body[first:]
        request.send_response(206 if first else 200)
        if first:
            request.send_header("Content-Range", f"bytes {first}-{len(body) - 1}/{len(body)}")
        request.send_header("Content-Length", str(len(part)))
        request.end_headers()
        if step == "cut":
            part = part[: len(part) // 2]
        if step == "corrupt":
            part = part[:20] + b"\xff" * 20 + part[40:]
        request.wfile.write(part)


def serve() -> Iterator[Server]:
    server = Server()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            server.answer(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        server.url = f"http://127.0.0.1:{http.server_port}/file.gz"
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        http.shutdown()
        thread.join()


mirror, other_mirror = pytest.fixture(serve, name="mirror"), pytest.fixture(serve, name="other_mirror")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.5")


def left(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[-1] for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_a_plain_download(mirror: Server, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "payload"
    assert fetch([mirror.url], path, DIGEST) == path
    assert path.read_bytes() == PAYLOAD
    assert left(path.parent) == ["payload"]


def test_a_cut_is_continued_where_it_broke(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut", "cut", "ok"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    half = len(PACKED) // 2
    assert mirror.asked == [None, f"bytes={half}-", f"bytes={half + (len(PACKED) - half) // 2}-"]


def test_a_later_call_continues_too(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut"] * ATTEMPTS
    with pytest.raises(DataError, match=r"the connection broke; [\d,]+ of [\d,]+ bytes received; tried 4 times"):
        fetch([mirror.url], tmp_path / "payload", DIGEST)
    assert left(tmp_path) == ["part"]
    fetch([mirror.url], tmp_path / "payload", DIGEST)
    assert (mirror.asked[-1] or "").startswith("bytes=")
    assert (tmp_path / "payload").read_bytes() == PAYLOAD
    assert left(tmp_path) == ["payload"]


def test_a_server_without_ranges_starts_over(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut", "no-range"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD


def test_a_complete_part_file_needs_nothing_more(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut"] * ATTEMPTS
    with pytest.raises(DataError):
        fetch([mirror.url], tmp_path / "payload", DIGEST)
    [part] = tmp_path.glob("*.part")
    part.write_bytes(PACKED)
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD


@pytest.mark.parametrize(
    ("script", "reason", "requests"),
    [
        (["404"], "404", 1),
        (["503"] * ATTEMPTS, "503", ATTEMPTS),
        (["corrupt"], "corrupt gzip data", 1),
        (["other"], f"SHA-256 is .*, not {DIGEST}", 1),
    ],
)
def test_the_next_mirror_takes_over(
    mirror: Server, other_mirror: Server, tmp_path: Path, script: list[str], reason: str, requests: int
) -> None:
    mirror.script = list(script)
    assert fetch([mirror.url, other_mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    assert len(mirror.asked) == requests
    assert left(tmp_path) == ["payload"]
    mirror.script, other_mirror.script = list(script), list(script)
    with pytest.raises(DataError, match=reason) as caught:
        fetch([mirror.url, other_mirror.url], tmp_path / "again", DIGEST)
    assert mirror.url in str(caught.value)
    assert other_mirror.url in str(caught.value)
    assert not (tmp_path / "again").exists()


def test_a_hiccup_is_waited_out(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["503", "ok"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD


def test_nobody_there(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9.*refused"):
        fetch(["http://127.0.0.1:9/file.gz"], tmp_path / "payload", DIGEST)


def test_what_is_there_and_right_is_not_fetched_again(mirror: Server, tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"something old")
    fetch([mirror.url], path, DIGEST)
    fetch([mirror.url], path, DIGEST)
    assert path.read_bytes() == PAYLOAD
    assert len(mirror.asked) == 1


def test_the_beginning_of_another_file_is_thrown_away(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut"] * ATTEMPTS
    with pytest.raises(DataError):
        fetch([mirror.url], tmp_path / "payload", DIGEST)
    [part] = tmp_path.glob("*.part")
    part.write_bytes(b"?" * 1000)
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    assert mirror.asked[-2:] == ["bytes=1000-", None]


def test_two_at_once_fetch_once(mirror: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch([mirror.url], tmp_path / "payload", DIGEST), range(4)))
    assert paths == [tmp_path / "payload"] * 4
    assert paths[0].read_bytes() == PAYLOAD
    assert len(mirror.asked) == 1


def test_a_plain_file_is_checked_by_the_first_digits_and_kept(mirror: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(PACKED).hexdigest()[:8]
    plain = mirror.url.removesuffix(".gz")
    assert fetch([plain], tmp_path / "weights.pth", digest).read_bytes() == PACKED
    with pytest.raises(DataError, match=r"sent other data: its SHA-256 is .*, not 00000000"):
        fetch([plain], tmp_path / "other.pth", "00000000")
    assert left(tmp_path) == ["pth"]


def test_a_disk_that_takes_nothing_more_costs_no_second_download(
    mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: object) -> None:
        raise CnnkitError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("cnnkit.core.fetch.atomic_write", full)
        with pytest.raises(CnnkitError, match="No space left"):
            fetch([mirror.url], tmp_path / "payload", DIGEST)
    assert left(tmp_path) == ["part"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    assert mirror.asked[1:] == [f"bytes={len(PACKED)}-"]
