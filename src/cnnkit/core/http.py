"""The HTTP client of downloads and remote shards: timeouts, retries with backoff, resuming with Range.

What a server sends is untrusted text: errors hold it unchanged, and `printable` escapes it.
"""

import base64
import http.client
import math
import os
import re
import ssl
import time
from urllib.parse import SplitResult, quote, unquote_to_bytes, urljoin, urlsplit

from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.transport import TimedResponse, open_timed

__all__ = ["BACKOFF", "MIN_BYTES", "Response", "Stream", "TransientError", "checked_url", "open_url", "timeout_seconds"]

# A modem of 1,200 baud is twice as fast: a whole file has no deadline, and only a connection that is nearly dead times
# out. All attempts together take about 65 seconds.
SECONDS, MIN_BYTES = 15.0, 1000
CONNECT = 2 / 3  # of these seconds, to reach one address of the server
BACKOFF = (1 / 30, 1 / 15, 2 / 15)  # of these seconds, before each retry: 3.5 in total
REDIRECTS = (301, 302, 303, 307, 308)
MAX_REDIRECTS = 5
RETRYABLE = (408, 429)  # and all from 500 to 599
PART = re.compile(r"bytes (?:([0-9]{1,18})-([0-9]{1,18})|\*)/(?:([0-9]{1,18})|\*)")
SHOWN = 200  # characters of a server's text in an error


def timeout_seconds() -> float:
    """Return the timeout for the start of a response and for each MIN_BYTES: `$CNNKIT_HTTP_SECONDS` or SECONDS.

    Raises UsageError for a value that is not a positive number of seconds.
    """
    given = os.environ.get("CNNKIT_HTTP_SECONDS") or SECONDS
    try:
        seconds = float(given)
    except ValueError:
        seconds = math.nan
    if not 0 < seconds < 1e6:
        raise UsageError(f"CNNKIT_HTTP_SECONDS is {given!r}: set it to a positive number of seconds")
    return seconds


class TransientError(Exception):
    """A request failed in a way that a retry may fix: no connection, a broken or slow one, a busy server."""


class Response:
    """A file as a server sends it, from byte `start` on; `length` is that of the whole file, None if unknown."""

    def __init__(self, response: TimedResponse, start: int, left: int | None, length: int | None):
        self.start, self.length, self.headers = start, length, response.headers
        self._response, self._left = response, left
        self._seconds, self._received = timeout_seconds(), 0

    @property
    def version(self) -> str | None:
        """The validator of this version of the file, for If-Range; None if the server sends none."""
        tag = self.headers.get("ETag", "")
        return tag if tag.startswith('"') else self.headers.get("Last-Modified")

    def __enter__(self) -> "Response":
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def read(self, most: int) -> bytes:
        """Return the bytes that have arrived, at most `most`; b"" at the end.

        Raises TransientError, with the reason alone, if the connection breaks or is too slow.
        """
        most = most if self._left is None else min(most, self._left)
        if not most:
            return b""
        began = time.monotonic()
        self._response.watch.until = began + self._seconds
        try:
            block = self._response.read1(most)
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise _transient(error) from error
        self._seconds -= time.monotonic() - began  # the caller's own time does not count
        self._received += len(block)
        if self._received >= MIN_BYTES:
            self._seconds, self._received = timeout_seconds(), 0
        if self._left is not None:
            self._left -= len(block)
            if not block:
                raise TransientError("the connection broke")
        return block

    def close(self) -> None:
        """Close the connection."""
        self._response.close()


class Stream:
    """A file on a web server, read forwards from the byte `position`; a broken connection is resumed where it broke.

    If the server cannot resume, or the file has changed, `position` returns to 0 before the next block. `length` is
    that of the whole file, None if unknown.
    """

    def __init__(self, url: str, position: int = 0):
        self.url = url
        self.length: int | None = None
        self._response: Response | None = None
        self._failures, self._received = 0, 0  # in a row; new bytes since the last failure
        self.seek(position)

    @property
    def is_open(self) -> bool:
        """Whether there is a connection."""
        return self._response is not None

    def seek(self, position: int) -> None:
        """Continue at another byte; no request is made yet."""
        self.close()
        self.position = self._furthest = position
        self._version: str | None = None

    def read(self, most: int) -> bytes:
        """Return the bytes that have arrived, at most `most`, and b"" at the end; with 0, only connect.

        Retries after each TransientError, and raises it with the position and the number of attempts after the last
        one; an attempt that brings MIN_BYTES resets the count. Raises DataError as `open_url` does.
        """
        while True:
            try:
                return self._read(most)
            except TransientError as error:
                self.close()
                self._failures = (0 if self._received >= MIN_BYTES else self._failures) + 1
                self._received = 0
                if self._failures > len(BACKOFF):
                    at = f"byte {self.position:,}" + ("" if self.length is None else f" of {self.length:,}")
                    raise TransientError(f"{error} (at {at}); tried {self._failures} times") from error
                time.sleep(BACKOFF[self._failures - 1] * timeout_seconds())

    def close(self) -> None:
        """Close the connection; `read` opens another one."""
        if self._response is not None:
            self._response.close()
            self._response = None

    def _read(self, most: int) -> bytes:
        if self._response is None:
            self._response = found = open_url(self.url, self.position, version=self._version)
            self.position, self.length, self._version = found.start, found.length, found.version
        block = self._response.read(most)
        self.position += len(block)
        self._received += max(0, self.position - self._furthest)
        self._furthest = max(self._furthest, self.position)
        if most and not block and self.position < (self.length or 0):
            raise TransientError("the server sent less than it announced")
        return block


