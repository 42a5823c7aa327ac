"""Problems of the readable images as a set: duplicates, leaks, class imbalance."""

import os
from collections import Counter as Count
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import numpy as np

from cnnkit.data.check.findings import Finding
from cnnkit.data.folder.dataset import ImageFolder
from cnnkit.data.images.duplicates import gather, near_pairs
from cnnkit.data.images.formats import suffix_format

__all__ = ["duplicates", "few", "imbalance", "near_duplicates", "spread", "statistics", "wrong_suffixes"]

UNEQUAL = 10  # times as many images in the largest class as in the smallest


def wrong_suffixes(folder: ImageFolder, facts: np.ndarray) -> Iterator[Finding]:
    """Yield the images whose format does not match their suffix; `facts` has a row of IMAGE for each image."""
    for path, found in zip(folder.paths, facts["format"].tolist(), strict=True):
        form = suffix_format(path)
        if form is None or form.name != found:
            yield Finding("wrong-suffix", (path,), f"holds a {found}")


def few(folder: ImageFolder) -> Iterator[Finding]:
    """Yield the classes with a single training image, or without validation or test images."""
    counts = {name: Count(split.labels) for name, split in folder.splits.items()}
    for label, name in enumerate(folder.classes):
        least = 2 if "test" in counts else 3  # of a flat folder, one of three is held out
        if 0 < counts["train"][label] < least:
            yield Finding("few", (), f"{name} has {counts['train'][label]} in train")
        elif counts["train"][label] and (lacking := [split for split, count in counts.items() if not count[label]]):
            yield Finding("few", (), f"{name} has none in {' and '.join(lacking)}")


def imbalance(folder: ImageFolder) -> Iterator[Finding]:
    """Yield a finding if the largest class of the training set has UNEQUAL times as many images as the smallest."""
    sizes = Count(next(iter(folder.splits.values())).labels).most_common()
    if sizes and sizes[0][1] >= UNEQUAL * sizes[-1][1]:
        (most, many), (least, few) = sizes[0], sizes[-1]
        times = f"{many / few:,.0f} times as many"
        yield Finding(
            "imbalance", (), f"{folder.classes[most]} has {many:,} images, {folder.classes[least]} {few:,}: {times}"
        )


def duplicates(folder: ImageFolder, facts: np.ndarray) -> Iterator[Finding]:
    """Yield the images with equal pixels, within a split and across splits."""
    files = _files(folder)
    for rows in _copies(facts["pixels"]):
        if len(rows) > 1:
            paths, splits, classes = zip(*(files[row] for row in rows), strict=True)
            alike = "identical" if len(set(facts["content"][rows].tolist())) == 1 else "same pixels"
            detail = ", ".join([alike, *_conflict(classes)])
            if len(set(splits)) > 1:
                yield Finding("leak", paths, detail, _trained_on(folder, paths, splits))
            if len(set(classes)) > 1:
                yield Finding("label-conflict", paths, detail)
            elif len(set(splits)) == 1:
                yield Finding("duplicate", paths, detail)


def near_duplicates(folder: ImageFolder, facts: np.ndarray, progress: bool) -> Iterator[Finding]:
    """Yield the images with near-duplicate thumbnails, within a split and across splits."""
    files, copies = _files(folder), _copies(facts["pixels"])
    firsts = [rows[0] for rows in copies]
    for groups in gather(near_pairs(facts["thumb"][firsts], progress)):
        rows = sorted(row for group in groups for row in copies[group])
        paths, splits, classes = zip(*(files[row] for row in rows), strict=True)
        kind = "near-leak" if len(set(splits)) > 1 else "near-duplicate"
        yield Finding(kind, paths, "".join(_conflict(classes)))


def statistics(folder: ImageFolder, facts: np.ndarray) -> dict[str, Any]:
    """Return statistics of the images: number in each class, sizes (upright), bytes, modes, formats."""
    counts = {split: Count(images.labels) for split, images in folder.splits.items()}
    return {
        "images": len(facts),
        "classes": {
            name: {split: count[label] for split, count in counts.items()} for label, name in enumerate(folder.classes)
        },
        "height": spread(facts["height"]),
        "width": spread(facts["width"]),
        "aspect": spread(facts["width"] / facts["height"]),
        "bytes": spread(facts["bytes"]) | {"sum": int(facts["bytes"].sum())},
        "modes": dict(Count(facts["mode"].tolist()).most_common()),
        "formats": dict(Count(facts["format"].tolist()).most_common()),
        "turned": int(facts["turned"].sum()),
    }


def _files(folder: ImageFolder) -> list[tuple[str, str, str]]:
    """Return the path, split and class of each image."""
    return [
        (path, split, folder.classes[label])
        for split, images in folder.splits.items()
        for path, label in zip(*images, strict=True)
    ]


def _copies(digests: np.ndarray) -> list[list[int]]:
    """Return the rows of each digest, sorted by digest."""
    rows: dict[bytes, list[int]] = defaultdict(list)
    for row, digest in enumerate(digests.tolist()):
        rows[digest].append(row)
    return [rows[digest] for digest in sorted(rows)]


def _conflict(classes: tuple[str, ...]) -> list[str]:
    return [f"in classes {' and '.join(sorted(set(classes)))}"] if len(set(classes)) > 1 else []


def _trained_on(folder: ImageFolder, paths: tuple[str, ...], splits: tuple[str, ...]) -> tuple[str, ...]:
    """Return the copies to remove: all but those of the last split, and links to these."""
    last = [name for name in folder.splits if name in splits][-1]
    kept = {_place(folder, path) for path, split in zip(paths, splits, strict=True) if split == last}
    return tuple(path for path in paths if _place(folder, path) not in kept)


def _place(folder: ImageFolder, path: str) -> tuple[str, str]:
    parent, _, name = path.rpartition("/")
    return os.path.realpath(folder.root / parent), name


def spread(values: np.ndarray) -> dict[str, float]:
    """Return the smallest, median and largest of the values."""
    low, middle, high = np.percentile(values, (0, 50, 100)).tolist() if len(values) else (0, 0, 0)
    return {"min": low, "median": middle, "max": high}
