"""urllib with a deadline: headers and bytes must arrive by a time, not only within a timeout of each read."""

import http.client
import io
import socket
import time
import urllib.request
from functools import partial
from typing import Any

__all__ = ["TimedResponse", "open_timed"]


def open_timed(url: str, headers: dict[str, str], method: str, until: float, timeout: float) -> "TimedResponse":
    """Send a request, without following redirects; the connection takes at most `timeout` seconds.

    The headers must arrive before `time.monotonic()` is `until`. Raises OSError, HTTPException and ValueError.
    """
    request = _Request(url, headers=headers, method=method)
    request.until = until
    opener = urllib.request.OpenerDirector()  # urllib's default one opens files and follows redirects
    for handler in (urllib.request.ProxyHandler(), _Web(), urllib.request.UnknownHandler()):  # the last for proxies
        opener.add_handler(handler)
    response: TimedResponse = opener.open(request, timeout=timeout)
    return response


class _Request(urllib.request.Request):
    until = 0.0


class _Watch(io.RawIOBase):
    """A connection that times out at `until`; a socket's own timeout would allow a byte a second without end."""

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


class TimedResponse(http.client.HTTPResponse):
    """A response whose deadline is `watch.until`."""

    watch: _Watch

    def __init__(self, connection: socket.socket, *arguments: Any, until: float, **options: Any):
        super().__init__(connection, *arguments, **options)
        self.watch = _Watch(connection, self.fp.detach(), until)
        self.fp = io.BufferedReader(self.watch)


class _Connection(http.client.HTTPConnection):
    def __init__(self, host: str, *, until: float, **options: Any):
        super().__init__(host, **options)
        self.response_class = partial(TimedResponse, until=until)  # type: ignore[assignment]  # its type is a class


class _Secure(_Connection, http.client.HTTPSConnection):
    pass


class _Web(urllib.request.HTTPHandler, urllib.request.HTTPSHandler):
    def http_open(self, request: Any) -> Any:
        return self.do_open(partial(_Connection, until=request.until), request)

    def https_open(self, request: Any) -> Any:
        return self.do_open(partial(_Secure, until=request.until), request)
