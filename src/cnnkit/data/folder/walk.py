"""The files below a folder, found in one pass: images, and files that are ignored."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

from cnnkit.core.errors import DataError
from cnnkit.data.images.formats import SUFFIXES, Unread, suffix_format, unread

__all__ = ["JOURNAL", "Tree", "unread_images", "walk"]

JOURNAL = "quarantine.json"  # a folder that contains it holds files moved out of the data

# files and folders of file managers, network disks and archivers, in lower case
LEFTOVERS = """
    __macosx .appledouble .ds_store .fseventsd .spotlight-v100 .temporaryitems .trash .trashes @eadir #recycle @recycle
    .@__thumb .thumb .thumbs .thumbnails thumbs.db ehthumbs.db desktop.ini .picasa.ini $recycle.bin recycler .directory
    lost+found .ipynb_checkpoints
"""
NAMES_OF_LEFTOVERS = {*LEFTOVERS.split(), "system volume information"}
MAX_INSPECTED = 10_000
APPLE_DOUBLE = "._"  # a Mac's second file beside a file, on disks that cannot hold both in one


@dataclass(frozen=True)
class Tree:
    """The content of `root`: paths with "/" between their parts, each folder's files before those of its subfolders.

    A folder that contains itself, by a link, is entered once.
    """

    root: Path
    images: tuple[str, ...] = ()
    """By their suffixes."""
    folders: tuple[str, ...] = ()
    """Those in which images are searched, including empty ones."""
    others: tuple[str, ...] = ()
    """Files of other suffixes, or of none."""
    hidden: tuple[str, ...] = ()
    """Images whose name, or that of a parent folder, begins with a dot."""
    leftovers: tuple[str, ...] = ()
    """Thumbnails and similar files of other programs."""


def walk(root: Path) -> Tree:
    """Find all files below a folder; raises DataError if it is missing or unreadable."""
    if root.is_file():
        raise DataError(f"{root} is a file: data must be a folder, a CSV file, or an archive (.zip, .tar.gz, .tar.xz)")
    if not root.is_dir():
        raise DataError(f"{root}: no such folder")
    found: dict[str, list[str]] = {name: [] for name in ("images", "folders", "others", "hidden", "leftovers")}
    waiting: list[tuple[str, str, frozenset[tuple[int, int]]]] = [("", "", frozenset())]
    while waiting:
        below, kind, above = waiting.pop()
        try:
            status = (root / below).stat()
            here = status.st_dev, status.st_ino
            if here in above:
                continue
            with os.scandir(root / below) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if kind:  # such as a folder of the system
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
    """Return the images of unsupported formats, by format and remedy.

    Of files without an image suffix, such as a text for each image, only the first MAX_INSPECTED are opened.
    """
    found: dict[Unread, list[str]] = defaultdict(list)
    inspected = 0
    for path in tree.others:
        likely = "." not in path.rpartition("/")[2] or suffix_format(path)
        inspected += not likely
        if (likely or inspected <= MAX_INSPECTED) and (image := unread(f"{tree.root}/{path}")):
            found[image].append(path)
    return found


def _kind(name: str) -> str:
    """Return the field of Tree for files of this name, or below it; "" if the name is ordinary."""
    if name.lower() in NAMES_OF_LEFTOVERS or name.startswith(APPLE_DOUBLE):
        return "leftovers"
    return "hidden" if name[0] == "." else ""
