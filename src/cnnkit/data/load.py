"""The formats of data sets as one table: how each is recognised and opened."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from cnnkit.core.errors import DataError, UsageError, about, unknown
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.places import expanded
from cnnkit.core.text import hides_password
from cnnkit.data.arrays import is_arrays, load_arrays
from cnnkit.data.datasets import DATASETS, load_named
from cnnkit.data.folder.archive import is_archive, unpacked
from cnnkit.data.folder.dataset import as_folder, open_folder
from cnnkit.data.folder.table import is_table, listing_in, load_table, write_table
from cnnkit.data.folder.walk import walk
from cnnkit.data.imageset import Dataset, ImageSet
from cnnkit.data.map_style import is_map_style, load_map_style
from cnnkit.data.reading import BUDGET, BadImage, Reading
from cnnkit.data.shards.dataset import load_shards
from cnnkit.data.shards.index import is_shards

__all__ = ["is_handed_in", "keep", "load_dataset", "open_dataset", "place", "renumbered", "with_parts"]

HANDED_IN = "python:"  # the prefix in settings of data without a path


@dataclass(frozen=True)
class Format:
    """A row of FORMATS."""

    matches: Callable[[Any], bool]
    open: Callable[[Any, Reading], Dataset]
    is_path: bool = False  # made absolute in settings
    name: str = ""  # of data from Python


def _is_path(data: Any) -> bool:
    return isinstance(data, str | Path)


def _load_folder(data: Any, options: Reading) -> Dataset:
    """Open a folder of classes or splits, or of images that a CSV file in it lists."""
    root = expanded(data)
    tree = walk(root)
    if table := listing_in(tree):
        dataset = load_table(table, options)
        return replace(dataset, remarks=(f"the classes of the images are read from {table}", *dataset.remarks))
    return open_folder(as_folder(tree), options)


def _load_shards(data: Any, options: Reading) -> Dataset:
    return load_shards(
        str(data),
        image_size=options.image_size,
        channels=options.channels,
        on_bad_image=options.on_bad_image,
        workers=options.workers,
        progress=options.progress,
        max_pixels=options.max_pixels,
    )


# the first row that matches is used
FORMATS = (
    Format(lambda data: isinstance(data, str) and data in DATASETS, lambda data, o: load_named(data, o.data_dir)),
    Format(lambda data: _is_path(data) and is_shards(str(data)), _load_shards, is_path=True),
    Format(lambda data: _is_path(data) and str(data).lower().endswith(".csv"), load_table, is_path=True),
    Format(is_archive, lambda data, o: _load_archive(expanded(data), o), is_path=True),
    Format(is_table, load_table, name="list"),
    Format(is_arrays, load_arrays, name="arrays"),
    Format(
        lambda data: _is_path(data) and (expanded(data).is_dir() or Path(data).name != str(data)),
        _load_folder,
        is_path=True,
    ),
    Format(is_map_style, load_map_style, name="dataset"),
)


def load_dataset(
    data: Any,
    data_dir: Path | None = None,
    *,
    image_size: tuple[int, int] | None = None,
    channels: int | None = None,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    budget: int = BUDGET,
    test_fraction: float = 0.1,
    min_images: int = 0,
    progress: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Open a data set: a name of DATASETS, a folder or an archive of images, tar shards, a CSV file, or Python data.

    Python data are a pair (images, labels) of arrays or tensors, a list of pairs (path, label), a pandas frame with the
    columns path and label, or a map-style `torch.utils.data.Dataset` of (image, label). `data_dir` is that of
    `load_named`; the other arguments are those of `load_folder`, and each format uses those that apply to it.

    Raises UsageError for anything else, DataError for files that are missing, corrupt or inconsistent.
    """
    options = Reading(
        data_dir,
        image_size,
        channels,
        on_bad_image,
        workers,
        budget,
        test_fraction,
        progress,
        min_images,
        max_pixels=max_pixels,
    )
    return open_dataset(data, options)


