"""Files on web servers: one place that opens URLs for everybody, and gives up on servers that hardly answer.

What a server says is foreign text: errors hold it as it is, and `printable` shows it.
"""

import base64
import http.client
import io
import math
import os
import re
import socket
import ssl
import time
import urllib.request
from functools import partial
from typing import Any
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

from cnnkit.core.errors import DataError, UsageError

__all__ = ["LEAST_BYTES", "PAUSES", "Answer", "Attempts", "Broken", "checked_url", "open_url", "patience"]

# A modem of 1,200 baud brings twice as much: large files over slow lines take their time, there is no deadline for a
# whole file, and only what hardly comes at all counts as broken. All attempts together take some 65 seconds.
SECONDS, LEAST_BYTES = 15.0, 1000
CONNECT = 2 / 3  # of these seconds, to reach one address of the server
PAUSES = (1 / 30, 1 / 15, 2 / 15)  # of these seconds, before each further attempt: 3.5 in all
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
BUSY = (408, 429)  # answers below 500 that are worth another attempt
PART = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/(?:([0-9]{1,18})|\*)")
WORDS = 200  # letters of what a server says, in an error


def patience() -> float:
    """Return the seconds in which LEAST_BYTES must come, and an answer begin: `$CNNKIT_HTTP_SECONDS`, else SECONDS.

    Raises UsageError for a value that is not a positive number of seconds.
    """
    said = os.environ.get("CNNKIT_HTTP_SECONDS") or SECONDS
    try:
        seconds = float(said)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise UsageError(f"CNNKIT_HTTP_SECONDS is {said!r}: give a number of seconds above 0")
    return seconds


class Broken(Exception):
    """A connection cannot be made, broke or is too slow, or a server is busy: another attempt may mend it."""


class Attempts:
    """Counts attempts in a row that brought next to nothing, and waits before each further one."""

    def __init__(self) -> None:
        self.failed = 0

    def go_on(self, received: int) -> bool:
        """Count a failure that came after so many new bytes; wait and return True if another attempt is worth it."""
        self.failed = (0 if received >= LEAST_BYTES else self.failed) + 1
        if self.failed > len(PAUSES):
            return False
        time.sleep(PAUSES[self.failed - 1] * patience())
        return True


class Answer:
    """A file as a server sends it, from the byte `start` on; `length` is that of the whole file, if the server says."""

    def __init__(self, response: "_Response", start: int, left: int | None, length: int | None):
        self.start, self.length, self.headers = start, length, response.headers
        self._response, self._left = response, left
        self._seconds, self._received = patience(), 0

    @property
    def version(self) -> str | None:
        """What tells the file from a later one of the same URL, if the server says."""
        tag = self.headers.get("ETag", "")
        return tag if tag.startswith('"') else self.headers.get("Last-Modified")

    def __enter__(self) -> "Answer":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, most: int) -> bytes:
        """Return the next bytes, as many as come at once; none at the end.

        Raises Broken, with the reason alone, if the connection broke or is too slow.
        """
        most = most if self._left is None else min(most, self._left)
        if not most:
            return b""
        began = time.monotonic()
        self._response.watch.until = began + self._seconds
        try:
            block = self._response.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _broken(error) from error
        self._seconds -= time.monotonic() - began  # what the caller does meanwhile does not count
        self._received += len(block)
        if self._received >= LEAST_BYTES:
            self._seconds, self._received = patience(), 0
        if self._left is not None:
            self._left -= len(block)
            if not block:
                raise Broken("the connection broke")
        return block

    def close(self) -> None:
        """Hang up."""
        self._response.close()


def open_url(url: str, start: int = 0, *, method: str = "GET", version: str | None = None) -> Answer:
    """Ask for the file of a URL, from a byte on where the server can do that: the answer says where it starts.

    With the `version` of an earlier answer, it starts at 0 if the file is another one now.
    Redirects are followed to http and https alone, never from https to http. Raises DataError, with the reason alone,
    for what is no such URL and for what the server refuses; Broken, with the reason alone, for what another attempt may
    mend.
    """
    until = time.monotonic() + patience()
    asked = [checked_url(url).geturl()]
    headers = {"Range": f"bytes={start}-"} if start else {}
    headers |= {"If-Range": version} if start and version else {}
    while True:
        response = _ask(asked[-1], headers, method, until)
        place = response.headers.get("Location") if response.status in REDIRECTS else None
        if place is None:
            break
        response.close()
        asked.append(_follow(asked, place))
    try:
        answer = _understood(response, asked[-1], start, method)
    except BaseException:
        response.close()
        raise
    if answer is None:  # another part than the one that was asked for
        response.close()
        return open_url(url, method=method)
    return answer


def checked_url(url: str) -> SplitResult:
    """Return a URL of http or https as it is sent; raises DataError, with the reason alone, for what is none."""
    if not url.isprintable():
        raise DataError("no URL: it has characters that cannot be printed")
    try:
        parts = urlsplit(quote(url, safe="!#$%&'()*+,/:;=?@[]~%"))._replace(fragment="")
        host, port = urlsplit(url).hostname or "", parts.port
        name = host if ":" in host else host.encode("idna").decode()
    except ValueError as error:
        raise DataError("no URL: its host or its port is none") from error
    if parts.scheme not in ("http", "https"):
        raise DataError(f"only http:// and https:// are opened, not {parts.scheme}://")
    if not re.fullmatch(r"[\w.:%-]+", name):
        raise DataError(f"no URL: {name!r} is no host" if name else "no URL: it names no host")
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    place = f"[{name}]" if ":" in name else name
    return parts._replace(netloc=f"{user}{place}{f':{port}' if port else ''}")


