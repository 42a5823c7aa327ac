"""Places that cannot be written, links, names of temporary files: what is told, and what goes on all the same."""

import errno
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cnnkit.core.files import (
    CannotWrite,
    atomic_write,
    lock,
    make_folder,
)
from helpers.cli import ROOT, Cli, Result, one_line
from helpers.compiler import fake_compiler, made, needs_posix_compiler, use
from helpers.images import world_readable_photos

NOBODY = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
NAMELESS = (
    "env",
    "-i",
    f"PATH={os.environ['PATH']}",
    "PYTHONDONTWRITEBYTECODE=1",
    f"PYTHONPATH={os.environ.get('PYTHONPATH', '')}",
)


def can_be_nobody() -> bool:
    if not hasattr(os, "geteuid") or os.geteuid() != 0 or not shutil.which("setpriv"):
        return False
    return subprocess.run([*NOBODY, sys.executable, "-c", "import cnnkit"], capture_output=True).returncode == 0


root_alone = pytest.mark.skipif(not can_be_nobody(), reason="only root can be another user, who must be able to read")


@pytest.fixture
def open_house(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder that another user may enter, as pytest's are not, with a cache to be and temporary folders for all."""
    with tempfile.TemporaryDirectory(prefix="house-") as name:
        house, temporary = Path(name), Path(name, "temporary")
        house.chmod(0o755)
        temporary.mkdir()
        temporary.chmod(0o1777)
        monkeypatch.setenv("TMPDIR", str(temporary))
        monkeypatch.setenv("CNNKIT_CACHE", str(house / "cache"))
        monkeypatch.chdir(house)
        yield house
        assert not list(temporary.glob("cnnkit-*")), "a private folder goes with its process"


def cnnkit(*arguments: object, before: tuple[str, ...] = (), **environment: str) -> Result:
    command = [*before, sys.executable, "-m", "cnnkit", *map(str, arguments)]
    done = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True, timeout=240)
    assert "Traceback" not in done.stderr
    return Result(done.returncode, done.stdout, done.stderr)


# --- caches that cannot be written


@root_alone
def test_folders_are_trained_on_without_a_cache(open_house: Path) -> None:
    root = world_readable_photos(open_house / "photos")
    cache, runs = open_house / "cache", open_house / "runs"
    cache.mkdir()
    cache.chmod(0o755)
    runs.mkdir()
    runs.chmod(0o777)
    result = cnnkit(
        "train", "lenet", "--data", root, "--image-size", 16, "--epochs", 1, "--output", runs, before=NOBODY
    )
    assert result.code == 0, result.err
    said = result.out + result.err
    assert said.count("cannot write") == 1
    assert "Permission denied; set $CNNKIT_CACHE to another folder" in said
    assert list(cache.iterdir()) == []


@root_alone
@pytest.mark.parametrize(
    "home", [[], *(pytest.param([f"HOME={home}"], marks=pytest.mark.slow) for home in ("/", "/no/such/folder", ""))]
)
def test_without_a_home_folder(home: list[str], open_house: Path) -> None:
    root = world_readable_photos(open_house / "photos")
    who = ("setpriv", "--reuid=12345", "--regid=12345", "--clear-groups")
    temporary = f"TMPDIR={open_house}/temporary"
    result = cnnkit(
        "data",
        "show",
        root,
        "--image-size",
        8,
        "--output",
        open_house / "temporary/sheet.png",
        before=(*NAMELESS, temporary, *home, *who),
    )
    assert result.code == 0, result.err
    assert "set $CNNKIT_CACHE" in result.out + result.err
    result = cnnkit("evaluate", "~/runs/none", before=(*NAMELESS, temporary, *home, *who))
    assert result.code == 2
    assert result.err.count("\n") == 1


@root_alone
def test_a_home_that_is_closed_is_as_none(open_house: Path) -> None:
    (open_house / "home/.cache/cnnkit").mkdir(parents=True)
    (open_house / "home").chmod(0o700)
    code = "from cnnkit.core.kept import cached_file; print(cached_file('weights', 'x'))"
    for home in (
        {"CNNKIT_CACHE": "", "HOME": f"{open_house}/home"},
        {"CNNKIT_CACHE": f"{open_house}/home/.cache/cnnkit"},
    ):
        result = use(*NOBODY, code=code, **home)
        assert result.out.startswith(f"{open_house}/temporary/cnnkit-"), result
        assert "Permission denied; set $CNNKIT_CACHE" in result.err


def test_the_home_of_nobody_is_a_name_as_any_other(cli: Cli) -> None:
    one_line(cli("train", "lenet", "--data", "~no-such-user/photos"), 3, "~no-such-user/photos")
    one_line(cli("evaluate", "~no-such-user/run"), 2, "~no-such-user/run")


