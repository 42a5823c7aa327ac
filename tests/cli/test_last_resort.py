"""Unexpected errors: one line and a report in a file; the traceback only on request."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from helpers.cli import Cli, Result, one_line


def broken(error: str, *arguments: str, **environment: str) -> Result:
    """Run `cnnkit nets` in a process of its own, in which listing the zoo raises an error."""
    code = (
        "import sys, cnnkit.nets.zoo as zoo, cnnkit.nets\n"
        f"def fail(*_): raise {error}\n"
        "zoo.list_networks = cnnkit.nets.list_networks = fail\n"
        "sys.argv[0] = 'cnnkit'\n"
        "from cnnkit.__main__ import main\n"
        "main()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "nets", *arguments], capture_output=True, text=True, env=os.environ | environment
    )
    return Result(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("ValueError('it broke\\nin two')", "ValueError: it broke in two; this is a bug in cnnkit"),
        ("KeyError('x')", "KeyError: 'x'; "),
        ("RecursionError('maximum depth')", "RecursionError: maximum depth; "),
        ("AssertionError", "AssertionError; this is a bug"),
        ("ImportError('torch')", "ImportError: torch; "),
        ("type('Mute', (Exception,), {'__str__': lambda self: 1 / 0})()", "unexpected error: Mute; "),
        ("RuntimeError('\\x1b[31mred' + 'x' * 10_000)", "RuntimeError: \\x1b[31mred"),
    ],
)
def test_unexpected_error_is_one_line_and_a_report(error: str, words: str) -> None:
    result = broken(error, "postgresql://me:secret@host/x")
    one_line(result, 1, "unexpected error: ", words, "; the full report is in ")
    assert len(result.err) < 1_000
    report = Path(result.err.rpartition("the full report is in ")[2].rstrip("\n"))
    assert report.parent == Path("cache/reports").absolute()
    text = report.read_text()
    for part in ("Traceback", "in fail", "torch 2", "Python 3", "command: cnnkit nets postgresql://me:***@host/x"):
        assert part in text or (part == "Traceback" and "Mute" in text)
    assert "secret" not in text


def test_traceback_is_shown_on_request() -> None:
    result = broken("ValueError('it broke')", CNNKIT_DEBUG="1")
    assert result.code == 1
    assert "Traceback (most recent call last)" in result.err
    assert result.err.endswith("ValueError: it broke\n")
    assert not Path("cache/reports").exists()


def test_report_is_written_to_a_writable_folder() -> None:
    Path("file").touch()
    Path("elsewhere").mkdir()
    result = broken("ValueError", CNNKIT_CACHE="file", TMPDIR=str(Path("elsewhere").absolute()))
    one_line(result, 1, f"the full report is in {Path('elsewhere').absolute()}")
    assert len(list(Path("elsewhere").iterdir())) == 1


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ("MemoryError", "out of memory; use fewer images at a time"),
        (
            "__import__('torch').OutOfMemoryError('Tried to allocate 2.00 GiB.')",
            "out of memory (cannot allocate 2.00 GiB); use",
        ),
        (
            'RuntimeError("can\'t allocate memory: you tried to allocate 9 bytes")',
            "out of memory (cannot allocate 9 bytes); use",
        ),
    ],
)
def test_memory_error_is_not_reported_as_bug(error: str, words: str) -> None:
    result = broken(error)
    one_line(result, 1, words)
    assert "bug" not in result.err
    assert not Path("cache/reports").exists()


def test_real_memory_exhaustion_is_one_line(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    for allocate in (lambda: torch.empty(2**50), lambda: np.empty(2**50), lambda: bytearray(2**50)):
        monkeypatch.setattr("cnnkit.nets.list_networks", lambda _, allocate=allocate: allocate())
        one_line(cli("nets"), 1, "out of memory", "use fewer images")


def test_interrupt_is_not_reported_as_bug(monkeypatch: pytest.MonkeyPatch, cli: Cli) -> None:
    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("cnnkit.nets.list_networks", interrupt)
    assert cli("nets").code == 130
    assert not Path("cache/reports").exists()