def open_url(url: str, start: int = 0, *, method: str = "GET", version: str | None = None) -> Response:
    """Request a URL from the byte `start` on, if the server supports Range; the response says where it starts.

    With the `version` of an earlier response, it starts at 0 if the file has changed. Redirects are followed to http
    and https only, never from https to http. Raises, with the reason alone, DataError for an invalid URL and for what
    the server refuses, TransientError for what a retry may fix.
    """
    until = time.monotonic() + timeout_seconds()
    urls = [checked_url(url).geturl()]
    headers = {"Range": f"bytes={start}-"} if start else {}
    headers |= {"If-Range": version} if start and version else {}
    while True:
        response = _request(urls[-1], headers, method, until)
        location = response.headers.get("Location") if response.status in REDIRECTS else None
        if location is None:
            break
        response.close()
        urls.append(_redirected(urls, location))
    try:
        found = _parsed(response, urls[-1], start, method)
    except BaseException:
        response.close()
        raise
    if found is None:  # another range than the requested one
        response.close()
        return open_url(url, method=method)
    return found


def checked_url(url: str) -> SplitResult:
    """Return an http or https URL, quoted for a request; raises DataError, with the reason alone, for any other."""
    if not url.isprintable():
        raise DataError("invalid URL: it has unprintable characters")
    try:
        parts = urlsplit(quote(url, safe="!#$%&'()*+,/:;=?@[]~%"))._replace(fragment="")
        host, port = urlsplit(url).hostname or "", parts.port
        name = host if ":" in host else host.encode("idna").decode()
    except ValueError as error:
        raise DataError("invalid URL: its host or port is invalid") from error
    if parts.scheme not in ("http", "https"):
        raise DataError(f"only http:// and https:// are supported, not {parts.scheme}://")
    if not re.fullmatch(r"[\w.:%-]+", name):
        raise DataError(f"invalid URL: {name!r} is not a host" if name else "invalid URL: it has no host")
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    host = f"[{name}]" if ":" in name else name
    return parts._replace(netloc=f"{user}{host}{f':{port}' if port else ''}")


def _request(url: str, headers: dict[str, str], method: str, until: float) -> TimedResponse:
    parts = urlsplit(url)
    user, _, host = parts.netloc.rpartition("@")
    if user:
        headers = headers | {"Authorization": f"Basic {base64.b64encode(unquote_to_bytes(user)).decode()}"}
    try:
        target = parts._replace(netloc=host).geturl()
        return open_timed(target, headers, method, until, CONNECT * timeout_seconds())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _transient(error) from error


def _redirected(urls: list[str], location: str) -> str:
    """Return the URL that a server redirects to; raises DataError if it must not be opened."""
    here = urls[-1]
    try:
        there = urljoin(here, location.encode("latin-1").decode("utf-8", "replace"))
        target = checked_url(there).geturl()
    except DataError as error:
        raise DataError(f"it redirects to {there[:SHOWN]}: {error}") from error
    except ValueError as error:
        raise DataError(f"it redirects to {location[:SHOWN]}, which is not a URL") from error
    where = f"it redirects to {target[:SHOWN]}"
    if here.startswith("https:") and not target.startswith("https:"):
        raise DataError(f"{where}, from https to http, which is not safe")
    if target in urls:
        raise DataError(f"{where}, in a circle")
    if len(urls) > MAX_REDIRECTS:
        raise DataError(f"{where}, after {MAX_REDIRECTS} other redirects")
    return target


def _parsed(response: TimedResponse, url: str, start: int, method: str) -> Response | None:
    """Return a response by its headers, None for another range than requested; raises DataError for invalid headers."""
    headers, status = response.headers, response.status
    part = PART.fullmatch(headers.get("Content-Range", "").strip())
    first, last, whole = (None if one is None else int(one) for one in part.groups()) if part else (None, None, None)
    if status == 416 and start:  # the caller has the whole file, or the start of a longer one
        return Response(response, start, 0, whole) if whole in (None, start) else None
    if status not in (200, 203, 206):
        reason = f"the server says {status} {response.reason[:SHOWN]}".rstrip()
        raise TransientError(reason) if 500 <= status < 600 or status in RETRYABLE else DataError(reason)
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity") and not urlsplit(url).path.endswith((".gz", ".tgz")):  # else the file's own
        raise DataError(f"the server sends it with the Content-Encoding {encoding[:SHOWN]}, which was not requested")
    lengths = set(headers.get_all("Content-Length", ()))
    if len(lengths) > 1 or not all(re.fullmatch(r"\s*[0-9]{1,18}\s*", one) for one in lengths):
        raise DataError(f"the server sends the invalid Content-Length {', '.join(sorted(lengths))[:SHOWN]}")
    left = int(lengths.pop()) if lengths and not response.chunked else None
    if status != 206:
        return Response(response, 0, 0 if method == "HEAD" else left, left)
    if not start:
        raise DataError("the server sends a part (206), but the whole file was requested")
    if first != start or last is None or last < first or (whole is not None and last >= whole):
        return None
    size = last - first + 1
    return Response(response, start, size, whole) if left in (None, size) else None


def _transient(error: Exception) -> TransientError:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return TransientError(f"fewer than {MIN_BYTES:,} bytes arrived in {timeout_seconds():g} seconds")
    if isinstance(reason, http.client.IncompleteRead):
        return TransientError("the connection broke")
    words = (isinstance(reason, OSError) and not isinstance(reason, ssl.SSLError) and reason.strerror) or str(reason)
    words = words[:SHOWN] or type(reason).__name__
    return TransientError(words if isinstance(reason, OSError) else f"not a valid HTTP response ({words})")
