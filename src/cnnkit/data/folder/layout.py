"""The layout of a folder: which subfolders are splits and which are classes, by structure and names."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cnnkit.core.errors import DataError
from cnnkit.core.text import counted, shell, some
from cnnkit.data.folder.archive import ARCHIVES
from cnnkit.data.folder.walk import Tree
from cnnkit.data.split_names import SPLITS, split_of

__all__ = ["Layout", "arrange", "class_name"]

Classes = dict[str, list[str]]  # the images of each class, by their paths below the root
PLAIN = {"train", "val", "valid", "validation", "test"}  # names of splits that need no remark


@dataclass(frozen=True)
class Layout:
    """The classes of each split of SPLITS that exists; a flat folder has train only."""

    splits: dict[str, Classes]
    remarks: tuple[str, ...]
    """Decisions that may surprise, a line each."""
    unlabelled: frozenset[str] = frozenset()
    """Images to predict."""


@dataclass
class _Folder:
    """A folder, by its path below the root, with its images, its subfolders, and its `total` of images at any depth."""

    path: str = ""
    images: list[str] = field(default_factory=list)
    folders: list["_Folder"] = field(default_factory=list)
    total: int = 0

    @property
    def name(self) -> str:
        return self.path.rpartition("/")[2]

    @property
    def filled(self) -> list["_Folder"]:
        return [folder for folder in self.folders if folder.total]

    def all_images(self) -> Iterator[str]:
        yield from self.images
        for folder in self.folders:
            yield from folder.all_images()


def arrange(tree: Tree) -> Layout:
    """Return the split and class of each image.

    Folders whose names mean train, validation or test (`split_of`) and that hold folders of images are splits. One that
    holds images itself is a class beside other classes, and images to predict beside a train/. A single folder that
    holds everything is searched instead.

    Raises DataError for a folder that is not a data set, or is ambiguous, with a command for each reading.
    """
    top = _deepest(_folders(tree))
    base = tree.root / top.path
    remarks = [f"{base} is used as the folder of the data set"] if top.path else []
    beside = [folder for folder in top.filled if not split_of(folder.name)]
    named = [folder for folder in top.filled if split_of(folder.name)]
    parts = [folder for folder in named if folder.filled and not (folder.images and beside)]
    places: dict[str, _Folder] = {}
    for folder in parts:
        split = split_of(folder.name) or ""
        if split in places:
            raise DataError(f"{base} has both {places[split].name}/ and {folder.name}/ for {split}: keep one of them")
        places[split] = folder
    if not places:
        remarks += [f"{base / folder.name} is used as a class, as it is beside others" for folder in named]
        if inner := _splits_of_each(top):
            remarks.append(f"{base}: each class has its own {', '.join(inner)} folders, which are used as these splits")
            return Layout(inner, tuple(remarks))
        _require_classes(top, tree, beside, named)
        _require_one_reading(tree, top)
        return Layout({"train": _classes(top)}, (*remarks, *_two_forms([top])))
    if "train" not in places:
        one = shell(base / parts[0].name)
        raise DataError(
            f"{base} has {_names(parts)} but no train/; a flat folder of classes cannot have a class of that name; "
            f"to evaluate on one split only, name it: --data {one}"
        )
    if beside:
        train = places["train"].name
        raise DataError(
            f"{base} has {train}/, and images in {beside[0].name}/ beside it: "
            f"move them into a class of {train}/, or remove the folder"
        )
    inside = {split: _within_split(places[split], split) for split in SPLITS if split in places}
    known = {class_name(folder.name) for folder in inside["train"].folders}
    for split in ("validation", "test"):  # val/images/*.jpg: one folder, and of no class
        if split in inside and len(only := inside[split].filled) == 1 and class_name(only[0].name) not in known:
            del inside[split]
    unlabelled = []
    for folder in named:
        split = split_of(folder.name) or ""
        if split not in inside or folder is not places[split]:
            unlabelled.append(folder)
        elif folder.name.lower() not in PLAIN:
            remarks.append(f"{base / folder.name} is used as the {split} images")
    for folder in unlabelled:
        remarks.append(
            f"{base / folder.name} holds {counted(folder.total, 'image')} without a class, not used for training or "
            f"evaluation; to predict them: cnnkit predict RUN {shell(base / folder.name)}"
        )
    remarks += _two_forms(inside.values())
    splits = {split: _classes(folder) for split, folder in inside.items()}
    return Layout(splits, tuple(remarks), frozenset(path for folder in unlabelled for path in folder.all_images()))


def class_name(name: str) -> str:
    """Return the name of a class in Unicode's composed form; Macs use the decomposed one."""
    return unicodedata.normalize("NFC", name)


