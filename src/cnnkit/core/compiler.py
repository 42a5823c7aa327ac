"""C++ to a library that this process can load: by the compiler at hand, once for each text."""

import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import cache_dir, make_folder

__all__ = ["NO_COMPILER", "build", "find_compiler", "texts"]

NAMES = ("c++", "g++", "clang++")
FLAGS = ("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
NO_COMPILER = f"there is no C++ compiler here ({', '.join(NAMES)}, or what CXX says)"
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"


def find_compiler() -> str | None:
    """Return the C++ compiler: what the variable CXX says, or the first that there is."""
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, NAMES)), None)


def texts(package: str) -> dict[str, str]:
    """Return the C++ in a package's folder cpp/, by the files' names."""
    return {entry.name: entry.read_text() for entry in (files(package) / "cpp").iterdir()}


def build(what: str, source: Mapping[str, str], flags: tuple[str, ...] = ()) -> Path:
    """Return the library made of C++ files, texts by their names; `what` says in an error what it is.

    It is kept in the cache folder, by what it is made of and by what. Raises CnnkitError if there is no compiler, or
    if it cannot compile this.
    """
    compiler = find_compiler()
    if compiler is None:
        raise CnnkitError(f"{NO_COMPILER}: install one, or use torch")
    command = [*FLAGS, NATIVE, *flags]
    facts = repr((sorted(source.items()), command, _version(compiler), _target(compiler)))
    library = make_folder(cache_dir() / "compiled") / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        for name, text in source.items():
            (Path(folder) / name).write_text(text)
        made = Path(folder) / "made.so"
        units = [name for name in source if name.endswith(".cpp")]
        done = subprocess.run([compiler, *command, "-o", made, *units], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-500:])
            raise CnnkitError(f"{compiler} cannot compile {what} ({reason.strip()}); use torch")
        made.replace(library)  # atomic: of two processes that compile the same, one wins
    return library


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


@functools.cache
def _target(compiler: str) -> str:
    """Return what "native" means here, so that a cache that travels to another processor is not used there."""
    command = [compiler, NATIVE, "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True).stdout
