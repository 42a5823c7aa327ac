"""What the verbs print with: tables for people, JSON for programs, and what is logged."""

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pydantic import BaseModel
from rich.console import Console

from cnnkit.core.console import PatientConsole, table

__all__ = ["console", "given_flags", "narrated", "page", "print_json", "table"]

console = PatientConsole(highlight=False)
page = PatientConsole(
    highlight=False, width=max(console.width, 120)
)  # a narrow terminal wraps it, but no number is cut


def print_json(content: Any) -> None:
    """Print `content` as JSON to standard output, and nothing else."""
    text = json.dumps(content, indent=1, ensure_ascii=False)
    print(text.encode("utf-8", "backslashreplace").decode())  # names of files may hold bytes that are not UTF-8


def given_flags(settings: BaseModel, net: str | None) -> dict[str, Any]:
    """Return the settings that were given as flags, and the network."""
    return settings.model_dump(mode="json", include=settings.model_fields_set) | ({"net": net} if net else {})


@contextmanager
def narrated(room: str, screen: Console) -> Iterator[None]:
    """Print what a room logs, a line each."""
    logger, handler = logging.getLogger(room), _Printer(screen)
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)


class _Printer(logging.Handler):
    def __init__(self, screen: Console):
        super().__init__(logging.INFO)
        self.screen = screen

    def emit(self, record: logging.LogRecord) -> None:
        self.screen.print(record.getMessage(), markup=False, soft_wrap=True)
