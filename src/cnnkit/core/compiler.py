"""C++ to a library in this process: by the compiler at hand, once for each text.

The library is kept in the cache, and code is only taken from there if nobody else can have put it there, nor changed
it on the way: see `exposed`, the checksum beside it, and `_opened`.
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

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import CannotWrite, atomic_write, cannot_write, lock, remove
from cnnkit.core.kept import cache_folder, private
from cnnkit.core.places import cache_dir, exposed

__all__ = ["NO_COMPILER", "compiler_version", "find_compiler", "load", "texts"]

log = logging.getLogger(__name__)

NAMES = ("c++", "g++", "clang++")
FLAGS = ("-std=gnu++20", "-O3", "-ffp-contract=fast", "-fno-math-errno", "-shared", "-fPIC", "-pthread")
NO_COMPILER = f"there is no C++ compiler here ({', '.join(NAMES)}, or what CXX says)"
NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
FOLDER, MADE = "compiled", "made.so"
LOADED: dict[str, ctypes.CDLL] = {}  # by name, once for a process


class _Code(NamedTuple):
    """A library to be: `name` stands for all that it is made of and by, `what` says in an error what it is."""

    name: str
    what: str
    source: Mapping[str, str]
    command: tuple[str, ...]
    symbols: tuple[str, ...]

    def in_folder(self, folder: Path) -> tuple[Path, Path]:
        """Return the paths of the library and of its checksum."""
        return folder / f"{self.name}.so", folder / f"{self.name}.sha256"


def find_compiler() -> str | None:
    """Return the C++ compiler: what the variable CXX says, or the first that there is."""
    wanted = os.environ.get("CXX")
    return shutil.which(wanted) if wanted else next(filter(None, map(shutil.which, NAMES)), None)


def compiler_version() -> str:
    """Return the line in which the C++ compiler says what it is; "" if there is none."""
    compiler = find_compiler()
    return _version(compiler).partition("\n")[0] if compiler else ""


def texts(package: str) -> dict[str, str]:
    """Return the C++ in a package's folder cpp/, by the files' names."""
    return {entry.name: entry.read_text() for entry in (files(package) / "cpp").iterdir()}


def load(what: str, source: Mapping[str, str], symbols: tuple[str, ...], flags: tuple[str, ...] = ()) -> ctypes.CDLL:
    """Return the library made of C++ files, texts by their names, which has the functions `symbols`.

    `what` says in an error what it is. It is kept in the cache, by what it is made of and by what, or, where the cache
    cannot be written or others can write it, made for this process alone, with a line in the log. Raises CnnkitError
    if there is no compiler, or if it cannot compile this, and CannotWrite where there is no room for it.
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
    kept = Path(os.path.realpath(cache / FOLDER))
    with suppress(OSError, ValueError):  # what is corrupt is told when it is compiled anew
        if not exposed(kept, Path(os.path.realpath(cache))) and (library := _found(code, kept)):
            return library
    folder = Path(os.path.realpath(cache_folder(FOLDER, mode=0o700)))
    if at := exposed(folder, folder.parent):
        folder = private(
            folder, f"code in {folder} is not trusted, as others can write {at}: chmod go-w it, if it is yours"
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
    """Return the library that is kept in a folder, if there is one; raises OSError and ValueError for a corrupt one."""
    path, beside = code.in_folder(folder)
    if not os.path.lexists(path):
        return None
    content = _read(path)
    if _read(beside).decode() != hashlib.sha256(content).hexdigest():
        raise ValueError("its SHA-256 is another")
    return _opened(code, path, content)


def _read(path: Path) -> bytes:
    """Return the bytes of a file that is no link and that no other can write; raises OSError."""
    number = os.open(path, os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
    with open(number, "rb") as file:  # noqa: PTH123  it is open
        found = os.fstat(number)
        owners = (0, os.geteuid()) if os.name == "posix" else (found.st_uid,)
        if not stat.S_ISREG(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o022:
            raise OSError(errno.EPERM, "others can write it", str(path))
        return file.read()


def _opened(code: _Code, path: Path, content: bytes) -> ctypes.CDLL:
    """Return a library as it was read, from memory where Linux has such files: nobody can change it any more.

    Raises OSError if it is no library for this machine, or lacks a function.
    """
    try:
        library = ctypes.CDLL(_in_memory(code.name, content))
    except (AttributeError, OSError):  # another system, or one that runs no code from there
        library = ctypes.CDLL(str(path))
    if lacking := [name for name in code.symbols if not hasattr(library, name)]:
        raise OSError(errno.ENOEXEC, f"it has no {', '.join(lacking)}", str(path))
    return library


def _in_memory(name: str, content: bytes) -> str:
    """Return the path of a file in memory; it stays open, for the loader knows a library by this path."""
    number = os.memfd_create(name)
    with open(number, "wb", closefd=False) as file:
        file.write(content)
    return f"/proc/self/fd/{number}"


def _made(code: _Code, folder: Path) -> ctypes.CDLL:
    """Compile a library, and keep it in a folder; raises OSError and CannotWrite if there is no room for the former."""
    folder = Path(os.path.realpath(folder))
    if at := exposed(folder, folder.parent):
        raise CnnkitError(
            f"others can write {at}, so nothing is compiled there: set $CNNKIT_CACHE to a folder of yours"
        )
    _sweep(folder)
    with lock(folder / f".{code.name}.lock"):
        try:
            if library := _found(code, folder):  # another process has made it meanwhile
                return library
        except (OSError, ValueError) as error:
            path, reason = code.in_folder(folder)[0], getattr(error, "strerror", None) or error
            log.warning("%s is corrupt (%s): it is compiled anew", path, reason)
        with tempfile.TemporaryDirectory(
            dir=folder, prefix=f".{code.name}.", suffix=".new", ignore_cleanup_errors=True
        ) as place:
            made = _compiled(code, Path(place))
            content = made.read_bytes()
            try:
                library = _opened(code, made, content)
            except OSError as error:
                raise CnnkitError(
                    f"{code.command[0]} makes no good library of {code.what} ({error}); use torch"
                ) from error
            path, beside = code.in_folder(folder)
            for folder_there in filter(Path.is_dir, (path, beside)):
                remove(folder_there)
            try:
                atomic_write(beside, hashlib.sha256(content).hexdigest(), 0o600)
                atomic_write(path, content, 0o600)
            except CannotWrite as error:
                log.warning("%s; it is compiled anew each time until then", error)
    return library


def _compiled(code: _Code, folder: Path) -> Path:
    """Compile in a folder; raises OSError if there is no room, CnnkitError if it cannot be compiled."""
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
    """Remove what killed processes were making, but not what others make now: these hold their locks."""
    for left in [*folder.glob(".*.new"), *folder.glob(".*.tmp")]:
        with suppress(CnnkitError, Timeout), lock(folder / f".{left.name.split('.')[1]}.lock", timeout=0):
            remove(left)


@functools.cache
def _version(compiler: str) -> str:
    return _run([compiler, "--version"]).stdout


@functools.cache
def _target(compiler: str) -> str:
    """Return what "native" means here, so that a cache that travels to another processor is not used there."""
    return _run([compiler, NATIVE, "-dM", "-E", "-x", "c++", os.devnull]).stdout


def _run(command: list[str], **how: object) -> subprocess.CompletedProcess[str]:
    try:  # run has an overload for each set of arguments, and `how` fits none of them
        return subprocess.run(command, capture_output=True, text=True, errors="replace", **how)  # type: ignore[call-overload, no-any-return]
    except OSError as error:
        raise CnnkitError(
            f"the compiler {command[0]} cannot be run ({error.strerror}); use torch, or set CXX"
        ) from error
