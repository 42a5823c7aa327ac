"""The check of a folder of images: problems that harm training, warnings and notes."""

import ctypes
import logging
import warnings
from collections.abc import Iterator, Sequence, Set
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import _imaging

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_WORKERS
from cnnkit.core.parallel import ahead, chunks, processors
from cnnkit.core.progress import Counter
from cnnkit.core.shape import count
from cnnkit.data.check.dataset import duplicates, few, imbalance, near_duplicates, statistics, wrong_suffixes
from cnnkit.data.check.file import IMAGE, Problem, examine
from cnnkit.data.check.findings import KINDS, Finding
from cnnkit.data.folder.dataset import ImageFolder, Split, as_folder
from cnnkit.data.folder.layout import arrange
from cnnkit.data.folder.walk import Tree, walk
from cnnkit.data.images.formats import allow_pixels, unread
from cnnkit.data.split_names import SPLITS, split_of

__all__ = ["Diagnosis", "diagnose"]

CHUNK = 16  # files that a thread examines at a time


@dataclass(frozen=True)
class Diagnosis:
    """The findings about the folder `root`, the most severe first, and `statistics` of the readable images."""

    root: Path
    files: int
    findings: tuple[Finding, ...]
    statistics: dict[str, Any]

    @property
    def harms(self) -> bool:
        """Whether the data are unfit for training."""
        return any(finding.harms for finding in self.findings)


def diagnose(
    root: Path, workers: int | None = None, progress: bool = True, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Diagnosis:
    """Decode each image below `root` once, in `workers` threads (None: one per processor), and compare them all.

    No file in the folder raises an error; an image of more than `max_pixels` is a finding. `progress` shows the
    progress on standard error. Raises DataError if the folder is missing, UsageError for numbers out of range.
    """
    workers = count(processors() if workers is None else workers, "workers", MAX_WORKERS)
    allow_pixels(max_pixels)
    tree = walk(root)
    findings: list[Finding] = []
    try:
        folder = as_folder(tree)
        findings += [Finding("remark", detail=remark) for remark in arrange(tree).remarks]
    except DataError as error:
        findings.append(Finding("layout", detail=str(error)))
        folder = _guess(tree)
    seen = set(folder.paths)
    with _silence():
        facts, bad = _examine_all(folder, workers, progress, max_pixels)
        findings += _ignored(tree, seen)
    findings += bad
    unusable = {path for finding in bad for path in finding.paths}
    splits = {
        name: Split.of(row for row in zip(*split, strict=True) if row[0] not in unusable)
        for name, split in folder.splits.items()
    }
    folder = replace(folder, splits=splits)
    if "" not in folder.classes:
        findings += [Finding("class", detail=line) for line in folder.problems()]
        findings += few(folder)
        findings += imbalance(folder)
    findings += wrong_suffixes(folder, facts)
    findings += duplicates(folder, facts)
    findings += near_duplicates(folder, facts, progress)
    order = list(KINDS)
    findings.sort(key=lambda finding: (order.index(finding.kind), finding.paths))
    return Diagnosis(root, len(tree.images) + len(tree.others), tuple(findings), statistics(folder, facts))


@contextmanager
def _silence() -> Iterator[None]:
    """Suppress warnings of Pillow and libtiff, as the findings name the files."""
    log = logging.getLogger("PIL")
    level = log.level
    log.setLevel(logging.CRITICAL + 1)
    handlers = {name: _call_on(name, None) for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler")}
    try:
        with warnings.catch_warnings():  # not in the threads, which share one list of filters
            warnings.simplefilter("ignore")
            yield
    finally:
        log.setLevel(level)
        for name, handler in handlers.items():
            _call_on(name, handler)


def _call_on(event: str, handler: int | None) -> int | None:
    """Set libtiff's handler, which prints by default; return the previous one."""
    with suppress(OSError, AttributeError):  # another build of Pillow
        function = getattr(ctypes.CDLL(_imaging.__file__), event)
        function.argtypes, function.restype = (ctypes.c_void_p,), ctypes.c_void_p
        before: int | None = function(handler)
        return before
    return None


def _guess(tree: Tree) -> ImageFolder:
    """Assign images to splits and classes by their paths, where `arrange` fails; "" is the class of the others."""
    parts = {path: path.split("/") for path in sorted(tree.images)}
    split = any(split_of(names[0]) in SPLITS for names in parts.values() if len(names) > 1)
    places: dict[str, list[tuple[str, str]]] = {name: [] for name in SPLITS}
    for path, names in parts.items():
        if not split:
            places["train"].append((path, names[0] if len(names) > 1 else ""))
        elif len(names) > 1 and (name := split_of(names[0])) in places:
            places[name].append((path, names[1] if len(names) > 2 else ""))
    classes = sorted({label for rows in places.values() for _, label in rows})
    splits = {
        name: Split.of((path, classes.index(label)) for path, label in rows)
        for name, rows in places.items()
        if rows or name == "train"
    }
    return ImageFolder(tree.root, tuple(classes), splits)


def _examine_all(
    folder: ImageFolder, workers: int, progress: bool, max_pixels: int
) -> tuple[np.ndarray, list[Finding]]:
    """Return a row of IMAGE for each readable image, in order, and findings for the others."""
    paths = folder.paths
    facts, bad = [np.empty(0, IMAGE)], []

    def examine_chunk(chunk: Sequence[str]) -> list[np.ndarray | Problem]:
        return [examine(f"{folder.root}/{path}", max_pixels) for path in chunk]

    with Counter(f"examining {folder.root}", len(paths), progress) as counter:
        results = ahead(examine_chunk, chunks(paths, CHUNK), workers, 4 * workers)
        for chunk, found in zip(chunks(paths, CHUNK), results, strict=True):
            for path, result in zip(chunk, found, strict=True):
                if isinstance(result, Problem):
                    bad.append(Finding(result.kind, (path,), result.reason, (path,)))
                else:
                    facts.append(result)
            counter.advance(len(found))
    return np.concatenate(facts), bad


def _ignored(tree: Tree, seen: Set[str]) -> Iterator[Finding]:
    """Yield the files that training ignores."""
    for path in tree.images:
        if path not in seen:
            yield Finding("unseen", (path,), "outside the folders of classes")
    for path in tree.others:
        if found := unread(f"{tree.root}/{path}"):
            yield Finding("unseen", (path,), f"holds a {found.name} image: {found.remedy}")
        else:
            yield Finding("other-file", (path,))
    for path in tree.hidden:
        yield Finding("unseen", (path,), "hidden by a leading dot in a name")
    for path in tree.leftovers:
        yield Finding("leftover", (path,))
