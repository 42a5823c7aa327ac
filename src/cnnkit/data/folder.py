"""A folder of pictures, one folder for each class: what lies in it, found without opening a file."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cnnkit.core.errors import DataError

__all__ = ["ImageFolder", "Split", "scan_folder"]

SUFFIXES = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm", "pgm")
SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}


class Split(NamedTuple):
    """Pictures by their paths below the root, with "/" between the parts, sorted, and the class of each."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ImageFolder:
    """The pictures below `root`: "train", and "validation" and "test" where they have folders of their own."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, Split]
    flat: bool
    """True for root/CLASS/..., all of which is "train"; False for root/train/CLASS/..."""

    def complaints(self) -> list[str]:
        """Return a line for each reason why no network can be trained and tested on these classes."""
        lines = []
        if len(self.classes) == 1:
            lines.append(f"{self.root} has only one class, {self.classes[0]!r}: a classifier needs two or more")
        counts = {name: Counter(split.labels) for name, split in self.splits.items()}
        for label, name in enumerate(self.classes):
            empty = [split for split, count in counts.items() if not count[label]]
            if len(empty) == len(counts):
                lines.append(f"{self.root}: class {name!r} has no picture: fill the folder or take it away")
            elif "train" in empty:
                others = " and ".join(split for split in counts if split not in empty)
                lines.append(f"{self.root}: class {name!r} has pictures in {others}, but none in train")
            elif empty:
                lines.append(f"{self.root}: class {name!r} has no picture in {' and '.join(empty)}, but in train")
        return lines


def scan_folder(root: Path) -> ImageFolder:
    """Find the pictures in root/{train,val|valid|validation,test}/CLASS/... or root/CLASS/..., by their suffix.

    Folders and files whose names begin with a dot are passed over, links are followed, folders within a class
    belong to it. Raises DataError if there is no such folder, no class in it, or a mixture of the two layouts.
    """
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    folders = _folders(root)
    places: dict[str, Path] = {}
    for folder in folders:
        if (split := SPLITS.get(folder.name.lower())) in places:
            raise DataError(f"{root} has both {places[split].name}/ and {folder.name}/ for {split}: keep one of them")
        if split:
            places[split] = folder
    if places and "train" not in places:
        names = ", ".join(f"{place.name}/" for place in places.values())
        raise DataError(f"{root} has {names} but no train/; a flat folder of classes cannot have one of that name")
    if places:
        for folder in folders:
            if folder not in places.values() and next(_pictures(folder, {_identity(root)}), None):
                raise DataError(
                    f"{root} has train/, and pictures in {folder.name}/ beside it: "
                    f"move them into a class of train/, or take the folder away"
                )
    flat = not places
    found = {
        split: {folder.name: list(_pictures(folder, {_identity(root), _identity(place)})) for folder in _folders(place)}
        for split, place in (places or {"train": root}).items()
    }
    classes = tuple(sorted({name for split in found.values() for name in split}))
    if not classes:
        where = root if flat else places["train"]
        raise DataError(f"{where} has no folder of pictures in it: make one for each class, such as {where / 'cat'}")
    order = [name for name in ("train", "validation", "test") if name in found]
    return ImageFolder(root, classes, {name: _sorted(root, classes, found[name]) for name in order}, flat)


def _sorted(root: Path, classes: tuple[str, ...], pictures: dict[str, list[str]]) -> Split:
    start = len(os.path.join(root, ""))  # noqa: PTH118  a Path would drop the last separator
    rows = sorted(
        (path[start:].replace(os.sep, "/"), label)
        for label, name in enumerate(classes)
        for path in pictures.get(name, [])
    )
    return Split(tuple(path for path, _ in rows), tuple(label for _, label in rows))


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name."""
    return [Path(entry) for entry in _entries(folder) if entry.is_dir()]


def _pictures(folder: Path | str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the pictures in a folder and its folders; each folder once, so that links in a circle end."""
    if _identity(folder) in visited:
        return
    visited.add(_identity(folder))
    for entry in _entries(folder):
        if entry.is_dir():
            yield from _pictures(entry.path, visited)
        elif entry.name.rpartition(".")[2].lower() in SUFFIXES:
            yield entry.path


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return what is in a folder and not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _identity(folder: Path | str) -> tuple[int, int]:
    found = os.stat(folder)  # noqa: PTH116  also for the strings of scandir
    return found.st_dev, found.st_ino
