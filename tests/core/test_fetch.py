"""Downloads from real servers that cut, corrupt, refuse, recover, slow down and send false headers."""

import gzip
import hashlib
import itertools
import logging
import os
import re
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.core.fetch import fetch
from cnnkit.core.http import BACKOFF
from cnnkit.data.shards.remote import RemoteFile, open_bytes
from helpers.webserver import Raw, answer, drip, handler_server, raw_server

ATTEMPTS = len(BACKOFF) + 1
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
    with handler_server(server.answer) as root:
        server.url = f"{root}/file.gz"
        yield server


mirror, other_mirror = pytest.fixture(serve, name="mirror"), pytest.fixture(serve, name="other_mirror")


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.3")


@pytest.fixture
def raw() -> Iterator[Raw]:
    with raw_server() as server:
        yield server


def broken_off(mirror: Server, folder: Path) -> Path:
    """Let a download fail; return what is left of it."""
    mirror.script = ["cut"] * 2 * ATTEMPTS
    with pytest.raises(DataError, match=r"the connection broke \(at byte [\d,]+ of 4,\d+\); tried \d times"):
        fetch([mirror.url], folder / "payload", DIGEST)
    mirror.script = []
    [part] = folder.glob("*.part")
    return part


def left(folder: Path) -> list[str]:
    return sorted(path.name.split(".")[-1] for path in folder.iterdir() if not path.name.endswith(".lock"))


