"""Quarantine: files are moved out of a data set, never lost, and can be moved back."""

import errno
import json
import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.data.check import quarantine as quarantine_module
from cnnkit.data.check.quarantine import JOURNAL, quarantine
from helpers.check import folders, found, look, save, spoil
from helpers.cli import Cli, one_line


def tree(root: Path) -> dict[str, bytes]:
    """What lies below a folder: the content of files, the targets of links."""
    return {
        os.path.relpath(path, root): os.fsencode(path.readlink()) if path.is_symlink() else path.read_bytes()
        for path in root.rglob("*")
        if path.is_symlink() or path.is_file()
    }


def test_quarantine_moves_what_harms_and_can_be_undone() -> None:
    root = folders()
    spoil(root)
    save(root / "test/cat/leak.bmp", Image.open(root / "train/cat/0.png"))
    save(root / "train/cat/copy.png", Image.open(root / "train/cat/1.png"))
    before = tree(root)
    moved, failed = quarantine(look(root), Path("away"))
    assert failed == {}
    assert moved == {
        path: path
        for path in (
            "train/dog/dangling.jpg", "train/dog/pipe.png", "train/cat/empty.jpg", "train/cat/text.png",
            "train/dog/cut.jpg", "test/dog/damaged.png", "train/cat/0.png",
        )
    }  # fmt: skip
    assert found(root).keys() == {"duplicate"}
    journal = json.loads(Path("away", JOURNAL).read_text())
    assert [set(entry) for entry in journal] == [{"what", "from", "why"}] * 7
    assert journal[2]["why"] == "files of zero bytes"
    for entry in journal:
        Path("away", entry["what"]).rename(entry["from"])
    assert tree(root) == before


def test_names_that_are_taken_get_numbers() -> None:
    root = folders()
    for content in ("first", "second", "third"):
        (root / "train/cat/bad.png").write_text(content)
        quarantine(look(root), Path("away"))
    assert [entry["what"] for entry in json.loads(Path("away", JOURNAL).read_text())] == [
        "train/cat/bad.png",
        "train/cat/bad-2.png",
        "train/cat/bad-3.png",
    ]
    assert [Path(f"away/train/cat/bad{tag}.png").read_text() for tag in ("", "-2", "-3")] == [
        "first",
        "second",
        "third",
    ]


def test_nothing_to_move_makes_no_folder() -> None:
    assert quarantine(look(folders()), Path("away")) == ({}, {})
    assert not Path("away").exists()


def test_a_quarantine_must_not_be_part_of_the_data() -> None:
    root = folders()
    spoil(root)
    before = tree(root)
    Path("file").touch()
    Path("link").symlink_to(root / "train")
    for place in (root, root / "bad", root / "train/bad", Path(), Path("link/bad")):
        with pytest.raises(UsageError, match="lie in each other"):
            quarantine(look(root), place)
    with pytest.raises(UsageError, match="file is no folder"):
        quarantine(look(root), Path("file"))
    assert tree(root) == before
    quarantine(look(root), root / ".bad")
    assert found(root) == {}


def test_onto_another_file_system(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    spoil(root)
    before = tree(root)

    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", rename)
        moved, failed = quarantine(look(root), Path("away"))
    assert list(failed) == ["train/dog/pipe.png"]  # not to be copied, and so still there
    assert not os.path.lexists("away/train/dog/pipe.png")
    assert {path: content for path, content in tree(Path("away")).items() if path != JOURNAL} | tree(root) == before
    assert not tree(root).keys() & moved.keys()
    assert [entry["what"] for entry in json.loads(Path("away", JOURNAL).read_text())] == list(moved)


def test_a_full_disk_leaves_no_half_copies(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    spoil(root)
    before = tree(root)

    def rename(self: Path, target: Path) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    def copy(source: Path, target: Path, **how: object) -> None:
        target.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "rename", rename)
    monkeypatch.setattr(shutil, "copy2", copy)
    moved, failed = quarantine(look(root), Path("away"))
    assert (moved, set(failed.values())) == ({}, {"No space left on device"})
    assert tree(root) == before
    assert tree(Path("away")).keys() == {JOURNAL}


def test_what_cannot_be_moved_stays() -> None:
    root = folders()
    spoil(root)
    Path("away").mkdir()
    Path("away/train").touch()  # where a folder should be
    before = tree(root)
    moved, failed = quarantine(look(root), Path("away"))
    assert list(moved) == ["test/dog/damaged.png"]
    assert len(failed) == 5
    assert tree(root) == {path: content for path, content in before.items() if path not in moved}


def test_an_interrupt_loses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    root = folders()
    spoil(root)
    before = tree(root)
    moves = []
    move = quarantine_module._move

    def interrupted(source: Path, target: Path) -> None:
        if len(moves) == 2:
            raise KeyboardInterrupt
        moves.append(source)
        move(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(quarantine_module, "_move", interrupted)
        with pytest.raises(KeyboardInterrupt):
            quarantine(look(root), Path("away"))
    quarantine(look(root), Path("away"))
    assert found(root) == {}
    for entry in json.loads(Path("away", JOURNAL).read_text()):
        if os.path.lexists(Path("away", entry["what"])):
            Path("away", entry["what"]).rename(entry["from"])
    assert tree(root) == before


def test_a_journal_that_is_none_is_kept() -> None:
    root = folders()
    spoil(root)
    before = tree(root)
    Path("away").mkdir()
    for content in ("{", "{}", "[1]", '[{"what": 1}]'):
        Path("away", JOURNAL).write_text(content)
        with pytest.raises(CnnkitError, match="not readable as a list of files"):
            quarantine(look(root), Path("away"))
    assert Path("away", JOURNAL).read_text() == content
    assert tree(root) == before


def test_the_same_file_seen_through_a_link_is_not_moved() -> None:
    root = folders(splits=("train",))
    (root / "test").symlink_to("train")
    before = tree(root)
    assert len(found(root)["leak"]) == 6
    assert quarantine(look(root), Path("away")) == ({}, {})
    assert tree(root) == before


def test_the_command_moves_and_the_next_is_clean(cli: Cli) -> None:
    root = folders()
    spoil(root)
    result = cli("data", "check", root, "--quarantine", "away")
    assert (result.code, result.err) == (0, "")
    assert "moved train/cat/empty.jpg to away/train/cat/empty.jpg" in result.out
    assert cli("data", "check", root).out.splitlines()[-1] == "data: fit for training"
    (root / "train/emu").mkdir()
    spoil(root)
    result = cli("data", "check", root, "--quarantine", "away", "--json")
    assert json.loads(result.out)["moved"]["train/cat/empty.jpg"] == "train/cat/empty-2.jpg"
    one_line(result, 3, "classes that cannot be trained on (1)")
    assert "--quarantine" not in result.err


def test_the_command_tells_what_could_not_be_moved(cli: Cli) -> None:
    root = folders()
    (root / "train/cat/bad.png").write_text("x")
    Path("away").mkdir()
    Path("away/train").touch()
    result = cli("data", "check", root, "--quarantine", "away")
    one_line(result, 3, "files without a picture in them (1)")
    assert "not moved: train/cat/bad.png: " in result.out
    assert "--quarantine" not in result.err  # it was tried
