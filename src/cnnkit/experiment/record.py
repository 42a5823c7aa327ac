"""What split.json says: which images a run trains on, chooses by and is tested on, by their names and contents."""

from pathlib import Path
from typing import Any, NamedTuple

from cnnkit.core.errors import CnnkitError
from cnnkit.core.files import read_bytes
from cnnkit.core.text import from_json

__all__ = [
    "NEVER",
    "PARTS",
    "SPLIT",
    "Before",
    "Record",
    "content_before",
    "has_digests",
    "known_content",
    "read_record",
]

SPLIT = "split.json"
PARTS = ("train", "validation", "test")
Record = dict[str, Any]


class Before(NamedTuple):
    """The digests of images that weights were trained on, and of those that they were chosen by."""

    trained: frozenset[str] = frozenset()
    chosen: frozenset[str] = frozenset()

    @property
    def used(self) -> frozenset[str]:
        """Both: what is no test image any more."""
        return self.trained | self.chosen


NEVER: Before = Before()


def has_digests(record: Record) -> bool:
    """Say whether a run knows its images by what they hold."""
    return isinstance(record.get("train"), dict)


def content_before(record: Record | None) -> Before:
    """Return the digests of all images that a run, and those that it started from, were trained on and chosen by."""
    if record is None or not has_digests(record):
        return NEVER
    trained = {*record["train"].values(), *record.get("trained_before", ())}
    return Before(frozenset(trained), frozenset([*record["validation"].values(), *record.get("chosen_before", ())]))


def known_content(record: Record | None) -> frozenset[str] | None:
    """Return the digests of all images of a run; None for one that keeps none."""
    if record is None or not has_digests(record):
        return None
    return frozenset(digest for part in PARTS for digest in record[part].values())


def read_record(path: Path) -> Record | None:
    """Return the split.json of a run folder or a bundle, if there is one; raises CnnkitError if it is corrupt."""
    places = [path / SPLIT, *([path.parent / SPLIT] if path.name == "best" else [])]
    place = next((place for place in places if place.is_file()), None)
    if place is None:
        return None
    try:
        record: Record = from_json(read_bytes(place))
        return record
    except (OSError, ValueError) as error:
        raise CnnkitError(f"{place}: cannot be read ({error})") from error
