"""The content of split.json: the training, validation and test images of a run, by name and content."""

import hashlib
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import BaseModel, model_validator

from cnnkit.core.errors import CnnkitError, reading
from cnnkit.core.files import read_bytes
from cnnkit.core.schema import Count, Word, validated
from cnnkit.core.text import from_json, to_json

__all__ = [
    "PARTS",
    "SPLIT",
    "UNUSED",
    "EarlierUse",
    "Record",
    "content_before",
    "digest_of",
    "has_digests",
    "known_content",
    "own_record",
    "read_record",
]

SPLIT = "split.json"
PARTS = ("train", "validation", "test")
Record = dict[str, Any]


class _SplitFile(BaseModel):
    """Schema of split.json: names with digests for each part, or names or rows of the validation and test images."""

    split_seed: Count = 0
    seed: Count = 0  # of earlier versions
    train: dict[Word, Word] | None = None
    validation: dict[Word, Word] | list[Word] | list[Count]
    test: dict[Word, Word] | list[Word] = []
    labels: dict[Literal["train", "validation"], list[Count]] = {}
    trained_before: list[Word] = []
    chosen_before: list[Word] = []
    train_sha256: Word = ""
    data_sha256: list[Word] = []

    @model_validator(mode="after")
    def _alike(self) -> "_SplitFile":
        wanted = list if self.train is None else dict
        if not isinstance(self.validation, wanted) or not isinstance(self.test, wanted):
            raise ValueError("either all of train, validation and test must have digests, or none")
        parts = {"train": self.train or {}, "validation": self.validation}
        if isinstance(self.test, dict) and not {*(self.train or {}).values()}.isdisjoint(self.test.values()):
            raise ValueError("train and test have images in common")
        if any(len(labels) != len(parts[part]) for part, labels in self.labels.items()):
            raise ValueError("labels must have one label per image")
        return self


class EarlierUse(NamedTuple):
    """The digests of the images that weights were trained on, and of those that chose the best epoch."""

    trained: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()

    @property
    def used(self) -> frozenset[str]:
        """The digests of all these images, none of which can be a test image."""
        return self.trained | self.chosen


UNUSED: EarlierUse = EarlierUse()


def digest_of(record: Record) -> str:
    """Return the SHA-256 of the split that a bundle stores; it does not depend on the locale."""
    return hashlib.sha256(to_json(record).encode()).hexdigest()


def has_digests(record: Record) -> bool:
    """Return whether a run identifies its images by content."""
    return isinstance(record.get("train"), dict)


def content_before(record: Record | None) -> EarlierUse:
    """Return the digests of the training and validation images of a run and of the runs that it started from."""
    if record is None or not has_digests(record):
        return UNUSED
    trained = {*record["train"].values(), *record.get("trained_before", ())}
    return EarlierUse(frozenset(trained), frozenset([*record["validation"].values(), *record.get("chosen_before", ())]))


def known_content(record: Record | None) -> frozenset[str] | None:
    """Return the digests of all images of a run; None if it saved none."""
    if record is None or not has_digests(record):
        return None
    return frozenset(digest for part in PARTS for digest in record[part].values())


def read_record(path: Path) -> Record | None:
    """Return the split.json of a run folder or a bundle, if there is one; raises CnnkitError if it is corrupt."""
    places = [path / SPLIT, *([path.parent / SPLIT] if path.name == "best" else [])]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        return None
    with reading(place):
        record: Record = from_json(read_bytes(place))
        validated(_SplitFile, record)
        return record


def own_record(path: Path) -> Record:
    """Return the split.json of a run folder; raises CnnkitError if it is missing or corrupt."""
    if (record := read_record(path)) is None:
        raise CnnkitError(f"{path / SPLIT}: no such file; without it the run's images are unknown")
    return record