def _ask(url: str, headers: dict[str, str], method: str, until: float) -> "_Response":
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if user:
        headers = headers | {"Authorization": f"Basic {base64.b64encode(unquote_to_bytes(user)).decode()}"}
    request = _Request(parts._replace(netloc=host).geturl(), headers=headers, method=method)
    request.until = until
    opener = urllib.request.OpenerDirector()  # of urllib's own, one opens files and follows redirects
    for handler in (urllib.request.ProxyHandler(), _Web(), urllib.request.UnknownHandler()):  # of proxies' schemes
        opener.add_handler(handler)
    try:
        response: _Response = opener.open(request, timeout=CONNECT * patience())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _broken(error) from error
    return response


def _follow(asked: list[str], place: str) -> str:
    """Return the URL that a server leads to; raises DataError if it is not to be opened."""
    here = asked[-1]
    try:
        there = urljoin(here, place.encode("latin-1").decode("utf-8", "replace"))
        target = checked_url(there).geturl()
    except DataError as error:
        raise DataError(f"it leads to {there[:WORDS]}: {error}") from error
    except ValueError as error:
        raise DataError(f"it leads to {place[:WORDS]}, which is no URL") from error
    where = f"it leads to {target[:WORDS]}"
    if here.startswith("https:") and not target.startswith("https:"):
        raise DataError(f"{where}, from https to http, where anybody could change it")
    if target in asked:
        raise DataError(f"{where}, and so on in a circle")
    if len(asked) > MAX_REDIRECTS:
        raise DataError(f"{where}, after {MAX_REDIRECTS} other places")
    return target


def _understood(response: "_Response", url: str, start: int, method: str) -> Answer | None:
    """Return what an answer holds, None if it is another part than asked; raises DataError for what makes no sense."""
    headers, status = response.headers, response.status
    part = PART.fullmatch(headers.get("Content-Range", "").strip())
    first, last, whole = (None if one is None else int(one) for one in part.groups()) if part else (None, None, None)
    if status == 416 and start:  # nothing lies behind what the caller has, or it is of a longer file
        return Answer(response, start, 0, whole) if whole in (None, start) else None
    if status not in (200, 203, 206):
        reason = f"the server says {status} {response.reason[:WORDS]}".rstrip()
        raise Broken(reason) if 500 <= status < 600 or status in BUSY else DataError(reason)
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity") and not urlsplit(url).path.endswith((".gz", ".tgz")):  # else it is the file's
        raise DataError(f"the server sends it in the encoding {encoding[:WORDS]}, which nobody asked for")
    said = set(headers.get_all("Content-Length", ()))
    if len(said) > 1 or not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", one) for one in said):
        raise DataError(f"the server says a Content-Length of {', '.join(sorted(said))[:WORDS]}, which is no length")
    left = int(said.pop()) if said and not response.chunked else None
    if status != 206:
        return Answer(response, 0, 0 if method == "HEAD" else left, left)
    if not start:
        raise DataError("the server sends a part (206) of what was asked for as a whole")
    if first != start or last is None or last < first or (whole is not None and last >= whole):
        return None
    size = last - first + 1
    return Answer(response, start, size, whole) if left in (None, size) else None


def _broken(error: Exception) -> Broken:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return Broken(f"fewer than {LEAST_BYTES:,} bytes came in {patience():g} seconds")
    if isinstance(reason, http.client.IncompleteRead):
        return Broken("the connection broke")
    words = (isinstance(reason, OSError) and not isinstance(reason, ssl.SSLError) and reason.strerror) or str(reason)
    words = words[:WORDS] or type(reason).__name__
    return Broken(words if isinstance(reason, OSError) else f"no answer that HTTP knows ({words})")


class _Request(urllib.request.Request):
    until = 0.0


class _Watch(io.RawIOBase):
    """A connection whose bytes must come `until` some time; without it, a byte a second would keep it for ever."""

    def __init__(self, connection: socket.socket, raw: io.RawIOBase, until: float):
        super().__init__()
        self.connection, self.raw, self.until = connection, raw, until

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int | None:
        seconds = self.until - time.monotonic()
        if seconds <= 0:
            raise TimeoutError
        self.connection.settimeout(seconds)
        return self.raw.readinto(buffer)

    def close(self) -> None:
        self.raw.close()
        super().close()


class _Response(http.client.HTTPResponse):
    watch: _Watch

    def __init__(self, connection: socket.socket, *arguments: Any, until: float, **options: Any):
        super().__init__(connection, *arguments, **options)
        self.watch = _Watch(connection, self.fp.detach(), until)
        self.fp = io.BufferedReader(self.watch)


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, until: float, **options: Any):
        super().__init__(host, **options)
        self.response_class = partial(_Response, until=until)  # type: ignore[assignment]  # its type is a class


class _Secure(_Connection, http.client.HTTPSConnection):
    pass


class _Web(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(partial(_Connection, until=request.until), request)

    def https_open(self, request: Any) -> Any:
        return self.do_open(partial(_Secure, until=request.until), request)
