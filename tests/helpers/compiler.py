"""Compiled code: with sanitizers, in the cache, and by a compiler that a test replaces."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cnnkit.core.compiler import find_compiler
from helpers.cli import ROOT, Result

SANITIZE = ("-O1", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all")  # for the compiler
needs_compiler = pytest.mark.skipif(find_compiler() is None, reason="needs a C++ compiler")
needs_posix_compiler = pytest.mark.skipif(
    find_compiler() is None or not hasattr(os, "geteuid"), reason="needs a C++ compiler, and POSIX rights"
)
USE = """
import logging, sys
logging.basicConfig(format="%(message)s", stream=sys.stderr)
from cnnkit.core.compiler import load
from cnnkit.core.errors import CnnkitError
try:
    library = load("the answer", {"answer.cpp": 'extern "C" int answer() { return 42; }'}, ("answer",), ("-O0",))
    print(library.answer())
except CnnkitError as error:
    print("error:", error)
"""


def run_sanitized(code: str) -> None:
    """Run Python whose compiled code has SANITIZE, and assert that it reaches its end, where it prints "clean"."""
    compiler = find_compiler()
    assert compiler
    runtime = subprocess.run([compiler, "-print-file-name=libasan.so"], capture_output=True, text=True).stdout.strip()
    if not Path(runtime).is_absolute():
        pytest.skip("this compiler has no address sanitizer")
    environment = os.environ | {
        "LD_PRELOAD": runtime,
        "ASAN_OPTIONS": "detect_leaks=0",
        "PYTHONPATH": os.pathsep.join([str(ROOT / "tests"), os.environ.get("PYTHONPATH", "")]),
    }
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.stdout.endswith("clean\n"), done.stderr[:3000]


def use(*before: str, code: str = USE, **environment: str) -> Result:
    done = subprocess.run(
        [*before, sys.executable, "-c", code], env=os.environ | environment, capture_output=True, text=True, timeout=120
    )
    return Result(done.returncode, done.stdout, done.stderr)


def made(cache: Path) -> Path:
    """Let the library be compiled into the cache, and return it."""
    result = use()
    assert (result.out, result.err) == ("42\n", "")
    (library,) = (cache / "compiled").glob("*.so")
    return library


def fake_compiler(tmp_path: Path, script: str) -> str:
    fake = tmp_path / "fake-c++"
    fake.write_text(f'#!/bin/sh\ncase $* in *-shared*) ;; *) exec {find_compiler()} "$@";; esac\n{script}\n')
    fake.chmod(0o755)
    return str(fake)