@needs_posix_compiler
@root_alone
def test_a_cache_that_cannot_be_written_is_read_and_else_a_private_folder_serves(open_house: Path) -> None:
    cache = open_house / "cache"
    cache.mkdir()
    result = use(*NOBODY)
    assert result.out == "42\n"
    assert result.err.count("\n") == 1
    assert f"cannot write {cache}/compiled: Permission denied" in result.err
    assert "set $CNNKIT_CACHE" in result.err
    library = made(cache)
    for path in (library.parent, library, library.with_suffix(".sha256")):
        path.chmod(0o755)
    assert (use(*NOBODY).out, use(*NOBODY).err) == ("42\n", "")


@needs_posix_compiler
def test_a_file_in_the_place_of_the_cache(open_house: Path) -> None:
    cache = open_house / "cache"
    cache.write_text("")
    result = use()
    assert result.out == "42\n"
    assert f"cannot write {cache}" in result.err


@needs_posix_compiler
def test_a_disk_that_is_full_while_compiling_is_told_with_the_place(open_house: Path) -> None:
    cache = open_house / "cache"
    full = fake_compiler(open_house, "echo 'error: writing to x.s: No space left on device' >&2; exit 1")
    result = use(CXX=full)
    assert result.out.startswith("error: cannot write ")
    assert "No space left on device; make room" in result.out
    assert f"{cache}/compiled: No space left on device; make room or set $CNNKIT_CACHE" in result.err
    here = fake_compiler(
        open_house, f"case $(pwd) in {cache}/*) echo 'No space left on device' >&2; exit 1;; esac; exec c++ \"$@\""
    )
    result = use(CXX=here)
    assert result.out == "42\n", "in a temporary folder there is room"
    assert result.err.count("\n") == 1


@needs_posix_compiler
def test_training_in_lanes_goes_on_with_a_cache_that_others_can_write(open_house: Path) -> None:
    cache = open_house / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    words = ("train", "lenet", "--engine", "lanes", "--epochs", "1")
    done = subprocess.run([sys.executable, "-m", "cnnkit", *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "not trusted" in done.stderr + done.stdout


@needs_posix_compiler
def test_a_temporary_folder_that_others_can_write_is_no_way_out(open_house: Path) -> None:
    cache = open_house / "cache"
    cache.mkdir()
    cache.chmod(0o777)
    (open_house / "temporary").chmod(0o777)
    assert "error: others can write" in use().out


# --- what is told


def test_a_line_says_what_cannot_be_written_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*asked: object, **how: object) -> None:
        raise OSError(code, os.strerror(code), f"{tmp_path}/.x.tmp")

    elsewhere, room, fewer = "choose another folder", "make room", r"allow more open files \(ulimit -n\)"
    remedies = {errno.EROFS: elsewhere, errno.EACCES: elsewhere, errno.ENOSPC: room, errno.EDQUOT: room}
    remedies |= {errno.ENAMETOOLONG: "choose a shorter name", errno.EMFILE: fewer}
    for code, remedy in remedies.items():
        with monkeypatch.context() as patch:
            patch.setattr(os, "open", fails)
            patch.setattr(os, "unlink", fails)  # a read-only file system refuses that before it looks for the file
            patch.setattr(os, "lstat", fails)
            with pytest.raises(CannotWrite, match=rf"^cannot write {tmp_path}/x\.json: {os.strerror(code)}; {remedy}$"):
                atomic_write(tmp_path / "x.json", "text")
            with (
                pytest.raises(CannotWrite, match=rf"^cannot lock {tmp_path}/\.lock: {os.strerror(code)}; {remedy}$"),
                lock(tmp_path / ".lock"),
            ):
                pass
    cache = Path(os.environ["CNNKIT_CACHE"])
    cache.write_text("")
    with pytest.raises(CannotWrite, match=rf"^cannot write {cache}/images: .*; set \$CNNKIT_CACHE to another folder$"):
        make_folder(cache / "images")


@root_alone
def test_an_unprivileged_user_is_told_which_folder(open_house: Path) -> None:
    closed = open_house / "closed"
    closed.mkdir()
    closed.chmod(0o755)
    environment = {"CNNKIT_CACHE": str(open_house / "temporary/cache")}
    for words in (
        ("draw", "lenet", "--output", closed / "net.svg"),
        ("filter", ROOT / "examples/digits/1793-is-0.png", "--kernel", "sobel-x", "--output", closed / "edges.png"),
        ("train", "lenet", "--epochs", 1, "--output", closed / "runs"),
    ):
        result = cnnkit(*words, before=NOBODY, **environment)
        one_line(result, 1, str(closed), "Permission denied", "choose another")
        assert ".tmp" not in result.err
    shutil.rmtree(open_house / "temporary/cache", ignore_errors=True)
