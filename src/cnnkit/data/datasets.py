"""The named data sets: their classes and files, and how they are found, downloaded and read."""

import logging
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from cnnkit.core.cache import cached_file
from cnnkit.core.errors import DataError
from cnnkit.core.fetch import fetch
from cnnkit.core.files import is_file
from cnnkit.core.places import cache_dir
from cnnkit.data.idx import read_idx
from cnnkit.data.imageset import Dataset, ImageSet

__all__ = ["DATASETS", "Source", "load_named"]

log = logging.getLogger(__name__)

FILES = (
    "train-images-idx3-ubyte",
    "train-labels-idx1-ubyte",
    "t10k-images-idx3-ubyte",
    "t10k-labels-idx1-ubyte",
)
BYTES = (47_040_016, 60_008, 7_840_016, 10_008)  # of them, decompressed: 60,000 and 10,000 images of 28 x 28
SYSTEM = Path("/usr/share/datasets")


@dataclass(frozen=True)
class Source:
    """The description of a data set."""

    classes: tuple[str, ...]
    mirrors: tuple[str, ...]  # each holds FILES with the suffix ".gz"
    sha256: tuple[str, ...]  # of the decompressed FILES


DIGITS = tuple("0123456789")
DATASETS: dict[str, Source] = {
    # Alpaydin and Kaynak 1998, UCI; 8 x 8; ships with cnnkit (digits/LICENSE.md)
    "digits": Source(DIGITS, (), ()),
    # Xiao, Rasul, Vollgraf 2017; 28 x 28; MIT licence
    "fashion-mnist": Source(
        (
            "T-shirt/top",
            "Trouser",
            "Pullover",
            "Dress",
            "Coat",
            "Sandal",
            "Shirt",
            "Sneaker",
            "Bag",
            "Ankle boot",
        ),
        (
            "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
            "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
        ),
        (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888",
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9",
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b",
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34",
        ),
    ),
    # LeCun, Cortes, Burges 1998; 28 x 28
    "mnist": Source(
        DIGITS,
        (
            "https://ossci-datasets.s3.amazonaws.com/mnist/",
            "https://storage.googleapis.com/cvdf-datasets/mnist/",
        ),
        (
            "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
            "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
            "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
            "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
        ),
    ),
}


def load_named(name: str, data_dir: Path | None = None) -> Dataset:
    """Read a data set of DATASETS into memory.

    IDX files are searched in `data_dir` only if it is given, else in `$CNNKIT_DATA`, the cache and
    /usr/share/datasets, plain or .gz, in the folder itself or in one with the set's name; if none has all four, or a
    file in the cache is corrupt, they are downloaded into the cache. Raises DataError for files that are missing,
    corrupt or inconsistent.
    """
    source = DATASETS[name]
    paths = _locate(name, source, data_dir)
    try:
        return _load(name, source, paths)
    except DataError as error:
        if data_dir is not None or not source.mirrors or paths[0].parent != cache_dir() / name:
            raise
        try:
            paths = _download(name, source)
        except DataError as failure:
            raise DataError(f"{error}; the download failed ({failure})") from failure
        log.warning("%s: downloaded again, as one of its files could not be read: %s", name, error)
        return _load(name, source, paths)


def _load(name: str, source: Source, paths: list[Path]) -> Dataset:
    train_images, train_labels, test_images, test_labels = paths
    return Dataset(
        name,
        source.classes,
        _read(train_images, train_labels, len(source.classes)),
        _read(test_images, test_labels, len(source.classes)),
    )


def _locate(name: str, source: Source, data_dir: Path | None) -> list[Path]:
    """Return the paths of the four files, downloading them if no folder has them."""
    folders = list(_folders(name, data_dir))
    partial = ""
    for folder in folders:
        found = {file: path for file in FILES if (path := _plain_or_gz(folder / file))}
        if len(found) == len(FILES):
            return list(found.values())
        if found:
            missing = ", ".join(file for file in FILES if file not in found)
            partial = f"; {folder} lacks {missing}"
    places = ", ".join(map(str, folders))
    if data_dir is not None or not source.mirrors:
        raise DataError(f"{name}: no complete set of IDX files ({', '.join(FILES)}, plain or .gz) in {places}{partial}")
    try:
        return _download(name, source)
    except DataError as error:
        hint = " (or install Debian's dataset-fashion-mnist)" if name == "fashion-mnist" else ""
        raise DataError(
            f"{name}: not found in {places}{partial}, and the download failed: {error}; "
            f"put the IDX files into a folder and name it with --data-dir{hint}"
        ) from error


def _download(name: str, source: Source) -> list[Path]:
    """Return the paths of the four files in the cache, downloading those that are missing or wrong."""
    return [
        fetch([f"{mirror}{file}.gz" for mirror in source.mirrors], cached_file(name, file), digest, size)
        for file, digest, size in zip(FILES, source.sha256, BYTES, strict=True)
    ]


def _folders(name: str, data_dir: Path | None) -> Iterator[Path]:
    if data_dir is not None:
        yield from (data_dir, data_dir / name)
    elif name == "digits":
        yield Path(__file__).parent / name
    else:
        if own := os.environ.get("CNNKIT_DATA"):
            yield from (Path(own), Path(own) / name)
        yield from (cache_dir() / name, SYSTEM / name)


def _plain_or_gz(path: Path) -> Path | None:
    candidates = (path, path.with_name(path.name + ".gz"))
    return next((candidate for candidate in candidates if is_file(candidate)), None)


def _read(images_path: Path, labels_path: Path, num_classes: int) -> ImageSet:
    images, labels = read_idx(images_path), read_idx(labels_path)
    if images.ndim != 3 or images.dtype != "u1" or not images.size:
        raise DataError(
            f"{images_path}: images must be N x H x W bytes, at least one, not {images.shape} {images.dtype}"
        )
    if labels.ndim != 1 or labels.dtype != "u1":
        raise DataError(f"{labels_path}: labels must be N bytes, not {labels.shape} {labels.dtype}")
    if len(images) != len(labels):
        raise DataError(f"{images_path} has {len(images):,} images but {labels_path} has {len(labels):,} labels")
    if labels.max() >= num_classes:
        raise DataError(f"{labels_path}: label {labels.max()} is outside 0-{num_classes - 1}")
    pixels = torch.from_numpy(images)[..., None].permute(0, 3, 1, 2)
    return ImageSet(pixels, torch.from_numpy(labels).long())
