"""C++ code compiled to a shared library, cached by its source, and loaded into this process.

A cached library is loaded only if no other user could have written or changed it: see `exposed`, its checksum, and
`_opened`.
"""

import ctypes
import errno
import functools
import hashlib
import logging
import os
import platform
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from filelock import Timeout

from cnnkit.core.cache import cache_folder, private
from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import CannotWrite, atomic_write, cannot_write, lock, remove
from cnnkit.core.places import cache_dir, exposed

__all__ = ["NO_COMPILER", "compiler_version", "find_compiler", "load", "texts"]

log = logging.getLogger(__name__)

NAMES = ("c++", "g++", "clang++")
FLAGS = ("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
NO_COMPILER = f"no C++ compiler was found ({', '.join(NAMES)}, or $CXX)"
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FOLDER, MADE = "compiled", "made.so"
LOADED: dict[str, ctypes.CDLL] = {}  # by name


class _Code(NamedTuple):
    """A library to compile: `name` is a hash of the source and the compiler, `what` describes it in errors."""

    name: str
    what: str
    source: Mapping[str, str]
    command: tuple[str, ...]
    symbols: tuple[str, ...]

    def in_folder(self, folder: Path) -> tuple[Path, Path]:
        """Return the paths of the library and of its checksum."""
        return folder / f"{self.name}.so", folder / f"{self.name}.sha256"


def find_compiler() -> str | None:
    """Return the C++ compiler: $CXX, or the first of NAMES that exists."""
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, NAMES)), None)


def compiler_version() -> str:
    """Return the first line of the C++ compiler's --version; "" if there is none."""
    compiler = find_compiler()
    return _version(compiler).partition("\n")[0] if compiler else ""


def texts(package: str) -> dict[str, str]:
    """Return the C++ files in a package's folder cpp/ by their names."""
    return {entry.name: entry.read_text() for entry in (files(package) / "cpp").iterdir()}


