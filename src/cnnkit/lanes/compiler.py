"""C++ to a library that this process can call: by the compiler at hand, once for each text."""

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
from importlib.resources import files
from pathlib import Path

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import cache_dir, make_folder

__all__ = ["NO_COMPILER", "build", "find_compiler", "open_library"]

NAMES = ("c++", "g++", "clang++")
FLAGS = ("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
NO_COMPILER = f"lanes need a C++ compiler ({', '.join(NAMES)}, or what CXX says), and there is none here"
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"


def find_compiler() -> str | None:
    """Return the C++ compiler: what the variable CXX says, or the first that there is."""
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, NAMES)), None)


def build(source: str, flags: tuple[str, ...] = ()) -> Path:
    """Return the library made of C++ text; it is kept in the cache folder, by what it is made of and by what.

    Raises CnnkitError if there is no compiler, or if it cannot compile this.
    """
    compiler = find_compiler()
    if compiler is None:
        raise CnnkitError(f"{NO_COMPILER}: install one, or use torch")
    headers = files("cnnkit.lanes") / "cpp"
    texts = {entry.name: entry.read_text() for entry in headers.iterdir() if entry.name.endswith(".hpp")}
    command = [*FLAGS, NATIVE, *flags]
    facts = repr((source, sorted(texts.items()), command, _version(compiler), _target(compiler)))
    library = make_folder(cache_dir() / "lanes") / f"{hashlib.sha256(facts.encode()).hexdigest()[:32]}.so"
    if library.exists():
        return library
    with tempfile.TemporaryDirectory(dir=library.parent) as folder:
        for name, text in {**texts, "net.cpp": source}.items():
            (Path(folder) / name).write_text(text)
        made = Path(folder) / "net.so"
        done = subprocess.run([compiler, *command, "-o", made, "net.cpp"], cwd=folder, capture_output=True, text=True)
        if done.returncode:
            reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-500:])
            raise CnnkitError(f"lanes: {compiler} cannot compile the network ({reason.strip()}); use torch")
        made.replace(library)  # atomic: of two processes that compile the same, one wins
    return library


@functools.cache
def open_library(path: Path) -> ctypes.CDLL:
    """Return a library, loaded once for a process."""
    library = ctypes.CDLL(str(path))
    library.start.restype = ctypes.c_void_p
    library.start.argtypes = [ctypes.c_int]
    library.stop.argtypes = [ctypes.c_void_p]
    for function in (library.train, library.predict):
        function.argtypes = [ctypes.c_void_p, ctypes.c_void_p]
        function.restype = None
    return library


@functools.cache
def _version(compiler: str) -> str:
    return subprocess.run([compiler, "--version"], capture_output=True, text=True).stdout


@functools.cache
def _target(compiler: str) -> str:
    """Return what "native" means here, so that a cache that travels to another processor is not used there."""
    command = [compiler, NATIVE, "-dM", "-E", "-x", "c++", os.devnull]
    return subprocess.run(command, capture_output=True, text=True).stdout
