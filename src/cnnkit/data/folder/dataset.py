"""A folder of images, one folder for each class, as a data set."""

from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

import torch

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.text import counted, some
from cnnkit.data.folder.layout import arrange
from cnnkit.data.folder.store import open_images
from cnnkit.data.folder.walk import Tree, unread_images, walk
from cnnkit.data.images.duplicates import alike
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.reading import BUDGET, BadImage, Reading

__all__ = ["ImageFolder", "Split", "as_folder", "load_folder", "open_folder", "scan_folder"]

NAMED = 5  # unreadable images in an error


class Split(NamedTuple):
    """Images by their paths below the root, with "/" between the parts, sorted, and the class of each."""

    paths: tuple[str, ...]
    labels: tuple[int, ...]

    @classmethod
    def of(cls, rows: Iterable[tuple[str, int]]) -> "Split":
        """Return the split of these pairs of path and class."""
        pairs = list(rows)
        return cls(tuple(path for path, _ in pairs), tuple(label for _, label in pairs))


@dataclass(frozen=True)
class ImageFolder:
    """The images below `root`: "train", and "validation" and "test" where they have folders of their own."""

    root: Path
    classes: tuple[str, ...]
    splits: dict[str, Split]
    remarks: tuple[str, ...] = ()
    """Lines on how the layout was read, and on ignored files."""
    left_out: tuple[str, ...] = ()
    """Classes with too few images."""

    @property
    def paths(self) -> list[str]:
        """The paths of all images."""
        return [path for split in self.splits.values() for path in split.paths]

    def problems(self) -> list[str]:
        """Return a line for each reason why these classes cannot be trained on."""
        lines = []
        if len(self.classes) == 1:
            lines.append(f"{self.root} has only one class, {self.classes[0]!r}: a classifier needs at least two")
        counts = {name: Counter(split.labels) for name, split in self.splits.items()}
        for label, name in enumerate(self.classes):
            if not counts["train"][label]:
                others = " and ".join(split for split, count in counts.items() if count[label])
                where = f"images in {others}, but none in train" if others else "no images"
                lines.append(
                    f"{self.root}: class {name!r} has {where}: add some, remove the folder, or skip such "
                    "classes with --min-images 1"
                )
        return lines

    def without_small(self, least: int) -> "ImageFolder":
        """Return the folder without the classes that have fewer than `least` images in train.

        Raises DataError if fewer than two are left.
        """
        counts = Counter(self.splits["train"].labels)
        kept = [label for label in range(len(self.classes)) if counts[label] >= least]
        if len(kept) == len(self.classes):
            return self
        if len(kept) < 2:
            most = max(counts.values(), default=0)
            raise DataError(
                f"{self.root}: min_images {least:,} leaves {'no class' if not kept else 'one class'}: the largest has "
                f"{counted(most, 'training image')}"
            )
        new = {label: number for number, label in enumerate(kept)}
        splits = {
            name: Split.of((path, new[label]) for path, label in zip(*split, strict=True) if label in new)
            for name, split in self.splits.items()
        }
        small = ", ".join(f"{name} ({counts[label]:,})" for label, name in enumerate(self.classes) if label not in new)
        remark = f"{self.root}: classes with fewer than {counted(least, 'training image')} are left out: {small}"
        return replace(
            self,
            classes=tuple(self.classes[label] for label in kept),
            splits=splits,
            remarks=(*self.remarks, remark),
            left_out=tuple(name for label, name in enumerate(self.classes) if label not in new),
        )


def scan_folder(root: Path) -> ImageFolder:
    """Find the images of root/{train,val,test}/CLASS/... or root/CLASS/... by suffix and layout (`arrange`).

    Raises DataError if the folder is missing, has no class, or is ambiguous.
    """
    return as_folder(walk(root))


def as_folder(tree: Tree) -> ImageFolder:
    """Return the splits and classes of a tree of files; raises the errors of `scan_folder`."""
    layout = arrange(tree)
    classes = tuple(sorted({name for split in layout.splits.values() for name in split}))
    splits = {
        name: Split.of(sorted((path, label) for label, known in enumerate(classes) for path in images.get(known, ())))
        for name, images in layout.splits.items()
    }
    folder = ImageFolder(tree.root, classes, splits)
    outside = set(tree.images) - {*folder.paths} - layout.unlabelled
    return replace(folder, remarks=(*layout.remarks, *_ignored(tree, outside)))


