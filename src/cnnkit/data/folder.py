"""A folder of images, one folder for each class: what lies in it, and the data set that it is."""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch

from cnnkit.core.errors import DataError
from cnnkit.data.formats import SUFFIXES
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.reading import BUDGET, BadImage, Reading
from cnnkit.data.split import stratified_split
from cnnkit.data.store import open_images

__all__ = ["ImageFolder", "Split", "find_images", "load_folder", "open_folder", "scan_folder"]

SPLITS = {"train": "train", "val": "validation", "valid": "validation", "validation": "validation", "test": "test"}
NAMED = 5  # unreadable images in an error


class Split(NamedTuple):
    """Pictures by their paths below the root, with "/" between the parts, sorted, and the class of each."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]


@dataclass(frozen=True)
class ImageFolder:
    """The images below `root`: "train", and "validation" and "test" where they have folders of their own."""

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
                lines.append(f"{self.root}: class {name!r} has no image: fill the folder or take it away")
            elif "train" in empty:
                others = " and ".join(split for split in counts if split not in empty)
                lines.append(f"{self.root}: class {name!r} has images in {others}, but none in train")
            elif empty:
                lines.append(f"{self.root}: class {name!r} has no image in {' and '.join(empty)}, but in train")
        return lines


def scan_folder(root: Path) -> ImageFolder:
    """Find the images in root/{train,val|valid|validation,test}/CLASS/... or root/CLASS/..., by their suffix.

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
            if folder not in places.values() and next(_images(folder, {_identity(root)}), None):
                raise DataError(
                    f"{root} has train/, and images in {folder.name}/ beside it: "
                    f"move them into a class of train/, or take the folder away"
                )
    flat = not places
    found = {
        split: {folder.name: list(_images(folder, {_identity(root), _identity(place)})) for folder in _folders(place)}
        for split, place in (places or {"train": root}).items()
    }
    classes = tuple(sorted({name for split in found.values() for name in split}))
    if not classes:
        where = root if flat else places["train"]
        raise DataError(f"{where} has no folder of images in it: make one for each class, such as {where / 'cat'}")
    order = [name for name in ("train", "validation", "test") if name in found]
    return ImageFolder(root, classes, {name: _sorted(root, classes, found[name]) for name in order}, flat)


def find_images(root: Path) -> Iterator[str]:
    """Yield the paths of all images below a folder, by their suffix, sorted within each folder; hidden ones are not.

    Raises DataError for a folder that cannot be read.
    """
    return _images(root, set())


def load_folder(
    root: Path,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    budget: int = BUDGET,
    test_fraction: float = 0.1,
    progress: bool = True,
) -> Dataset:
    """Open the images below `root` as sets of images, all of one size.

    They are decoded once, by `workers` threads (None: one for each processor; tiny files by one), into a file of at
    most `budget` bytes in the cache, or else whenever they are asked for. If all are of one size that fits into
    `image_size` (H, W) they keep it, else they are fitted into `image_size`, with padding. They are grey if all
    images are, else in colour, unless `channels` says 1 or 3. Where there is no train/, `test_fraction` of each
    class, always the same, is the test set. `on_bad_image="skip"` leaves out what cannot be read. `progress` tells how
    far it is on standard error.

    Raises DataError for a folder that cannot be trained on (`ImageFolder.complaints`) and for images that cannot be
    read, UsageError for sizes that differ without an `image_size`.
    """
    options = Reading(
        image_size=image_size,
        channels=channels,
        on_bad_image=on_bad_image,
        workers=workers,
        budget=budget,
        test_fraction=test_fraction,
        progress=progress,
    )
    return open_folder(scan_folder(root), options)


def open_folder(folder: ImageFolder, options: Reading, table: str = "") -> Dataset:
    """Open image files that have been found as `load_folder` does; `table` names the file that lists them, if one does.

    Raises its errors.
    """
    root = folder.root
    options.require_channels()
    if complaints := folder.complaints():
        raise DataError("; ".join(complaints))
    paths: list[str] = []
    labels: list[int] = []
    rows = {}
    for name, split in folder.splits.items():
        rows[name] = torch.arange(len(paths), len(paths) + len(split.paths))
        paths += split.paths
        labels += split.labels
    if folder.flat:
        rows["train"], rows["test"] = stratified_split(torch.tensor(labels), options.test_fraction, seed=0)
    opened = open_images(root, paths, options, table)
    images, problems = opened.images, opened.problems
    if problems and options.on_bad_image == "error":
        raise _unreadable(root / table, len(paths), problems)
    good = torch.tensor([path not in problems for path in paths])
    readable = ImageSet(images, torch.tensor(labels)[good], tuple(path for path in paths if path not in problems))
    position = good.cumsum(0) - 1  # of the good ones among themselves
    sets = {name: readable.subset(position[own[good[own]]]) for name, own in rows.items()}
    left = sets["train"].labels.unique().tolist()
    if lost := [name for label, name in enumerate(folder.classes) if label not in left]:
        raise DataError(f"{root / table}: no image of class {lost[0]!r} is left to train on")
    validation, test = (sets.get(name) or None for name in ("validation", "test"))  # an empty one is none
    name = Path(table).stem if table else root.resolve().name
    return Dataset(name, folder.classes, sets["train"], test, validation, tuple(problems.items()))


def _unreadable(root: Path, total: int, problems: dict[str, str]) -> DataError:
    first = ", ".join(f"{path} ({reason})" for path, reason in list(problems.items())[:NAMED])
    more = f", and {len(problems) - NAMED:,} more" if len(problems) > NAMED else ""
    return DataError(
        f"{root}: {len(problems):,} of {total:,} images cannot be read: {first}{more}; "
        f"look at them with: cnnkit data check {root}, or leave them out with: --on-bad-image skip"
    )


def _sorted(root: Path, classes: tuple[str, ...], images: dict[str, list[str]]) -> Split:
    start = len(os.path.join(root, ""))  # noqa: PTH118  a Path would drop the last separator
    rows = sorted(
        (path[start:].replace(os.sep, "/"), label)
        for label, name in enumerate(classes)
        for path in images.get(name, [])
    )
    return Split(tuple(path for path, _ in rows), tuple(label for _, label in rows))


def _folders(folder: Path) -> list[Path]:
    """Return the folders in a folder, sorted by name."""
    return [Path(entry) for entry in _entries(folder) if _is_folder(entry)]


def _images(folder: Path | str, visited: set[tuple[int, int]]) -> Iterator[str]:
    """Yield the images in a folder and its folders; each folder once, so that links in a circle end."""
    waiting = [os.fspath(folder)]
    while waiting:
        place = waiting.pop()
        if (identity := _identity(place)) in visited:
            continue
        visited.add(identity)
        within = []
        for entry in _entries(place):
            if _is_folder(entry):
                within.append(entry.path)
            elif entry.name.lower().endswith(SUFFIXES):
                yield entry.path
        waiting += reversed(within)


def _entries(folder: Path | str) -> list[os.DirEntry[str]]:
    """Return what is in a folder and not hidden, sorted by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if entry.name[0] != "."), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path)  # noqa: PTH112  entry.is_dir() raises for a link to itself


def _identity(folder: Path | str) -> tuple[int, int]:
    try:
        found = os.stat(folder)  # noqa: PTH116  also for the strings of scandir
    except OSError as error:
        raise DataError(f"{folder}: cannot be read ({error.strerror})") from error
    return found.st_dev, found.st_ino
