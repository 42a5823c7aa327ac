"""What lies below a folder, found in one pass: image files, and whatever is passed over."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cnnkit.core.errors import DataError
from cnnkit.data.images.formats import SUFFIXES, Unread, suffix_format, unread

__all__ = ["JOURNAL", "Tree", "unread_images", "walk"]

JOURNAL = "quarantine.json"  # what a folder with it holds was moved out of the data

# what file managers, network disks and archivers leave beside people's own files, in lower case
LEFTOVERS = """
    __macosx .appledouble .ds_store .fseventsd .spotlight-v100 .temporaryitems .trash .trashes @eadir #recycle @recycle
    .@__thumb .thumb .thumbs .thumbnails thumbs.db ehthumbs.db desktop.ini .picasa.ini $recycle.bin recycler .directory
    lost+found .ipynb_checkpoints
"""
NAMES_OF_LEFTOVERS = {*LEFTOVERS.split(), "system volume information"}
GLANCES = 10_000
APPLE_DOUBLE = "._"  # a Mac's second file beside a file, on disks that cannot hold both in one


@dataclass(frozen=True)
class Tree:
    """What is below `root`: paths with "/" between their parts, each folder's files before those of its folders.

    A folder within itself, by a link, is entered once.
    """

    root: Path
    images: tuple[str, ...] = ()
    """By their suffixes."""
    folders: tuple[str, ...] = ()
    """Those in which images are looked for, empty ones too."""
    others: tuple[str, ...] = ()
    """Files of other suffixes, or of none."""
    hidden: tuple[str, ...] = ()
    """Images whose name, or that of a folder that they are in, begins with a dot."""
    leftovers: tuple[str, ...] = ()
    """Thumbnails and the like, which programs have made of people's own files."""


def walk(root: Path) -> Tree:
    """Find all files below a folder. Raises DataError for a folder that is not there or cannot be read."""
    if root.is_file():
        raise DataError(f"{root} is a file: data are a folder, a CSV file, or an archive (.zip, .tar.gz, .tar.xz)")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found: dict[str, list[str]] = {name: [] for name in ("images", "folders", "others", "hidden", "leftovers")}
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", "", frozenset())]
    while waiting:
        below, kind, above = waiting.pop()
        try:
            here = _identity(root / below)
            if here in above:
                continue
            entries = _entries(root / below)
        except OSError as error:
            if kind:  # a folder of the system, say
                continue
            raise DataError(f"{root / below}: cannot be read ({error.strerror})") from error
        if any(entry.name == JOURNAL for entry in entries):
            continue
        within = []
        for entry in entries:
            path, own = f"{below}{entry.name}", kind or _kind(entry.name)
            if os.path.isdir(entry.path):  # noqa: PTH112  entry.is_dir() raises for a link to itself
                within.append((f"{path}/", own, above | {here}))
                if not own:
                    found["folders"].append(path)
            elif own == "leftovers" or entry.name.lower().endswith(SUFFIXES):
                found[own or "images"].append(path)
            elif not own:
                found["others"].append(path)
        waiting += reversed(within)
    return Tree(root, **{name: tuple(paths) for name, paths in found.items()})


def unread_images(tree: Tree) -> dict[Unread, list[str]]:
    """Return the images that are not read, by their format and what to do.

    Of files whose suffixes are none of an image, such as a text for each image, the first GLANCES are looked into.
    """
    found: dict[Unread, list[str]] = defaultdict(list)
    glances = 0
    for path in tree.others:
        likely = "." not in path.rpartition("/")[2] or suffix_format(path)
        glances += not likely
        if (likely or glances <= GLANCES) and (image := unread(f"{tree.root}/{path}")):
            found[image].append(path)
    return found


def _kind(name: str) -> str:
    """Return where files of this name, or below it, belong if they are not simply what they are."""
    if name.lower() in NAMES_OF_LEFTOVERS or name.startswith(APPLE_DOUBLE):
        return "leftovers"
    return "hidden" if name[0] == "." else ""


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return sorted(entries, key=lambda entry: entry.name)


def _identity(folder: Path) -> tuple[int, int]:
    found = folder.stat()
    return found.st_dev, found.st_ino
