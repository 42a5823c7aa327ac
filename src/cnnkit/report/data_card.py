"""The data card of a run: the classes and sizes of its images, and problems such as duplicates and leaks."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from cnnkit.core.errors import CnnkitError
from cnnkit.core.text import shell, some
from cnnkit.data import ImageFolder, ImageSet, InMemory, Reading, Split, is_handed_in, open_dataset
from cnnkit.data.check.dataset import duplicates, few, imbalance, near_duplicates, spread
from cnnkit.data.check.file import problem_kind
from cnnkit.data.check.findings import KINDS, Finding
from cnnkit.data.folder.cache import digest
from cnnkit.data.images.decode import THUMB
from cnnkit.experiment.record import PARTS, Record
from cnnkit.experiment.run import Run
from cnnkit.experiment.split_images import NoImagesError, SplitName
from cnnkit.experiment.trained import Trained

__all__ = ["CardFinding", "DataCard", "data_card"]

Comparison = Literal["files", "pixels", "nothing"]
SPLITS: tuple[SplitName, ...] = get_args(SplitName)
OPTIONS = Reading(on_bad_image="skip", budget=0, trainable=False, test_fraction=0.0)  # reads no cached pixels
EXAMPLES, NAMED = 5, 3  # findings of a kind; files in one of them
AT_A_TIME = 4096  # images in memory that are compared at a time
THUMB_SIZE = (THUMB * THUMB * 3,)


@dataclass(frozen=True)
class CardFinding:
    """The findings of a kind (of KINDS): how many, about how many files, with examples as text, and what to do."""

    kind: str
    severity: Literal["harm", "warning", "note"]
    text: str
    groups: int
    files: int
    examples: tuple[str, ...]
    remedy: str


@dataclass(frozen=True)
class DataCard:
    """What is known of a run's data.

    `images` is the number of images of each split that is not empty, `counts` that of each class in it, where it is
    known. `height` and `width` are the smallest, median and largest of the upright images before resizing. Duplicates
    are found by comparing "files" (contents and, for near-duplicates, thumbnails) or "pixels"; "nothing" is compared
    where only batches can be read. `remarks` say what is not known, and why.
    """

    data: str
    classes: tuple[str, ...]
    images: dict[str, int]
    counts: dict[str, tuple[int, ...]]
    channels: int | None = None
    height: dict[str, float] | None = None
    width: dict[str, float] | None = None
    compared: Comparison = "nothing"
    findings: tuple[CardFinding, ...] = ()
    remarks: tuple[str, ...] = ()

    def by_class(self) -> dict[str, dict[str, int]]:
        """Return the number of images by class and split."""
        return {
            name: {split: counts[label] for split, counts in self.counts.items()}
            for label, name in enumerate(self.classes)
        }

    def to_dict(self) -> dict[str, Any]:
        """Return the card as plain data."""
        return asdict(self) | {"counts": self.by_class()}


def data_card(run: Run | str | os.PathLike[str], progress: bool = False) -> DataCard:
    """Return the card of a run's data; of image files it reads the cache, and decodes only files that are new to it.

    If the data are gone, or were passed from Python and are not in `run`, the card has what split.json knows. Raises
    UsageError if `run` is neither a run nor a bundle, CnnkitError if its files are corrupt.
    """
    trained = Trained.open(run)
    data, classes = trained.bundle.data, trained.bundle.classes
    known = {split: number for split, number in _listed(trained.record or {}).items() if number}
    parts: dict[str, ImageSet] = {}
    remarks: list[str] = []
    try:
        for split in SPLITS:
            try:
                found = trained.images(split, None, replace(OPTIONS, progress=progress))
                parts[split], data = found.images, found.name
                remarks += found.remarks
            except NoImagesError as error:
                remarks += [str(error)] if split in known else []
    except CnnkitError as error:
        parts, remarks = {}, [f"split.json alone is known: {error}"]
    if not parts:
        return DataCard(data, classes, known, _known_classes(trained), remarks=tuple(remarks))
    compared, findings = _compared(classes, parts, progress)
    place = trained.bundle.data
    if compared == "files" and not is_handed_in(place):
        findings += _unused(place, parts, trained.bundle.image_size, progress)
        if Path(place).is_dir():
            remarks.append(f"for other problems, run: cnnkit data check {shell(place)}")
    elif compared == "nothing":
        remarks.append("duplicates are not searched for in data of this format")
    sizes = _sizes(parts.values())
    return DataCard(
        data,
        classes,
        {split: len(part) for split, part in parts.items()},
        {split: _counts(part.labels.tolist(), len(classes)) for split, part in parts.items()},
        next((part.storage.shape[1] for part in parts.values()), None),
        None if sizes is None else spread(sizes[:, 0]),
        None if sizes is None else spread(sizes[:, 1]),
        compared,
        tuple(_summaries(findings)),
        tuple(dict.fromkeys(remarks)),
    )


def _compared(
    classes: tuple[str, ...], parts: Mapping[str, ImageSet], progress: bool
) -> tuple[Comparison, list[Finding]]:
    """Return how the images of the splits can be compared, and the findings."""
    splits = {split: Split(_names(split, part), tuple(part.labels.tolist())) for split, part in parts.items()}
    folder = ImageFolder(Path(), classes, splits)
    findings = [*few(folder), *imbalance(folder)] if "train" in parts else []
    files = [part.files for part in parts.values() if part.files]
    if len(files) == len(parts):
        digests = np.array([digest for part in parts.values() for digest in part.digests], "S")
        facts = np.empty(
            len(digests), [("content", digests.dtype), ("pixels", digests.dtype), ("thumb", "u1", THUMB_SIZE)]
        )
        facts["content"] = facts["pixels"] = digests
        facts["thumb"] = np.concatenate([one.thumbs() for one in files])
        return "files", [*findings, *duplicates(folder, facts), *near_duplicates(folder, facts, progress)]
    if all(isinstance(part.storage, InMemory) for part in parts.values()):
        digests = np.array([digest for part in parts.values() for digest in _pixel_digests(part)], "S")
        facts = np.empty(len(digests), [("content", digests.dtype), ("pixels", digests.dtype)])
        facts["content"] = facts["pixels"] = digests
        return "pixels", [*findings, *duplicates(folder, facts)]
    return "nothing", findings


def _pixel_digests(part: ImageSet) -> Iterator[str]:
    """Yield a digest of each image in memory."""
    for start in range(0, len(part), AT_A_TIME):
        images, _ = part.storage.read(slice(start, start + AT_A_TIME))
        for pixels in images.permute(0, 2, 3, 1).contiguous().cpu().numpy():
            yield digest(pixels.data)


def _names(split: str, part: ImageSet) -> tuple[str, ...]:
    return tuple(part.names) or tuple(f"{split} image {row:,}" for row in range(len(part)))


def _counts(labels: Sequence[int], classes: int) -> tuple[int, ...]:
    return tuple(np.bincount(np.asarray(labels, np.int64), minlength=classes).tolist())


def _sizes(parts: Iterable[ImageSet]) -> np.ndarray | None:
    """Return the height and width of each image; None if only a common size to which they are fitted is known."""
    found = []
    for part in parts:
        if part.files:
            found.append(part.files.sizes.numpy())
        elif isinstance(part.storage, InMemory):
            found.append(np.broadcast_to(np.array(part.storage.shape[2:]), (len(part), 2)))
        else:
            return None
    return np.concatenate(found) if found else None


def _unused(place: str, parts: Mapping[str, ImageSet], size: tuple[int, int], progress: bool) -> Iterator[Finding]:
    """Yield the files that cannot be decoded, and the test images that the run skips as copies of training images."""
    dataset = open_dataset(place, replace(OPTIONS, image_size=size, progress=progress))
    for path, reason in dataset.skipped:
        yield Finding(problem_kind(reason), (path,), reason)
    used = {name for part in parts.values() for name in part.names}
    first = {digest: name for part in parts.values() for name, digest in zip(part.names, part.digests, strict=True)}
    for name, found in zip(dataset.test.names, dataset.test.digests, strict=True) if dataset.test else ():
        if name not in used and found in first:
            yield Finding("leak", (first[found], name), "identical, skipped in testing")


def _summaries(findings: Iterable[Finding]) -> Iterator[CardFinding]:
    """Yield a summary of the findings of each kind, the most severe first."""
    order = list(KINDS)
    for kind, group in groupby(sorted(findings, key=lambda one: order.index(one.kind)), lambda one: one.kind):
        found, about = list(group), KINDS[kind]
        examples = tuple(map(_line, found[:EXAMPLES]))
        files = sum(len(one.paths) for one in found)
        yield CardFinding(kind, about.severity, about.text, len(found), files, examples, about.remedy)


def _line(finding: Finding) -> str:
    files = some(finding.paths, NAMED)
    return f"{files} ({finding.detail})" if files and finding.detail else files or finding.detail


def _listed(record: Record) -> dict[str, int]:
    """Return the number of images of each split that split.json lists."""
    return {part: len(record[part]) for part in PARTS if part in record}


def _known_classes(trained: Trained) -> dict[str, tuple[int, ...]]:
    """Return the counts by class of the splits whose labels split.json has."""
    labels = (trained.record or {}).get("labels", {})
    classes = len(trained.bundle.classes)
    return {split: _counts(of, classes) for split, of in labels.items() if max(of, default=0) < classes}
