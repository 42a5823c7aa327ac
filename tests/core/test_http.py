"""HTTP responses of slow, false, redirecting and endless servers."""

import base64
import itertools
import shutil
import ssl
import subprocess
import time
from collections.abc import Iterator

import pytest

from cnnkit.core.console import PatientConsole
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.http import BACKOFF, MIN_BYTES, SECONDS, TransientError, open_url, timeout_seconds
from cnnkit.core.text import is_url, printable
from helpers.webserver import Raw, answer, dribble, drip, raw_server

QUICK = 0.3


@pytest.fixture
def server() -> Iterator[Raw]:
    with raw_server() as raw:
        yield raw


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A short timeout, for tests of slow servers alone: any other request may be late on a busy machine."""
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", str(QUICK))


def whole(url: str, start: int = 0) -> bytes:
    with open_url(url, start) as found:
        return b"".join(iter(lambda: found.read(1 << 16), b""))


def test_default_timeouts_end_within_90_seconds() -> None:
    """Four attempts and three pauses: a server that dribbles for ever is given up within 90 seconds."""
    assert (len(BACKOFF) + 1 + sum(BACKOFF)) * SECONDS < 70
    assert MIN_BYTES / SECONDS < 100


@pytest.mark.parametrize("said", ["soon", "-1", "0", "nan", "inf", "1e9"])
def test_invalid_timeout_setting_is_refused(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", said)
    with pytest.raises(UsageError, match="CNNKIT_HTTP_SECONDS is"):
        timeout_seconds()


def endless(text: bytes) -> Iterator[bytes]:
    return itertools.repeat(text * 1000)


SLOW = {
    "nothing": lambda _: [60.0],
    "a status line byte by byte": lambda _: dribble(b"HTTP/1.1 200 OK\r\n" * 100, 0.02),
    "headers byte by byte": lambda _: drip(b"HTTP/1.1 200 OK\r\nX: "),
    "headers without end, a few at a time": lambda _: itertools.cycle([b"HTTP/1.1 200 OK\r\n", b"X: y\r\n", 0.05]),
    "interim answers without end": lambda _: endless(b"HTTP/1.1 100 Continue\r\n\r\n"),
    "interim answers now and then": lambda _: itertools.cycle([b"HTTP/1.1 100 Continue\r\n\r\n", 0.05]),
    "a body byte by byte": lambda _: drip(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n"),
    "a body without length byte by byte": lambda _: drip(b"HTTP/1.1 200 OK\r\n\r\n"),
    "chunks byte by byte": lambda _: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"], itertools.cycle([b"1\r\nx\r\n", 0.02])
    ),
    "a chunk's extension without end": lambda _: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5;"], itertools.repeat(b"x")
    ),
    "trailers without end": lambda _: itertools.chain(
        [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n"], endless(b"X: y\r\n")
    ),
    "a status line without end": lambda _: endless(b"x"),
    "headers without end": lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\n"], endless(b"X: y\r\n")),
    "a header without end": lambda _: itertools.chain([b"HTTP/1.1 200 OK\r\nX: "], endless(b"y")),
    "a cut within a chunk": lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc"],
    "a chunk of no size": lambda _: [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\x1b[31m\r\nabc"],
    "a cut": lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nabc"],
    "no HTTP": lambda _: [b"\x1b[2J SSH-2.0\r\n\r\n"],
    "silence": lambda _: [b""],
}


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("how", SLOW)
def test_slow_or_endless_response_times_out(server: Raw, how: str) -> None:
    server.reply(SLOW[how])
    began = time.monotonic()
    with pytest.raises(TransientError) as caught:
        whole(server.url)
    assert time.monotonic() - began < 4 * QUICK + 1
    assert len(str(caught.value)) < 300


@pytest.mark.usefixtures("quick")
def test_server_at_the_minimum_rate_is_accepted(server: Raw) -> None:
    body = bytes(range(250)) * 40  # in four times the seconds in which MIN_BYTES must come
    pieces = [piece for start in range(0, len(body), 500) for piece in (body[start : start + 500], QUICK / 5)]
    server.reply(lambda _: [answer(body)[: -len(body)], *pieces])
    began = time.monotonic()
    assert whole(server.url) == body
    assert time.monotonic() - began > 2 * QUICK


@pytest.mark.usefixtures("quick")
def test_slow_reader_is_not_a_slow_server(server: Raw) -> None:
    server.reply(answer(bytes(2000)))
    with open_url(server.url) as found:
        count = 0
        while block := found.read(100):
            count += len(block)
            time.sleep(QUICK / 8)
    assert count == 2000


@pytest.mark.parametrize("status", [200, 203])
def test_body_is_read_up_to_its_declared_length(server: Raw, status: int) -> None:
    server.reply(answer(b"12345", "X: y", status=f"{status} OK") + b"and more")
    assert whole(server.url) == b"12345"


@pytest.mark.parametrize("said", ["-5", "five", "5.0", "5, 6", "0x5", "+5", "5_0", "9" * 30])
def test_invalid_content_length_is_refused(server: Raw, said: str) -> None:
    server.reply(answer(b"12345", f"Content-Length: {said}", length=False))
    with pytest.raises(DataError, match="invalid Content-Length "):
        whole(server.url)


def test_two_content_lengths_are_refused(server: Raw) -> None:
    server.reply(answer(b"12345", "Content-Length: 7"))
    with pytest.raises(DataError, match="invalid Content-Length 5, 7"):
        whole(server.url)


def test_requested_range_is_returned(server: Raw) -> None:
    server.reply(answer(b"345", "Content-Range: bytes 2-4/5", status="206 Partial Content"))
    assert whole(server.url, 2) == b"345"
    assert server.range() == "bytes=2-"


@pytest.mark.parametrize(
    "said",
    [
        "bytes 1-3/5",
        "bytes 0-2/5",
        "bytes 3-5/5",
        "bytes 2-1/5",
        "bytes 2-4/3",
        "bytes 2-9/10",  # and three bytes
        "bytes */5",
        "items 2-4/5",
        "bytes -2-4/5",
        "",
    ],
)
def test_response_with_wrong_range_is_refused(server: Raw, said: str) -> None:
    server.reply(answer(b"345", f"Content-Range: {said}", status="206 Partial Content"), answer(b"12345"))
    with open_url(server.url, 2) as found:
        assert (found.start, found.read(100)) == (0, b"12345")
    assert server.range() is None
    assert len(server.asked) == 2


def test_unrequested_partial_response_is_refused(server: Raw) -> None:
    server.reply(answer(b"345", "Content-Range: bytes 2-4/5", status="206 Partial Content"))
    with pytest.raises(DataError, match="sends a part"):
        whole(server.url)


def test_range_behind_the_end_is_empty(server: Raw) -> None:
    server.reply(answer(b"", "Content-Range: bytes */5", status="416 Range Not Satisfiable"))
    with open_url(server.url, 5) as found:
        assert (found.start, found.read(100)) == (5, b"")
    server.reply(
        answer(b"", "Content-Range: bytes */3", status="416 Range Not Satisfiable"), answer(b"123")
    )  # the file is shorter now
    with open_url(server.url, 5) as found:
        assert (found.start, found.read(100)) == (0, b"123")


@pytest.mark.parametrize("said", ["gzip", "br", "\x1b[2J", "GZIP"])
def test_unrequested_encoding_is_refused(server: Raw, said: str) -> None:
    server.reply(answer(b"12345", f"Content-Encoding: {said}"))
    with pytest.raises(DataError, match="which was not requested") as caught:
        whole(f"{server.url}/w.pth")
    assert str(caught.value).isprintable()
    assert "Accept-Encoding: identity" in server.asked[0]


def test_gzip_content_encoding_of_gzip_file_is_accepted(server: Raw) -> None:
    server.reply(answer(b"12345", "Content-Encoding: x-gzip"))
    assert whole(f"{server.url}/file.gz") == b"12345"


@pytest.mark.parametrize("code", [204, 205, 299, 304, 400, 401, 404, 410, 416, 999])
def test_http_error_status_is_reported(server: Raw, code: int) -> None:
    server.reply(answer(b"", status=f"{code} \x1b[2J [bold]no[/] {'x' * 2000}"))
    with pytest.raises(DataError, match=rf"the server says {code} \\x1b\[2J \[bold\]no") as caught:
        whole(server.url)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize("code", [408, 429, 500, 503])
def test_retryable_status_raises_broken(server: Raw, code: int) -> None:
    server.reply(answer(b"", status=f"{code} Later"))
    with pytest.raises(TransientError, match=f"the server says {code} Later"):
        whole(server.url)


# where a server leads


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_redirects_are_followed(server: Raw, code: int) -> None:
    moved = answer(b"", "Location: /b%20c d", status=f"{code} Moved")
    server.reply(moved, answer(b"12345"))
    assert whole(f"{server.url}/a#part") == b"12345"
    assert [head.split()[1] for head in server.asked] == ["/a", "/b%20c%20d"]


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (
            "file:///etc/passwd",
            "it redirects to file:///etc/passwd: only http:// and https:// are supported, not file://",
        ),
        ("ftp://host/x", "not ftp://"),
        ("data:text/plain,x", "not data://"),
        ("https:///x", "it has no host"),
        ("http://ho st/", "not a host"),
        ("http://host:x/", "invalid URL"),
        ("http://a/\x1b[2J", "unprintable characters"),
        ("http://\x1b[2J", "not a URL"),
        ("/a", "in a circle"),
    ],
)
def test_unsafe_redirect_is_refused(server: Raw, place: str, words: str) -> None:
    server.reply(answer(b"", f"Location: {place}", status="302 Found"))
    with pytest.raises(DataError) as caught:
        whole(f"{server.url}/a")
    assert words in str(caught.value)
    assert str(caught.value).startswith("it redirects to ")
    assert str(caught.value).isprintable()


def test_endless_redirects_are_refused(server: Raw) -> None:
    count = itertools.count(1)
    server.reply(lambda _: [answer(b"", f"Location: /{next(count)}", status="302 Found")])
    with pytest.raises(DataError, match=r"it redirects to .*/6, after 5 other redirects"):
        whole(server.url)
    assert len(server.asked) == 6


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl makes the certificate")
def test_redirect_from_https_to_http_is_refused(server: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    name = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    make = ["openssl", "req", "-x509", "-nodes", "-newkey", "rsa:2048", "-keyout", "key", "-out", "certificate", *name]
    subprocess.run(make, check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain("certificate", "key")
    server.reply(answer(b"12345"))
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "5")
    with raw_server(context) as secure:
        url = secure.url.replace("http:", "https:")
        secure.reply(answer(b"12345"))
        with pytest.raises(TransientError, match="certificate verify failed"):
            whole(url)
        monkeypatch.setenv("SSL_CERT_FILE", "certificate")
        assert whole(url) == b"12345"
        secure.reply(answer(b"", f"Location: {server.url}/x", status="301 Moved"))
        with pytest.raises(DataError, match=f"it redirects to {server.url}/x, from https to http"):
            whole(url)
        server.reply(answer(b"", f"Location: {url}", status="301 Moved"))
        secure.reply(answer(b"12345"))
        assert whole(server.url) == b"12345"
        monkeypatch.setenv("CNNKIT_HTTP_SECONDS", str(QUICK))
        secure.reply(lambda _: drip(b"HTTP/1.1 200 OK\r\nX: "))
        with pytest.raises(TransientError, match=r"fewer than 1,000 bytes arrived"):
            whole(url)


@pytest.mark.usefixtures("quick")
def test_slow_redirect_shares_the_timeout(server: Raw) -> None:
    count = itertools.count(1)
    server.reply(lambda _: [QUICK / 2, answer(b"", f"Location: /{next(count)}", status="302 Found")])
    began = time.monotonic()
    with pytest.raises(TransientError, match=r"fewer than 1,000 bytes arrived in 0\.3 seconds"):
        whole(server.url)
    assert time.monotonic() - began < 3 * QUICK


# what is no URL


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("ftp://host/x", "only http:// and https:// are supported, not ftp://"),
        ("file:///etc/passwd", "not file://"),
        ("http://", "it has no host"),
        ("http:///x", "it has no host"),
        ("https://:80/x", "it has no host"),
        ("http://me:pass@/x", "it has no host"),
        ("http://a b/x", "is not a host"),
        ("http://[::1/x", "its host or port is invalid"),
        ("http://host:99999/x", "its host or port is invalid"),
        ("http://host:port/x", "its host or port is invalid"),
        ("http://" + "a" * 70 + "/x", "its host or port is invalid"),
        ("http://a..b/x", "its host or port is invalid"),
        ("http://host/\x1b[2J", "unprintable characters"),
        ("http://host/a\nHost: other", "unprintable characters"),
        ("http://host/\x00", "unprintable characters"),
        ("http://host/\udce9", "unprintable characters"),
    ],
)
def test_invalid_url_is_refused(url: str, words: str) -> None:
    with pytest.raises(DataError, match=words):
        open_url(url)


def test_urls_are_recognised() -> None:
    assert all(map(is_url, ["http://x", "HTTPS://x", "ftp://x", "s3://x"]))
    assert not any(map(is_url, ["x.tar", "/a/b", "C:\\x", "http:/x", "://x", "a b://x"]))


def test_url_characters_are_percent_encoded(server: Raw) -> None:
    server.reply(answer(b"12345"))
    assert whole(f"{server.url}/Übung 1/a%20b.tar?x=[ü]") == b"12345"
    assert server.asked[0].split()[1] == "/%C3%9Cbung%201/a%20b.tar?x=[%C3%BC]"


# passwords


def test_password_is_sent_but_never_shown(server: Raw, capsys: pytest.CaptureFixture[str]) -> None:
    server.reply(answer(b"", "Location: /b", status="302 Found"), answer(b"12345"))
    url = server.url.replace("://", "://me:s%40crt@")
    assert whole(url) == b"12345"
    sent = base64.b64encode(b"me:s@crt").decode()
    assert all(f"Authorization: Basic {sent}" in head for head in server.asked)
    assert "s%40crt" not in str(CnnkitError(f"cannot read {url}"))
    PatientConsole(stderr=True).say(f"{url} [bold]x[/]")
    assert "me:***@127.0.0.1" in (shown := capsys.readouterr().err)
    assert "[bold]x[/]" in shown
    assert printable("http://a:b@c@host/x and https://d:e@host") == "http://a:***@host/x and https://d:***@host"
    assert printable("see http://host:80/x, or mail me@host") == "see http://host:80/x, or mail me@host"


def test_password_is_not_sent_to_another_host(server: Raw) -> None:
    server.reply(answer(b"", f"Location: http://localhost:{server.port}/b", status="302 Found"), answer(b"12345"))
    assert whole(server.url.replace("://", "://me:secret@")) == b"12345"
    assert "Authorization" in server.asked[0]
    assert "Authorization" not in server.asked[1]


def test_unsupported_proxy_is_refused(server: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "socks5://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "")
    with pytest.raises(TransientError, match="socks5"):
        whole(server.url)


@pytest.mark.usefixtures("quick")
def test_proxy_is_used(server: Raw, monkeypatch: pytest.MonkeyPatch) -> None:
    server.reply(answer(b"12345"))
    monkeypatch.setenv("http_proxy", server.url)
    monkeypatch.setenv("no_proxy", "")
    assert whole("http://host.invalid/x") == b"12345"
    assert server.asked[0].startswith("GET http://host.invalid/x HTTP/1.1")
    server.reply(lambda _: drip(b"HTTP/1.1 200 Connection established\r\nX: "))
    monkeypatch.setenv("https_proxy", server.url)
    with pytest.raises(TransientError, match=r"fewer than 1,000 bytes arrived"):
        whole("https://host.invalid/x")