def open_dataset(data: Any, options: Reading) -> Dataset:
    """Open a data set as `load_dataset` does, and raise its errors."""
    if is_handed_in(data):
        raise UsageError(f"these data were passed from Python ({data}); pass them again: data=...")
    if isinstance(data, str) and not data:
        raise UsageError("data is empty: it must be a name or a path")
    if _is_path(data) and hides_password(str(data)):
        raise UsageError(f"{data}: bundles do not keep passwords; pass the URL with its password: --data URL")
    row = next((row for row in FORMATS if row.matches(data)), None)
    if row is None and isinstance(data, str | Path):
        raise UsageError(f"{unknown('data set', str(data), DATASETS)}; no folder of this name exists either")
    if row is None:
        raise UsageError(
            f"data cannot be {type(data).__name__}: it must be a name, a path, (images, labels), a list of "
            "(path, label), a pandas frame, or a torch.utils.data.Dataset"
        )
    if options.data_dir is not None and not (isinstance(data, str) and data in DATASETS):
        raise UsageError(f"data_dir is only for named data sets, not for {_words(data)}: remove it")
    return row.open(data, options)


def with_parts(dataset: Dataset, validation: Any, test: Any, options: Reading) -> Dataset:
    """Return the data set with other data as its validation or test images, if they are not None.

    That part of the other data is used, or all if they have no parts. Classes are matched by name. Raises DataError for
    a class that the data set lacks, and for another number of channels; UsageError if they have only other parts.
    """
    parts = {"validation": validation, "test": test}
    for name, data in parts.items():
        if data is not None:
            other, part = _part(dataset, data, name, options)
            changes: dict[str, Any] = {name: part, "skipped": dataset.skipped + other.skipped}
            if other.sha256:
                changes["parts_sha256"] = (*dataset.parts_sha256, other.sha256)
            dataset = replace(dataset, **changes)
    return dataset


def is_handed_in(data: Any) -> bool:
    """Return whether a setting names data, or a network, that were passed from Python."""
    return isinstance(data, str) and data.startswith(HANDED_IN)


def place(data: Any) -> str:
    """Return the setting that names the data, independent of the current folder."""
    if isinstance(data, Path):  # never the name of a data set
        return str(data) if "://" in str(data) else str(expanded(data).absolute())
    if isinstance(data, str) and not data:
        return data
    if isinstance(data, str):
        row = next((row for row in FORMATS if row.matches(data)), None)
        absolute = row is not None and row.is_path and "://" not in str(data) and not is_handed_in(data)
        return str(expanded(data).absolute()) if absolute else str(data)
    return f"{HANDED_IN}{_words(data)}"


def keep(data: Any, path: Path) -> bool:
    """Write a list or a frame to the CSV file `path`, and return whether data is one; raises CnnkitError."""
    if isinstance(data, str | Path) or not is_table(data):
        return False
    write_table(path, data)
    return True


def _load_archive(path: Path, options: Reading) -> Dataset:
    folder = unpacked(path, options.progress)
    try:
        return _load_folder(folder, options)
    except DataError as error:  # name the archive, not its folder in the cache
        raise DataError(str(error).replace(str(folder), str(path))) from error


def _words(data: Any) -> str:
    if isinstance(data, str | Path):
        return str(data)
    return next((row.name for row in FORMATS if row.name and row.matches(data)), type(data).__name__)


def _part(dataset: Dataset, data: Any, name: str, options: Reading) -> tuple[Dataset, ImageSet]:
    _, channels, height, width = dataset.train.storage.shape
    options = replace(options, image_size=options.image_size or (height, width), channels=channels, test_fraction=0.0)
    other = open_dataset(data, options)
    own: ImageSet | None = getattr(other, name)
    if own is None and (other.validation or other.test):
        raise UsageError(f"{name}_data {_words(data)} has other parts, but none for {name}: pass that part only")
    own = other.train if own is None else own
    if own.storage.shape[1] != channels:
        raise DataError(f"{name}_data has images of {own.storage.shape[1]} channels, the training data of {channels}")
    with about(f"{name}_data"):
        return renumbered(other, own, dataset.classes)


def renumbered(dataset: Dataset, images: ImageSet, classes: tuple[str, ...]) -> tuple[Dataset, ImageSet]:
    """Return a data set, and images of it, with the given classes, matched by name.

    They may be more, and in another order. Raises DataError for a class that is not among them.
    """
    if unmatched := sorted(set(dataset.classes) - set(classes)):
        raise DataError(f"it has classes that the training data lack: {', '.join(unmatched)}")
    numbers = torch.tensor([classes.index(name) for name in dataset.classes])
    return replace(dataset, classes=classes), replace(images, labels=numbers[images.labels])
