"""Servers over real sockets: of given bytes at a given speed, by a function, and of a folder behind a password."""

import base64
import socket
import ssl
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import urlsplit

Piece = bytes | float  # what is sent, or seconds of silence
Reply = Callable[[str], Iterable[Piece]]  # of a request's head


def answer(body: bytes = b"", *headers: str, status: str = "200 OK", length: bool = True) -> bytes:
    """Return an answer of HTTP/1.1."""
    lines = [f"HTTP/1.1 {status}", *([f"Content-Length: {len(body)}"] if length else []), *headers, "", ""]
    return "\r\n".join(lines).encode("latin-1") + body


def dribble(content: bytes, seconds: float) -> Iterator[Piece]:
    """Yield a byte at a time."""
    for byte in content:
        yield bytes([byte])
        yield seconds


def drip(first: bytes, seconds: float = 0.02) -> Iterator[Piece]:
    """Yield some bytes at once, and then one now and then, for ever."""
    yield first
    while True:
        yield b"x"
        yield seconds


@dataclass
class Raw:
    """What is asked, and what the next connections get; the last reply is given again and again."""

    port: int
    replies: list[Reply] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def reply(self, *replies: Reply | bytes) -> None:
        self.replies = [(lambda _, one=one: [one]) if isinstance(one, bytes) else one for one in replies]

    def range(self, number: int = -1) -> str | None:
        """Return the Range that was asked for."""
        lines = [line for line in self.asked[number].split("\r\n") if line.startswith("Range: ")]
        return lines[0].removeprefix("Range: ") if lines else None


@contextmanager
def raw_server(context: ssl.SSLContext | None = None) -> Iterator[Raw]:
    """Serve, with a `context` over TLS, until the test is over; connections that are open then are dropped."""
    over, threads = threading.Event(), list[threading.Thread]()
    with socket.create_server(("127.0.0.1", 0), backlog=50) as listener:
        server = Raw(listener.getsockname()[1])

        def serve(plain: socket.socket) -> None:
            with suppress(OSError), context.wrap_socket(plain, True) if context else plain as connection:
                connection.settimeout(1)
                head = b""
                while b"\r\n\r\n" not in head:
                    if not (more := connection.recv(65536)):
                        return
                    head += more
                server.asked.append(head.decode("latin-1"))
                reply = server.replies.pop(0) if len(server.replies) > 1 else server.replies[0]
                for piece in reply(server.asked[-1]):
                    if over.is_set():
                        return
                    if isinstance(piece, bytes):
                        connection.sendall(piece)
                    else:
                        over.wait(piece)

        def accept() -> None:
            while not over.is_set():
                with suppress(OSError):
                    connection, _ = listener.accept()
                    threads.append(threading.Thread(target=serve, args=(connection,)))
                    threads[-1].start()

        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield server
        over.set()
        socket.create_connection(("127.0.0.1", server.port), timeout=1).close()  # wakes it up
        for thread in threads:
            thread.join(5)


@contextmanager
def handler_server(reply: Callable[[BaseHTTPRequestHandler], None]) -> Iterator[str]:
    """Serve GET requests by `reply`, and return the URL of the server's root, without the last slash."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with suppress(ConnectionError):  # a client that has read enough hangs up
                reply(self)

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_port}"
        finally:
            http.shutdown()
            thread.join()


@contextmanager
def protected_folder(root: Path, user: str, password: str) -> Iterator[str]:
    """Serve a folder to who sends the user's name and password, and return its URL with them."""
    wanted = f"Basic {base64.b64encode(f'{user}:{password}'.encode()).decode()}"

    def reply(request: BaseHTTPRequestHandler) -> None:
        path = root / urlsplit(request.path).path.lstrip("/")
        if request.headers.get("Authorization") != wanted:
            request.send_error(401)
        elif not path.is_file():
            request.send_error(404)
        else:
            request.send_response(200)
            request.send_header("Content-Length", str(path.stat().st_size))
            request.end_headers()
            request.wfile.write(path.read_bytes())

    with handler_server(reply) as url:
        yield url.replace("://", f"://{user}:{password}@")
