"""Quarantine: harmful files are moved out of a folder of images, with a journal for moving them back."""

import errno
import os
import shutil
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import atomic_write, make_folder, read_bytes
from cnnkit.core.text import from_json, to_json
from cnnkit.data.check.run import Diagnosis
from cnnkit.data.folder.walk import JOURNAL

__all__ = ["JOURNAL", "check_quarantine", "quarantine"]


def check_quarantine(root: Path, target: Path) -> None:
    """Raise UsageError if files moved from `root` into `target` would still be part of the data."""
    inner, outer = target.resolve(), root.resolve()
    hidden = inner.is_relative_to(outer) and any(part.startswith(".") for part in inner.relative_to(outer).parts)
    if outer.is_relative_to(inner) or (inner.is_relative_to(outer) and not hidden):
        raise UsageError(f"{target} and {root} contain each other: choose another folder, or {root / '.quarantine'}")
    if os.path.lexists(target) and not target.is_dir():
        raise UsageError(f"{target} is not a folder: choose another name")


def quarantine(diagnosis: Diagnosis, target: Path) -> tuple[dict[str, str], dict[str, str]]:
    """Move the culprits of harmful findings into `target`, with their paths below the root.

    An existing name gets a number; nothing is overwritten or deleted. Before the first file is moved,
    target/quarantine.json lists all: "what" it is called in `target`, "from" where, and "why". A listed file that is
    not in `target` was not moved. Returns where each file went, by its path below the root, and why others stayed.
    Raises UsageError for a `target` that is part of the data, CnnkitError if it cannot be written.
    """
    check_quarantine(diagnosis.root, target)
    reasons: dict[str, str] = {}
    for finding in diagnosis.findings:
        if finding.harms:
            why = f"{finding.about.text}: {finding.detail}".removesuffix(": ")
            reasons |= {path: why for path in finding.culprits if path not in reasons}
    present = [path for path in reasons if os.path.lexists(diagnosis.root / path)]
    if not present:
        return {}, {}
    journal = make_folder(target) / JOURNAL
    _require_no_links(target, [JOURNAL])
    earlier = _read(journal)
    taken = {JOURNAL} | {entry["what"] for entry in earlier}
    places: dict[str, str] = {}
    for path in present:
        places[path] = _free(target, path, taken)
        taken.add(places[path])
    _require_no_links(
        target, {str(folder) for place in places.values() for folder in PurePosixPath(place).parents[:-1]}
    )

    def write(paths: list[str]) -> None:
        root = diagnosis.root.resolve()
        new = [{"what": places[path], "from": f"{root}/{path}", "why": reasons[path]} for path in paths]
        atomic_write(journal, to_json(earlier + new) + "\n")

    write(present)
    failed: dict[str, str] = {}
    for path in present:
        try:
            _move(diagnosis.root / path, target / places[path])
        except OSError as error:
            failed[path] = error.strerror or str(error)
    if failed:
        write([path for path in present if path not in failed])
    return {path: place for path, place in places.items() if path not in failed}, failed


def _read(journal: Path) -> list[dict[str, str]]:
    try:
        entries = from_json(read_bytes(journal))
        if isinstance(entries, list) and all(isinstance(entry["what"], str) for entry in entries):
            return entries
    except FileNotFoundError:
        return []
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise CnnkitError(f"{journal} is not a valid list of files: choose another folder, or move it away")


def _free(target: Path, path: str, taken: set[str]) -> str:
    """Return the path, with a number if that name exists in `target`."""
    folder, _, name = path.rpartition("/")
    stem, dot, suffix = name.rpartition(".")
    choice, number = path, 1
    while choice in taken or os.path.lexists(target / choice):
        number += 1
        choice = f"{folder}/{stem}-{number}{dot}{suffix}".lstrip("/")
    return choice


def _move(source: Path, target: Path) -> None:
    """Move a file or a link; to another file system by a copy that is fsynced before the source is deleted."""
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target)
        source.unlink()


def _copy(source: Path, target: Path) -> None:
    try:
        shutil.copy2(source, target, follow_symlinks=False)
        if not target.is_symlink():
            with target.open("rb") as file:
                os.fsync(file.fileno())
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _require_no_links(target: Path, below: Iterable[str]) -> None:
    """Raise UsageError if any of these paths below `target` is a link, which may point outside."""
    for path in sorted(below):
        if (target / path).is_symlink():
            raise UsageError(f"{target / path} is a link, which may point outside {target}: choose another folder")
