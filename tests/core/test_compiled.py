"""Compiled libraries on the disk: no code from where others can write, nothing corrupt, nothing left behind."""

import hashlib
import os
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cnnkit.core.compiler import find_compiler
from cnnkit.core.places import exposed
from helpers.compiler import USE, fake_compiler, made, needs_posix_compiler, use

pytestmark = needs_posix_compiler
root_alone = pytest.mark.skipif(hasattr(os, "geteuid") and os.geteuid() != 0, reason="only root can give files away")

EVIL = """
#include <cstdio>
__attribute__((constructor)) static void run() { std::fputs("evil\\n", stdout); std::fflush(stdout); }
extern "C" int answer() { return 13; }
"""


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache in a folder that only this user can write, and temporary folders of the test's own."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    tmp_path.chmod(0o755)
    yield tmp_path / "cache"
    assert not list(temporary.glob("cnnkit-*")), "a private folder goes with its process"


def compile_to(path: Path, text: str) -> None:
    compiler = find_compiler()
    assert compiler
    subprocess.run([compiler, "-shared", "-fPIC", "-x", "c++", "-", "-o", path], input=text, text=True, check=True)


def put(library: Path, content: bytes) -> None:
    """Put bytes in the place of a library, with the checksum that belongs to them."""
    library.write_bytes(content)
    library.with_suffix(".sha256").write_text(hashlib.sha256(content).hexdigest())


def names(folder: Path) -> list[str]:
    return sorted(path.suffix for path in folder.iterdir())


def test_a_library_is_compiled_once_into_a_folder_of_the_users_own(cache: Path) -> None:
    before = os.umask(0)
    try:
        library = made(cache)
    finally:
        os.umask(before)
    assert stat.S_IMODE(library.parent.stat().st_mode) == 0o700
    assert not cache.stat().st_mode & 0o022
    assert names(library.parent) == [".lock", ".sha256", ".so"]
    assert use(CXX=shutil.which("c++") or "", PATH=os.environ["PATH"]).out == "42\n"
    time_of = library.stat().st_mtime_ns
    assert use().out == "42\n"
    assert library.stat().st_mtime_ns == time_of


@pytest.mark.parametrize("mode", [0o777, 0o775, 0o1777])
@pytest.mark.parametrize("where", [".", "compiled"])
def test_code_is_not_loaded_from_where_others_can_write(where: str, mode: int, cache: Path, tmp_path: Path) -> None:
    library = made(cache)
    compile_to(tmp_path / "evil.so", EVIL)
    put(library, (tmp_path / "evil.so").read_bytes())
    assert use().out == "evil\n13\n", "the test's own attack works"
    (cache / where).chmod(mode)
    result = use()
    assert result.out == "42\n"
    assert result.err.count("\n") == 1
    assert "not trusted" in result.err
    assert str(cache / where if where != "." else cache) in result.err


def test_nor_if_the_folder_above_can_be_written_but_a_sticky_one_may(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cache: Path
) -> None:
    above = tmp_path / "above"
    above.mkdir()
    monkeypatch.setenv("CNNKIT_CACHE", str(above / "cache"))
    made(above / "cache")
    above.chmod(0o777)
    result = use()
    assert result.out == "42\n"
    assert f"can write {above}:" in result.err
    above.chmod(0o1777)
    assert (use().out, use().err) == ("42\n", "")


def test_nor_a_file_that_others_can_write_or_a_link(cache: Path, tmp_path: Path) -> None:
    library = made(cache)
    compile_to(tmp_path / "evil.so", EVIL)
    evil = (tmp_path / "evil.so").read_bytes()

    def writable() -> None:
        put(library, evil)
        library.chmod(0o666)

    def a_link() -> None:
        put(library, evil)
        library.unlink()
        library.symlink_to(tmp_path / "evil.so")

    def a_pipe() -> None:
        library.unlink()
        os.mkfifo(library)

    for harm in (writable, a_link, a_pipe):
        harm()
        result = use()
        assert result.out == "42\n", harm
        assert "compiled anew" in result.err
        assert not library.is_symlink()
        assert (use().out, use().err) == ("42\n", "")
    assert (tmp_path / "evil.so").read_bytes() == evil


@root_alone
def test_nor_if_it_belongs_to_another_user(cache: Path, tmp_path: Path) -> None:
    library = made(cache)
    compile_to(tmp_path / "evil.so", EVIL)
    put(library, (tmp_path / "evil.so").read_bytes())
    for one in (library, library.parent, cache):
        os.chown(one, 65534, 65534)
        result = use()
        assert result.out == "42\n", one
        assert result.err
        os.chown(one, 0, 0)
        put(library, (tmp_path / "evil.so").read_bytes())