def test_download_is_saved_and_verified(mirror: Server, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "payload"
    assert fetch([mirror.url], path, DIGEST) == path
    assert path.read_bytes() == PAYLOAD
    assert left(path.parent) == ["payload"]


def test_cut_download_continues_at_its_offset(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut", "cut", "ok"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    half = len(PACKED) // 2
    assert mirror.asked == [None, f"bytes={half}-", f"bytes={half + (len(PACKED) - half) // 2}-"]


def test_later_call_continues_a_cut_download(mirror: Server, tmp_path: Path) -> None:
    broken_off(mirror, tmp_path)
    assert left(tmp_path) == ["part"]
    fetch([mirror.url], tmp_path / "payload", DIGEST)
    assert (mirror.asked[-1] or "").startswith("bytes=")
    assert (tmp_path / "payload").read_bytes() == PAYLOAD
    assert left(tmp_path) == ["payload"]


def test_server_without_ranges_restarts_the_download(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["cut", "no-range"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD


def test_complete_part_file_is_not_requested_again(mirror: Server, tmp_path: Path) -> None:
    part = broken_off(mirror, tmp_path)
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
def test_next_mirror_is_used_after_failure(
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


def test_temporary_server_error_is_retried(mirror: Server, tmp_path: Path) -> None:
    mirror.script = ["503", "ok"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD


def test_unreachable_server_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"127\.0\.0\.1:9.*refused"):
        fetch(["http://127.0.0.1:9/file.gz"], tmp_path / "payload", DIGEST)


def test_valid_cached_file_is_not_fetched_again(mirror: Server, tmp_path: Path) -> None:
    path = tmp_path / "payload"
    path.write_bytes(b"something old")
    fetch([mirror.url], path, DIGEST)
    fetch([mirror.url], path, DIGEST)
    assert path.read_bytes() == PAYLOAD
    assert len(mirror.asked) == 1


def test_part_of_another_file_is_discarded(mirror: Server, tmp_path: Path) -> None:
    part = broken_off(mirror, tmp_path)
    part.write_bytes(b"?" * 1000)
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    assert mirror.asked[-2:] == ["bytes=1000-", None]


def test_concurrent_fetches_download_once(mirror: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch([mirror.url], tmp_path / "payload", DIGEST), range(4)))
    assert paths == [tmp_path / "payload"] * 4
    assert paths[0].read_bytes() == PAYLOAD
    assert len(mirror.asked) == 1


def test_plain_file_is_verified_by_digest_prefix_and_cached(mirror: Server, tmp_path: Path) -> None:
    digest = hashlib.sha256(PACKED).hexdigest()[:8]
    plain = mirror.url.removesuffix(".gz")
    assert fetch([plain], tmp_path / "weights.pth", digest).read_bytes() == PACKED
    with pytest.raises(DataError, match=r"sent another file: its SHA-256 is .*, not 00000000"):
        fetch([plain], tmp_path / "other.pth", "00000000")
    assert left(tmp_path) == ["pth", "sha256"]


def test_full_disk_causes_no_second_download(mirror: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: object) -> None:
        raise CnnkitError(f"cannot write {path}: No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("cnnkit.core.fetch.atomic_write", full)
        with pytest.raises(CnnkitError, match="No space left"):
            fetch([mirror.url], tmp_path / "payload", DIGEST)
    assert left(tmp_path) == ["part"]
    assert fetch([mirror.url], tmp_path / "payload", DIGEST).read_bytes() == PAYLOAD
    assert mirror.asked[1:] == [f"bytes={len(PACKED)}-"]


# servers that dribble, and that send something else than they said


LENGTH = b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"


@pytest.mark.parametrize("head", [LENGTH, b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.1 200 OK\r\nX: ", b"HTTP"])
def test_slow_server_times_out(raw: Raw, tmp_path: Path, head: bytes) -> None:
    raw.reply(lambda _: drip(head))
    began = time.monotonic()
    with pytest.raises(DataError) as caught:
        fetch([f"{raw.url}/w.pth"], tmp_path / "w.pth", DIGEST)
    assert time.monotonic() - began < 4
    of = " of 100,000" if head == LENGTH else ""
    expected = rf"{raw.url}/w.pth: fewer than 1,000 bytes arrived in 0\.3 seconds \(at byte \d+{of}\); tried 4 times"
    assert re.fullmatch(expected, str(caught.value))
    assert len(raw.asked) == 4


def test_remote_read_from_slow_server_times_out(raw: Raw) -> None:
    raw.reply(lambda _: drip(LENGTH))
    began = time.monotonic()
    with pytest.raises(CnnkitError) as caught, open_bytes(raw.url) as file:
        file.readall()
    assert time.monotonic() - began < 4
    where = r"\(at byte \d+ of 100,000\); tried 4 times"
    expected = rf"cannot read {raw.url}: fewer than 1,000 bytes arrived in 0\.3 seconds {where}"
    assert re.fullmatch(expected, str(caught.value))


@pytest.mark.slow
def test_slow_server_times_out_with_default_settings(raw: Raw, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte a second, with the constants that users have."""
    monkeypatch.delenv("CNNKIT_HTTP_SECONDS")
    raw.reply(lambda _: drip(LENGTH, 1))

    def seconds(work: Callable[[], object]) -> float:
        began = time.monotonic()
        with pytest.raises(CnnkitError, match="tried 4 times"):
            work()
        return time.monotonic() - began

    with ThreadPoolExecutor(2) as pool:
        ways = [lambda: fetch([raw.url], tmp_path / "x", DIGEST), RemoteFile(raw.url).readall]
        assert all(55 < took < 75 for took in pool.map(seconds, ways))


def test_stalled_download_resumes_at_its_offset(raw: Raw, tmp_path: Path) -> None:
    half = len(PAYLOAD) // 2
    part = f"Content-Range: bytes {half}-{len(PAYLOAD) - 1}/{len(PAYLOAD)}"
    raw.reply(
        lambda _: [answer(PAYLOAD)[: -(len(PAYLOAD) - half)], 5.0],
        answer(PAYLOAD[half:], part, status="206 Partial Content"),
    )
    assert fetch([raw.url], tmp_path / "x", DIGEST).read_bytes() == PAYLOAD
    assert raw.range() == f"bytes={half}-"


def test_download_retries_as_long_as_it_progresses(raw: Raw, tmp_path: Path) -> None:
    """Whoever brings a kilobyte in an attempt goes on, so that a line that breaks all the time is no end."""

    def some(head: str) -> list[bytes]:
        found = re.search(r"Range: bytes=(\d+)-", head)
        first = int(found[1]) if found else 0
        body = PACKED[first:]
        part = f"Content-Range: bytes {first}-{len(PACKED) - 1}/{len(PACKED)}"
        return [answer(body, part, status="206 OK" if first else "200 OK")[: -max(0, len(body) - 1000) or None]]

    raw.reply(some)
    for read in (
        lambda: fetch([f"{raw.url}/x.gz"], tmp_path / "x", DIGEST).read_bytes(),
        lambda: gzip.decompress(RemoteFile(raw.url).readall()),
    ):
        raw.asked.clear()
        assert read() == PAYLOAD
        assert len(raw.asked) == -(-len(PACKED) // 1000) > 4


def test_wrong_range_restarts_the_download(raw: Raw, tmp_path: Path) -> None:
    wrong = answer(PAYLOAD[1:], f"Content-Range: bytes 1-{len(PAYLOAD) - 1}/{len(PAYLOAD)}", status="206 OK")
    raw.reply(answer(PAYLOAD)[:-5], wrong, answer(PAYLOAD))
    assert fetch([raw.url], tmp_path / "x", DIGEST).read_bytes() == PAYLOAD
    raw.reply(answer(PAYLOAD)[:-5], wrong, answer(PAYLOAD))
    assert RemoteFile(raw.url).readall() == PAYLOAD
    assert raw.range() is None


def test_short_partial_response_is_continued(raw: Raw, tmp_path: Path) -> None:
    size, half = len(PAYLOAD), len(PAYLOAD) // 2
    parts = [
        answer(PAYLOAD)[:-half],
        *(
            answer(PAYLOAD[a:b], f"Content-Range: bytes {a}-{b - 1}/{size}", status="206 OK")
            for a, b in ((half, half + 2000), (half + 2000, size))
        ),
    ]
    raw.reply(*parts)
    assert fetch([raw.url], tmp_path / "x", DIGEST).read_bytes() == PAYLOAD
    raw.reply(*parts)
    assert RemoteFile(raw.url).readall() == PAYLOAD


def test_oversized_download_is_refused(raw: Raw, tmp_path: Path) -> None:
    most = len(PAYLOAD) - 1
    raw.reply(answer(PAYLOAD))
    with pytest.raises(DataError, match=r"has 1,024,000 bytes; at most 1,023,999 are allowed"):
        fetch([raw.url], tmp_path / "x", DIGEST, most)
    raw.reply(lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\n\r\n"], itertools.repeat(bytes(1 << 16))))
    with pytest.raises(DataError, match=r"sent more bytes; at most 1,023,999 are allowed"):
        fetch([raw.url], tmp_path / "x", DIGEST, most)
    assert left(tmp_path) == []


def test_gzip_inflates_at_most_to_the_declared_size(raw: Raw, tmp_path: Path) -> None:
    raw.reply(answer(gzip.compress(bytes(100_000_000), 9)))
    with pytest.raises(DataError, match=r"gzip data that inflates to more than the 1,000,000 bytes of the file"):
        fetch([f"{raw.url}/x.gz"], tmp_path / "x", DIGEST, 1_000_000)
    raw.reply(answer(PACKED))
    with pytest.raises(DataError, match="inflates to more than"):
        fetch([f"{raw.url}/x.gz"], tmp_path / "x", DIGEST, len(PAYLOAD) - 1)
    assert left(tmp_path) == []
    assert fetch([f"{raw.url}/x.gz"], tmp_path / "x", DIGEST, len(PAYLOAD)).read_bytes() == PAYLOAD


# what the disk does not take


def test_download_larger_than_free_space_is_not_started(raw: Raw, tmp_path: Path) -> None:
    raw.reply(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000000000\r\n\r\n", bytes(1000)])
    with pytest.raises(CnnkitError, match=r"cannot write .*/x: it needs 1,000,000,000,000,000 more .* left; make room"):
        fetch([raw.url], tmp_path / "x", DIGEST, 10**16)
    assert left(tmp_path) == []


def test_disk_that_fills_up_is_an_error(raw: Raw, tmp_path: Path) -> None:
    raw.reply(answer(PAYLOAD))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]))
    try:
        with pytest.raises(CnnkitError, match=r"cannot write .*/x: File too large; make room") as caught:
            fetch([raw.url], tmp_path / "x", DIGEST)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert caught.value.exit_code == 1
    assert len(raw.asked) == 1


@pytest.mark.parametrize("name", ["{}", "{}.part", ".{}.lock"])
def test_folder_in_place_of_file_is_an_error(raw: Raw, tmp_path: Path, name: str) -> None:
    hidden = f"x.{hashlib.sha256(raw.url.encode()).hexdigest()[:8]}" if name == "{}.part" else "x"
    (tmp_path / name.format(hidden)).mkdir()
    raw.reply(answer(PAYLOAD))
    with pytest.raises(CnnkitError, match=r"cannot (write|lock) .*/\.?x.*: .*; choose another folder"):
        fetch([raw.url], tmp_path / "x", DIGEST)


def test_cache_that_is_a_file_is_an_error(raw: Raw, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(CnnkitError, match=r"cannot write .*/file"):
        fetch([raw.url], tmp_path / "file" / "x", DIGEST)


def test_pipe_in_place_of_file_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DataError, match="cannot be read"):
        open_bytes(str(tmp_path / "pipe"))


# what is trusted when it comes first


FIRST = hashlib.sha256(PAYLOAD).hexdigest()


@pytest.mark.parametrize(
    ("digest", "words"), [("", "its SHA-256 is not known"), (DIGEST[:8], "only 8 digits of its SHA-256 are")]
)
def test_first_download_pins_its_digest(
    raw: Raw, tmp_path: Path, digest: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    url, path, pin = f"{raw.url.replace('://', '://me:secret@')}/w", tmp_path / "w", tmp_path / "w.sha256"
    raw.reply(answer(PAYLOAD))
    fetch([url], path, digest)
    [line] = caplog.messages
    assert words in line
    assert f"as downloaded from {raw.url.replace('://', '://me:***@')}/w; w.sha256 saves {FIRST}" in line
    assert pin.read_text() == f"{FIRST}\n"
    caplog.clear()
    fetch([url], path, digest)
    assert (len(raw.asked), caplog.messages) == (1, [])

    path.write_bytes(b"another")  # and the server has the right one still
    fetch([url], path, digest)
    assert path.read_bytes() == PAYLOAD
    assert "was corrupt and has been downloaded again" in caplog.text

    path.write_bytes(b"another")
    raw.reply(answer(b"another"))
    with pytest.raises(DataError) as caught:
        fetch([url], path, digest)
    other, message = hashlib.sha256(b"another").hexdigest(), str(caught.value)
    assert message.startswith(f"{path} is another file: its SHA-256 is {other}, not {digest or FIRST}")
    if not digest:
        assert f"delete {pin} to accept it" in message
        pin.unlink()
        fetch([url], path)
        assert pin.read_text() == f"{other}\n"
    assert "secret" not in caplog.text + message


def test_file_changed_on_server_is_downloaded_again(raw: Raw, tmp_path: Path) -> None:
    raw.reply(answer(b"first"), answer(b"second"))
    fetch([raw.url], tmp_path / "w")
    (tmp_path / "w").unlink()
    second = hashlib.sha256(b"second").hexdigest()
    with pytest.raises(
        DataError, match=rf"another file: its SHA-256 is {second}, not .* as at the first download \(del"
    ):
        fetch([raw.url], tmp_path / "w")
    (tmp_path / "w.sha256").unlink()
    assert fetch([raw.url], tmp_path / "w").read_bytes() == b"second"


@pytest.mark.parametrize("content", [b"", b"no digest", b"\xff\x00", b"0" * 5000])
def test_corrupt_digest_file_is_an_error(raw: Raw, tmp_path: Path, content: bytes) -> None:
    raw.reply(answer(PAYLOAD))
    fetch([raw.url], tmp_path / "w")
    (tmp_path / "w.sha256").write_bytes(content)
    with pytest.raises(DataError, match=r"w\.sha256: .*; delete it"):
        fetch([raw.url], tmp_path / "w")


def test_existing_file_of_matching_digest_is_trusted(
    raw: Raw, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "w").write_bytes(PAYLOAD)
    fetch([raw.url], tmp_path / "w", FIRST[:8])
    assert raw.asked == []
    assert "as found at" in caplog.text


def test_parts_of_unidentified_files_are_not_joined(raw: Raw, tmp_path: Path) -> None:
    half = len(PAYLOAD) // 2
    raw.reply(*[answer(PAYLOAD, 'ETag: "1"')[:-half]] * 1, answer(b"other" * 999, 'ETag: "2"'))
    assert fetch([raw.url], tmp_path / "w").read_bytes() == b"other" * 999
    assert 'If-Range: "1"' in raw.asked[1]
    raw.reply(lambda _: [LENGTH, bytes(100)])
    with pytest.raises(DataError, match="the connection broke"):
        fetch([raw.url], tmp_path / "x")
    assert [path.name for path in tmp_path.glob("x.*.part")]
    raw.reply(answer(PAYLOAD))
    assert fetch([raw.url], tmp_path / "x").read_bytes() == PAYLOAD
    assert raw.range() is None


def test_log_lines_are_printable(raw: Raw, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    raw.reply(answer(PAYLOAD))
    fetch([raw.url], tmp_path / "\x1b[2J[bold]")
    assert caplog.messages[0].isprintable()
