"""Pages in a real browser: Debian's chromium, through playwright."""

import http.server
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from helpers.webserver import handler_server

CHROMIUM = Path("/usr/bin/chromium")
POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


@contextmanager
def chromium() -> Iterator[Any]:
    """Start the browser; skip the test, with the reason, where it is missing."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if not CHROMIUM.exists():
        pytest.skip(f"{CHROMIUM} is missing")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=str(CHROMIUM), args=["--no-sandbox"])
        yield browser
        browser.close()


@contextmanager
def shown(browser: Any, content: bytes, policy: str = "", **options: Any) -> Iterator[Any]:
    """Open an HTML file, served with a Content-Security-Policy; `page.events` lists what it asked for and said."""

    def reply(request: http.server.BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Type", "text/html; charset=utf-8")
        if policy:
            request.send_header("Content-Security-Policy", policy)
        request.end_headers()
        request.wfile.write(content)

    with handler_server(reply) as url:
        context = browser.new_context(reduced_motion="reduce", **options)  # smooth scrolling takes time
        page = context.new_page()
        page.set_default_timeout(10_000)
        page.events = []
        page.on("request", lambda asked: page.events.append(asked.url) if asked.url.startswith("http") else None)
        page.on("dialog", lambda dialog: (page.events.append(f"dialog {dialog.message}"), dialog.dismiss()))
        page.on("pageerror", lambda error: page.events.append(f"error {error}"))
        page.goto(f"{url}/")
        page.events.remove(f"{url}/")
        yield page
        context.close()
