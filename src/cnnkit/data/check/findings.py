"""The kinds of findings about a folder of images, as one table."""

from dataclasses import dataclass
from typing import Literal, NamedTuple

__all__ = ["KINDS", "Finding", "Kind"]


class Kind(NamedTuple):
    """A kind of finding: its severity for training, a description, and a remedy."""

    severity: Literal["harm", "warning", "note"]
    text: str
    remedy: str


KINDS = {
    "layout": Kind(
        "harm", "invalid layout", "expected root/train/CLASS/... and root/test/CLASS/..., or root/CLASS/..."
    ),
    "class": Kind("harm", "classes that cannot be trained on", "add images, or train with --min-images"),
    "unreadable": Kind("harm", "files that cannot be opened", "fix links and permissions, or --quarantine DIR"),
    "empty-file": Kind("harm", "empty files", "restore them, or --quarantine DIR"),
    "no-image": Kind("harm", "files that are not images", "--quarantine DIR"),
    "unread-format": Kind("harm", "images of an unsupported format", "convert them, or --quarantine DIR"),
    "truncated": Kind("harm", "truncated images", "restore them, or --quarantine DIR"),
    "corrupt": Kind("harm", "corrupt images", "restore them, or --quarantine DIR"),
    "too-large": Kind("harm", "images too large to decode", "shrink them, or --quarantine DIR"),
    "leak": Kind("harm", "the same image in several splits", "--quarantine DIR moves the training copies"),
    "near-leak": Kind("warning", "near-duplicates in several splits", "compare them, and keep one"),
    "label-conflict": Kind("warning", "the same image in several classes", "keep it in the right one"),
    "duplicate": Kind("warning", "duplicate images", "keep one, especially if there is no test/"),
    "unseen": Kind("warning", "images that training ignores", "move, rename or convert them"),
    "few": Kind("warning", "classes with too few images", "add images, or train with --min-images"),
    "remark": Kind("warning", "folders with a surprising layout", "check whether this is intended"),
    "imbalance": Kind("warning", "imbalanced classes", "--class-weights balanced, or more images"),
    "near-duplicate": Kind("note", "near-duplicates", "compare them"),
    "wrong-suffix": Kind("note", "images with the extension of another format", "none needed"),
    "leftover": Kind("note", "thumbnails and similar files of other programs", "none needed"),
    "other-file": Kind("note", "other files, which training ignores", "none needed"),
}


@dataclass(frozen=True)
class Finding:
    """A finding: its kind (of KINDS), the files by their paths below the root, and details.

    `culprits` are the files to remove to resolve it.
    """

    kind: str
    paths: tuple[str, ...] = ()
    detail: str = ""
    culprits: tuple[str, ...] = ()

    @property
    def about(self) -> Kind:
        """The description of its kind."""
        return KINDS[self.kind]

    @property
    def harms(self) -> bool:
        """Whether it makes the data unfit for training."""
        return self.about.severity == "harm"
