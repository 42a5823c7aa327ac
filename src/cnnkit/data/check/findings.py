"""What can be wrong with a folder of pictures: one table."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["KINDS", "Finding", "Kind"]


class Kind(NamedTuple):
    """Something that can be found: how bad it is for training, in words, and what to do about it."""

    severity: Literal["harm", "warning", "note"]
    text: str
    remedy: str


KINDS = {
    "layout": Kind("harm", "folders that are no data set", "root/train/CLASS/... and root/test/..., or root/CLASS/..."),
    "class": Kind("harm", "classes that cannot be trained on", "add images, or train with --min-images"),
    "unreadable": Kind("harm", "files that cannot be opened", "mend links and permissions, or --quarantine DIR"),
    "empty-file": Kind("harm", "files of zero bytes", "get them again, or --quarantine DIR"),
    "no-picture": Kind("harm", "files without a picture in them", "--quarantine DIR"),
    "unread-format": Kind("harm", "images of a format that is not read", "convert them, or --quarantine DIR"),
    "truncated": Kind("harm", "pictures cut short", "get them again, or --quarantine DIR"),
    "damaged": Kind("harm", "damaged pictures", "get them again, or --quarantine DIR"),
    "too-large": Kind("harm", "pictures too large to be decoded", "shrink them, or --quarantine DIR"),
    "leak": Kind("harm", "the same picture in several splits", "--quarantine DIR takes the copies trained on"),
    "near-leak": Kind("warning", "nearly the same picture in several splits", "look at them, and keep one"),
    "label-conflict": Kind("warning", "the same picture in several classes", "keep it where it belongs"),
    "duplicate": Kind("warning", "the same picture several times", "keep one, above all if there is no test/"),
    "unseen": Kind("warning", "pictures that training does not see", "move them into a class, rename, convert"),
    "few": Kind("warning", "classes that can hardly be learnt or measured", "add images, or train with --min-images"),
    "remark": Kind("warning", "folders that are read in a way that may surprise", "look whether it is meant so"),
    "imbalance": Kind("warning", "classes of very different size", "--class-weights balanced, or more pictures"),
    "near-duplicate": Kind("note", "nearly the same picture several times", "look at them"),
    "wrong-suffix": Kind("note", "pictures not of the format that their suffix says", "none needed"),
    "leftover": Kind("note", "thumbnails and the like, which other programs left", "none needed"),
    "other-file": Kind("note", "other files, which training does not see", "none needed"),
}


@dataclass(frozen=True)
class Finding:
    """Something found: its kind (of KINDS), the files by their paths below the root, and particulars.

    `culprits` are the files that have to go for it to be gone.
    """

    kind: str
    paths: tuple[str, ...] = ()
    detail: str = ""
    culprits: tuple[str, ...] = ()

    @property
    def about(self) -> Kind:
        """What is known of its kind."""
        return KINDS[self.kind]

    @property
    def harms(self) -> bool:
        """Whether a training would be harmed."""
        return self.about.severity == "harm"
