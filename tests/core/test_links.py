"""Links and the names of temporary files: what is written lands where it was meant to."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import atomic_write, replace_folder, sweep, write_output, write_through
from helpers.cli import Cli, one_line
from helpers.images import world_readable_photos


def test_temporary_files_follow_no_link_and_cannot_be_foreseen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    seen = set()
    with monkeypatch.context() as patch:
        patch.setattr("secrets.token_hex", lambda count: "0" * 2 * count)
        (tmp_path / f".file.{'0' * 16}.tmp").symlink_to(victim)
        with pytest.raises(CnnkitError, match=r"cannot write .*/file: File exists"):
            atomic_write(tmp_path / "file", "text")
    for _ in range(3):
        atomic_write(tmp_path / "file", lambda file: seen.update(path.name for path in tmp_path.glob(".file.*")))
    assert len(seen) == 4 - 1
    with pytest.raises(FileExistsError):
        write_through(tmp_path / "file", "text")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    with pytest.raises(FileExistsError):
        write_through(tmp_path / "link", "text")
    assert victim.read_text() == "precious"
    assert not (tmp_path / "none").exists()


def test_a_link_in_the_place_of_a_file_goes_and_one_that_the_user_names_is_followed(tmp_path: Path, cli: Cli) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    atomic_write(link, "new")
    assert (target.read_text(), link.read_text(), link.is_symlink()) == ("old", "new", False)
    link.unlink()
    link.symlink_to(target)
    write_output(link, "new")
    assert (target.read_text(), link.is_symlink()) == ("new", True)
    (tmp_path / "net.svg").symlink_to(target)
    assert cli("draw", "lenet", "--output", "net.svg").code == 0
    assert target.read_text().startswith("<svg")
    (tmp_path / "full.svg").symlink_to("/dev/full")
    one_line(cli("draw", "lenet", "--output", "full.svg"), 1, "full.svg", "No space left on device")
    done = subprocess.run([sys.executable, "-m", "cnnkit", "draw", "lenet", "--output", "out.svg"], capture_output=True)
    (tmp_path / "piped.svg").symlink_to("/dev/stdout")
    piped = subprocess.run(
        [sys.executable, "-m", "cnnkit", "draw", "lenet", "--output", "piped.svg"], capture_output=True
    )
    assert done.returncode == piped.returncode == 0
    assert piped.stdout.startswith((tmp_path / "out.svg").read_bytes())
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "kept").touch()
    (tmp_path / "best").symlink_to(folder)
    replace_folder(tmp_path / "best", lambda new: write_through(new / "model", "weights"))
    assert [path.name for path in (tmp_path / "best").iterdir()] == ["model"]
    assert [path.name for path in folder.iterdir()] == ["kept"]
    assert not list(tmp_path.glob(".best.*"))


def test_what_was_being_written_is_swept_and_nothing_else(tmp_path: Path) -> None:
    digits = "0123456789abcdef"
    left = [f".last.ckpt.{digits}.tmp", f".last.ckpt.{digits}.old"]
    kept = [
        f".last.ckpt.{digits}",
        ".last.ckpt.backup.tmp",
        f".last.ckpt.x.{digits}.tmp",
        f"last.ckpt.{digits}.tmp",
        "last.ckpt",
    ]
    for name in (*left, *kept):
        (tmp_path / name).touch()
    (tmp_path / f".last.ckpt.{digits}.new").mkdir()
    sweep(tmp_path / "last.ckpt")
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(kept)
    atomic_write(
        tmp_path / "last.ckpt",
        lambda file: [re.fullmatch(r"\.last\..*\.tmp", path.name) for path in tmp_path.glob(".last.*.tmp")],
    )


@pytest.mark.parametrize("at", ["a", "a/b", "quarantine.json"])
@pytest.mark.parametrize("dangling", [False, True])
def test_nothing_is_moved_through_a_link_below_the_quarantine(
    at: str, dangling: bool, tmp_path: Path, cli: Cli
) -> None:
    world_readable_photos(Path("photos"))
    for number in range(2):
        (tmp_path / f"photos/a/b/{number}.png").parent.mkdir(exist_ok=True)
        (tmp_path / f"photos/a/b/{number}.png").write_bytes(b"no image")
    (tmp_path / "victim").mkdir()
    link = tmp_path / "real" / at
    link.parent.mkdir(parents=True)
    link.symlink_to(tmp_path / ("none" if dangling else "victim"))
    (tmp_path / "T").symlink_to("real")
    before = sorted(Path("photos").rglob("*"))
    one_line(cli("data", "check", "photos", "--quarantine", "T"), 2, f"T/{at} is a link", "choose another folder")
    assert sorted(Path("photos").rglob("*")) == before
    assert not list((tmp_path / "victim").iterdir())
    link.unlink()
    cli("data", "check", "photos", "--quarantine", "T")
    assert len(list((tmp_path / "real/a/b").iterdir())) == 2