def load(what: str, source: Mapping[str, str], symbols: tuple[str, ...], flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Return the library compiled from C++ files (texts by name), with the functions `symbols`.

    `what` describes it in errors. It is cached by source, flags and compiler or, if the cache cannot be written or
    others can write it, compiled for this process only, with a log line. Raises CnnkitError if there is no compiler or
    compilation fails, CannotWrite if it cannot be saved.
    """
    compiler = find_compiler()
    if compiler is None:
        raise CnnkitError(f"{NO_COMPILER}: install one, or use torch")
    command = (compiler, *FLAGS, NATIVE, *flags)
    facts = repr((sorted(source.items()), list(command[1:]), _version(compiler), _target(compiler)))
    name = hashlib.sha256(facts.encode()).hexdigest()[:32]
    if name not in LOADED:
        LOADED[name] = _found_or_made(_Code(name, what, source, command, symbols))
    return LOADED[name]


def _found_or_made(code: _Code) -> ctypes.CDLL:
    cache = cache_dir()
    cached = Path(os.path.realpath(cache / FOLDER))
    with suppress(OSError, ValueError):  # a corrupt one is reported when it is compiled again
        if not exposed(cached, Path(os.path.realpath(cache))) and (library := _found(code, cached)):
            return library
    folder = Path(os.path.realpath(cache_folder(FOLDER, mode=0o700)))
    if at := exposed(folder, folder.parent):
        folder = private(
            folder, f"code in {folder} is not trusted, as others can write {at}: run chmod go-w on it, if it is yours"
        )
    try:
        try:
            return _made(code, folder)
        except (OSError, CannotWrite) as error:
            reason = str(error if isinstance(error, CannotWrite) else cannot_write(folder, error))
        folder = private(folder, reason)
        return _made(code, folder)
    except OSError as error:
        raise cannot_write(folder, error) from error


def _found(code: _Code, folder: Path) -> ctypes.CDLL | None:
    """Return the library in a folder, None if there is none; raises OSError and ValueError for a corrupt one."""
    path, beside = code.in_folder(folder)
    if not os.path.lexists(path):
        return None
    content = _read(path)
    if _read(beside).decode() != hashlib.sha256(content).hexdigest():
        raise ValueError("its SHA-256 does not match")
    return _opened(code, path, content)


def _read(path: Path) -> bytes:
    """Return the bytes of a file that is not a link and that no other user can write; raises OSError."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(number, "rb") as file:  # noqa: PTH123  a descriptor
        found = os.fstat(number)
        owners = (0, os.geteuid()) if os.name == "posix" else (found.st_uid,)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o022:
            raise OSError(errno.EPERM, "others can write it", str(path))
        return file.read()


def _opened(code: _Code, path: Path, content: bytes) -> ctypes.CDLL:
    """Load a library with the given content, from memory on Linux, so that it cannot be changed in between.

    Raises OSError if it is not a library for this machine, or lacks a function.
    """
    try:
        library = ctypes.CDLL(_in_memory(code.name, content))
    except (AttributeError, OSError):  # not Linux, or code may not run from memory
        library = ctypes.CDLL(str(path))
    if lacking := [name for name in code.symbols if not hasattr(library, name)]:
        raise OSError(errno.ENOEXEC, f"it has no {', '.join(lacking)}", str(path))
    return library


def _in_memory(name: str, content: bytes) -> str:
    """Return the path of a file in memory; it stays open, as the loader identifies the library by this path."""
    number = os.memfd_create(name)
    with open(number, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{number}"


def _made(code: _Code, folder: Path) -> ctypes.CDLL:
    """Compile a library and save it in a folder; raises OSError and CannotWrite if there is no room to compile."""
    folder = Path(os.path.realpath(folder))
    if at := exposed(folder, folder.parent):
        raise CnnkitError(f"others can write {at}, so nothing is compiled there: set $CNNKIT_CACHE to a private folder")
    _sweep(folder)
    with lock(folder / f".{code.name}.lock"):
        try:
            if library := _found(code, folder):  # another process has compiled it meanwhile
                return library
        except (OSError, ValueError) as error:
            path, reason = code.in_folder(folder)[0], getattr(error, "strerror", None) or error
            log.warning("%s is corrupt (%s): it is compiled again", path, reason)
        with tempfile.TemporaryDirectory(
            dir=folder, prefix=f".{code.name}.", suffix=".new", ignore_cleanup_errors=True
        ) as place:
            made = _compiled(code, Path(place))
            content = made.read_bytes()
            try:
                library = _opened(code, made, content)
            except OSError as error:
                raise CnnkitError(
                    f"{code.command[0]} compiled {code.what} to an unusable library ({error}); use torch"
                ) from error
            path, beside = code.in_folder(folder)
            for folder_there in filter(Path.is_dir, (path, beside)):
                remove(folder_there)
            try:
                atomic_write(beside, hashlib.sha256(content).hexdigest(), 0o600)
                atomic_write(path, content, 0o600)
            except CannotWrite as error:
                log.warning("%s; until then it is compiled again by each process", error)
    return library


def _compiled(code: _Code, folder: Path) -> Path:
    """Compile in a folder; raises OSError if there is no room, CnnkitError if compilation fails."""
    for name, text in code.source.items():
        (folder / name).write_text(text)
    made = folder / MADE
    command = [*code.command, "-o", str(made), *(name for name in code.source if name.endswith(".cpp"))]
    done = _run(command, cwd=folder, env=os.environ | {"LC_ALL": "C", "TMPDIR": str(folder)})
    for full in (errno.ENOSPC, errno.EDQUOT):
        if done.returncode and os.strerror(full) in done.stderr:
            raise OSError(full, os.strerror(full), str(folder))
    if done.returncode or not made.is_file():
        reason = next((line for line in done.stderr.splitlines() if "error" in line), done.stderr[-500:]).strip()
        where = f"in {folder.parent} ({reason or f'exit code {done.returncode}'})"
        raise CnnkitError(f"{code.command[0]} cannot compile {code.what} {where}; use torch")
    return made


def _sweep(folder: Path) -> None:
    """Remove temporary files of killed processes; running ones hold the lock of theirs."""
    for leftover in [*folder.glob(".*.new"), *folder.glob(".*.tmp")]:
        with suppress(CnnkitError, Timeout), lock(folder / f".{leftover.name.split('.')[1]}.lock", timeout=0):
            remove(leftover)


@functools.cache
def _version(compiler: str) -> str:
    return _run([compiler, "--version"]).stdout


@functools.cache
def _target(compiler: str) -> str:
    """Return the macros that "native" implies here, so that a cache copied to another processor is not used there."""
    return _run([compiler, NATIVE, "-dM", "-E", "-x", "c++", os.devnull]).stdout


def _run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
    try:  # `how` matches none of run's overloads
        return subprocess.run(command, capture_output=True, text=True, errors="replace", **how)  # type: ignore[call-overload, no-any-return]
    except OSError as error:
        raise CnnkitError(
            f"the compiler {command[0]} cannot be run ({error.strerror}); use torch, or set CXX"
        ) from error
