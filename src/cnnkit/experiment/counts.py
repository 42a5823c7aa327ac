"""A warning before training about classes with too few images to train, validate or test on."""

import torch

from cnnkit.core.console import as_text, table
from cnnkit.data import ImageSet

__all__ = ["about_classes"]


def about_classes(
    classes: tuple[str, ...], training: ImageSet, validation: ImageSet, test: ImageSet | None
) -> tuple[str, ...]:
    """Return a warning and a table of the classes with fewer than two training, one validation or one test image.

    A validation or test split that is missing or empty is ignored.
    """
    parts = {"train": training, "validation": validation, "test": test}
    counts = {
        name: torch.bincount(part.labels.cpu(), minlength=len(classes)).tolist()
        for name, part in parts.items()
        if part is not None and len(part)
    }
    least = {"train": 2, "validation": 1, "test": 1}
    weak = [label for label in range(len(classes)) if any(counts[name][label] < least[name] for name in counts)]
    if not weak:
        return ()
    rows = [[classes[label], *(f"{count[label]:,}" for count in counts.values())] for label in weak]
    line = (
        f"too few images to train, validate or test on in {len(weak):,} of {len(classes):,} classes: add images, or "
        "skip classes with fewer than N training images with --min-images N"
    )
    return (line, *as_text(table(["class", *counts], rows)).splitlines())