def test_a_link_that_the_user_made_is_followed(cache: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    cache.symlink_to(tmp_path / "elsewhere")
    made(cache)
    assert (tmp_path / "elsewhere/compiled").is_dir()
    assert exposed(tmp_path / "elsewhere", tmp_path) is None


HARMS: dict[str, Callable[[Path], object]] = {
    "cut": lambda path: os.truncate(path, path.stat().st_size // 2),
    "empty": lambda path: path.write_bytes(b""),
    "junk": lambda path: path.write_bytes(b"junk" * 5000),
    "one bit": lambda path: path.write_bytes(path.read_bytes()[:-1] + bytes([path.read_bytes()[-1] ^ 1])),
    "junk and its checksum": lambda path: put(path, b"junk" * 5000),
    "without a checksum": lambda path: path.with_suffix(".sha256").unlink(),
    "an empty checksum": lambda path: path.with_suffix(".sha256").write_text(""),
    "a checksum that is no text": lambda path: path.with_suffix(".sha256").write_bytes(b"\xff" * 64),
    "a folder as checksum": lambda path: (path.with_suffix(".sha256").unlink(), path.with_suffix(".sha256").mkdir()),
    "another library": lambda path: (compile_to(path, "int other() { return 1; }"), put(path, path.read_bytes())),
}


@pytest.mark.parametrize("harm", HARMS)
def test_what_is_corrupt_is_compiled_anew(harm: str, cache: Path) -> None:
    library = made(cache)
    HARMS[harm](library)
    result = use()
    assert result.out == "42\n"
    assert f"{library} is corrupt" in result.err
    assert "compiled anew" in result.err
    if harm != "a folder as checksum":
        assert (use().out, use().err) == ("42\n", "")


@pytest.mark.parametrize(
    ("script", "words"),
    [
        (
            'echo "int other() { return 1; }" > other.cpp; exec c++ -shared -fPIC other.cpp -o "$(pwd)/made.so"',
            ["no answer"],
        ),
        ('echo junk > "$(pwd)/made.so"', ["makes no good library"]),
        ("exit 0", ["cannot compile", "compiled"]),
        ("echo 'x: error: it is broken' >&2; exit 1", ["cannot compile", "it is broken", "compiled"]),
        ("kill -9 $$", ["cannot compile", "compiled"]),
    ],
)
def test_a_compiler_that_makes_no_library_is_told_in_a_line(
    script: str, words: list[str], cache: Path, tmp_path: Path
) -> None:
    result = use(CXX=fake_compiler(tmp_path, script))
    assert result.err == ""
    assert result.out.startswith("error: ")
    assert result.out.count("\n") == 1
    for word in [*words, "use torch"]:
        assert word in result.out
    assert names(cache / "compiled") == [".lock"]


def test_a_compiler_that_cannot_be_run_is_told(tmp_path: Path, cache: Path) -> None:
    fake = tmp_path / "c++"
    fake.write_text("#!/no/such/shell\n")
    fake.chmod(0o755)
    assert "error: the compiler" in use(CXX=str(fake)).out


def test_what_a_killed_process_was_compiling_is_swept_and_not_what_a_living_one_is(cache: Path, tmp_path: Path) -> None:
    slow = fake_compiler(tmp_path, f'sleep 4; exec {find_compiler()} "$@"')
    other = USE.replace("42", "43")

    def begin(code: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", code], env=os.environ | {"CXX": slow}, stdout=subprocess.PIPE, text=True,
            start_new_session=True,
        )  # fmt: skip
        known = set((cache / "compiled").glob(".*.new/answer.cpp"))
        while not set((cache / "compiled").glob(".*.new/answer.cpp")) - known:
            time.sleep(0.02)
        return process

    killed = begin(USE)
    os.killpg(killed.pid, signal.SIGKILL)
    killed.communicate()
    (left,) = (cache / "compiled").glob(".*.new")
    living = begin(other)
    assert not left.exists(), "swept by who compiles something else"
    (own,) = (cache / "compiled").glob(".*.new")
    assert use().out == "42\n"
    assert own.exists(), "whose process lives"
    assert living.communicate()[0] == "43\n"
    assert not list((cache / "compiled").glob(".*.new"))


def test_processes_that_compile_at_once_all_get_it(cache: Path) -> None:
    running = [
        subprocess.Popen([sys.executable, "-c", USE], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    assert [process.communicate() for process in running] == [("42\n", "")] * 3
    assert names(cache / "compiled") == [".lock", ".sha256", ".so"]