def _ignored(tree: Tree, outside: Collection[str]) -> Iterator[str]:
    """Yield a line for each kind of files that training ignores; `outside` are images without a class."""
    kinds: list[tuple[Collection[str], str, str]] = [
        (paths, f"{image.name} image", image.remedy) for image, paths in unread_images(tree).items()
    ]
    kinds += [
        (outside, "image", "outside the class folders; move into one"),
        (tree.hidden, "image", "hidden by a leading dot in a name; rename to use"),
        (tree.leftovers, "file", "of other programs, such as thumbnails"),
    ]
    for paths, what, why in kinds:
        if paths:
            yield f"{tree.root}: {counted(len(paths), what)} ignored ({some(sorted(paths), 1)}): {why}"


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
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Open the images below `root` as sets of images of one size.

    They are decoded once, by `workers` threads (None: one per processor; tiny files by one), into a file of at most
    `budget` bytes in the cache, or else on each access. If all have one size that fits into `image_size` (H, W) they
    keep it, else they are fitted into `image_size`, with padding. `channels` (1 or 3) defaults to 1 if all images are
    grey. Of a flat folder, or one with train/ only, a fixed `test_fraction` of each class is the test set.
    `on_bad_image="skip"` skips unreadable images. `progress` shows the progress on standard error. Images that would be
    decoded to more than `max_pixels` are refused.

    Raises DataError for a folder that cannot be trained on (`ImageFolder.problems`) and for unreadable images,
    UsageError for several sizes without an `image_size`.
    """
    options = Reading(
        image_size=image_size,
        channels=channels,
        on_bad_image=on_bad_image,
        workers=workers,
        budget=budget,
        test_fraction=test_fraction,
        progress=progress,
        max_pixels=max_pixels,
    )
    return open_folder(scan_folder(root), options)


def open_folder(folder: ImageFolder, options: Reading, table: str = "") -> Dataset:
    """Open a scanned folder as `load_folder` does, with its errors; `table` is the name of the file that lists them."""
    root = folder.root
    options.require_channels()
    folder = folder.without_small(options.min_images)
    if options.trainable and (problems := folder.problems()):
        raise DataError("; ".join(problems))
    paths = folder.paths
    labels = torch.tensor([label for split in folder.splits.values() for label in split.labels], dtype=torch.int64)
    opened = open_images(root, paths, options, table)
    if opened.problems and (options.on_bad_image == "error" or not opened.paths):
        names = some([f"{path} ({reason})" for path, reason in opened.problems.items()], NAMED)
        raise DataError(
            f"{root / table}: {len(opened.problems):,} of {counted(len(paths), 'image')} cannot be read: {names}; "
            f"inspect them with: cnnkit data check {root / table}, or skip them with: --on-bad-image skip"
        )
    there = set(opened.paths)
    good = torch.tensor([path in there for path in paths], dtype=torch.bool)
    groups = alike(opened.digests, opened.facts.thumbs(), options.progress) if options.trainable else None
    pool = ImageSet(opened.images, labels[good], opened.paths, opened.digests, groups, opened.facts)
    sets, start = {}, 0
    for name, split in folder.splits.items():
        number = sum(path in there for path in split.paths)
        sets[name] = pool.subset(torch.arange(start, start + number))
        start += number
    if len(sets) == 1:
        train = sets["train"]
        kept, aside = train.hold_out(options.test_fraction, "test", options.used)
        sets |= {"train": train.subset(kept), "test": train.subset(aside)}
    if options.trainable:
        left = sets["train"].labels.unique().tolist()
        if lost := [name for label, name in enumerate(folder.classes) if label not in left]:
            raise DataError(f"{root / table}: no image of class {lost[0]!r} is left to train on")
    new = len(paths) - len(opened.paths) - len(opened.problems)
    unknown = (f"{root / table}: {counted(new, 'image')} not recorded by the run: not used",) if new else ()
    return Dataset(
        Path(table).stem if table else root.resolve().name,
        folder.classes,
        sets["train"],
        sets.get("test") or None,  # also for an empty one
        sets.get("validation") or None,
        tuple(opened.problems.items()),
        pool=pool,
        left_out=folder.left_out,
        remarks=(*folder.remarks, *unknown),
    )
