"""Output of the verbs: tables, JSON, error lines and log lines."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel

from cnnkit.core.console import PatientConsole, table
from cnnkit.core.text import printable, to_json

__all__ = ["complain", "console", "given_flags", "page", "print_json", "printing_logs", "table"]

console = PatientConsole()
page = PatientConsole(width=max(console.width, 120))  # a narrow terminal wraps tables; rich would cut figures


def print_json(content: Any) -> None:
    """Print `content` as JSON to standard output, in ASCII unless its encoding is a UTF."""
    print(to_json(content, ascii=not console.encoding.startswith("utf")))


def complain(message: str) -> None:
    """Print an error or a warning as one line to standard error."""
    print(f"cnnkit: {printable(message)}", file=sys.stderr)


def given_flags(settings: BaseModel, net: str | None) -> dict[str, Any]:
    """Return the settings that were set by flags, and the network."""
    return settings.model_dump(mode="json", include=settings.model_fields_set) | ({"net": net} if net else {})


@contextmanager
def printing_logs(package: str, screen: PatientConsole) -> Iterator[None]:
    """Print the log records of the package `package` while the block runs, one line each."""
    logger, handler = logging.getLogger(package), _Printer(screen)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Printer(logging.Handler):
    def __init__(self, screen: PatientConsole):
        super().__init__(logging.INFO)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self.screen.say(record.getMessage())