def _folders(tree: Tree) -> _Folder:
    """Return the root as a tree of folders."""
    top = _Folder()
    known = {"": top}
    for path in sorted(tree.folders):  # parents first
        known[path] = _Folder(path)
        known[path.rpartition("/")[0]].folders.append(known[path])
    for path in tree.images:
        folder = path.rpartition("/")[0]
        known[folder].images.append(path)
        while folder:
            known[folder].total += 1
            folder = folder.rpartition("/")[0]
    return top


def _deepest(top: _Folder) -> _Folder:
    """Return the folder of the data set: descend into single subfolders until one has several, or a split."""
    place = top
    while len(place.filled) == 1 and not place.images and not split_of(place.filled[0].name):
        place = place.filled[0]
        if len(place.filled) > 1 and not place.images:
            return place
    only = place.filled[0].name if len(place.filled) == 1 and not place.images else ""
    return place if split_of(only) else top


def _within_split(place: _Folder, split: str) -> _Folder:
    """Return the folder that holds the classes of a split, which may be nested: seg_train/seg_train/CLASS."""
    while len(place.filled) == 1 and not place.images and split_of(place.filled[0].name) == split:
        if not place.filled[0].filled:
            break
        place = place.filled[0]
    return place


def _classes(place: _Folder) -> Classes:
    found: Classes = defaultdict(list)
    for folder in place.folders:
        found[class_name(folder.name)] += folder.all_images()
    return dict(found)


def _splits_of_each(top: _Folder) -> dict[str, Classes]:
    """Return the splits of CLASS/{train,test}/...; none for other layouts."""
    splits: dict[str, Classes] = {}
    for folder in top.filled:
        for part in folder.filled:
            split = split_of(part.name)
            if split not in SPLITS or folder.images:
                return {}
            splits.setdefault(split, {}).setdefault(class_name(folder.name), []).extend(part.all_images())
    return {split: splits[split] for split in SPLITS if split in splits} if "train" in splits else {}


def _require_classes(top: _Folder, tree: Tree, beside: list[_Folder], named: list[_Folder]) -> None:
    """Raise DataError for a folder without folders of classes."""
    base = tree.root / top.path
    remedy = "make a folder for each class, or list the images and their labels in a CSV file and name it with --data"
    if named and not beside:
        raise DataError(f"{base}: {_names(named)} hold images, but no folders of classes: {remedy}")
    if top.filled or (len(top.folders) > 1 and not any(split_of(folder.name) for folder in top.folders)):
        return
    if top.images:
        raise DataError(f"{base} holds {counted(len(top.images), 'image')}, but no folders of classes: {remedy}")
    archives = [name for name in tree.others if "/" not in name and name.lower().endswith(ARCHIVES)]
    if archives:
        several = " and ".join(shell(tree.root / name) for name in archives[:2])
        raise DataError(
            f"{base} has archives, but no folder of images: unpack them, or name one with --data: {several}"
        )
    train = next((folder for folder in top.folders if split_of(folder.name) == "train"), top)
    where = tree.root / train.path
    raise DataError(f"{where} has no folder of images: make one for each class, such as {where / 'cat'}")


def _require_one_reading(tree: Tree, top: _Folder) -> None:
    """Raise DataError if all folders have the same subfolders, so that either level may be the classes."""
    inner = [sorted(class_name(sub.name) for sub in folder.filled) for folder in top.filled]
    if len(inner) < 2 or len(inner[0]) < 2 or inner.count(inner[0]) < len(inner):
        return
    if any(folder.images for folder in top.filled):
        return
    base = tree.root / top.path
    outer = [folder.name for folder in top.filled]
    whole = shell(base.absolute())
    parts = [shell(base / name) for name in outer[:2]]
    raise DataError(
        f"{base}: {some(outer)} hold the same folders, {some(inner[0])}, and either may be the classes. "
        f"If {some(outer)} are: mkdir split && ln -s {whole} split/train, then --data split. "
        f"If {some(inner[0])} are: --data {parts[0]} --test-data {parts[1]}"
    )


def _two_forms(places: Iterable[_Folder]) -> Iterator[str]:
    """Yield a line for each class whose folders spell its name in several of Unicode's forms."""
    forms: dict[str, set[str]] = defaultdict(set)
    for place in places:
        for folder in place.folders:
            forms[class_name(folder.name)].add(folder.name)
    for name, written in forms.items():
        if len(written) > 1:
            yield f"{len(written)} folders spell {name} in different forms of Unicode: they are one class"


def _names(folders: Iterable[_Folder]) -> str:
    return ", ".join(f"{folder.name}/" for folder in folders)
