"""Classes that cannot be learnt or measured, told before a training."""

import torch

from cnnkit.core.console import as_text, table
from cnnkit.data import ImageSet

__all__ = ["about_classes"]


def about_classes(
    classes: tuple[str, ...], training: ImageSet, validation: ImageSet, test: ImageSet | None
) -> tuple[str, ...]:
    """Return lines, with a table, of the classes with one image to train on, or none to choose by or to test on.

    Where there are no images at all to choose by or to test on, that is not said of each class.
    """
    parts = {"train": training, "validation": validation, "test": test}
    counts = {
        name: torch.bincount(part.labels.cpu(), minlength=len(classes)).tolist()
        for name, part in parts.items()
        if part is not None and len(part)
    }
    least = {name: 2 if name == "train" else 1 for name in counts}
    weak = [label for label in range(len(classes)) if any(counts[name][label] < least[name] for name in counts)]
    if not weak:
        return ()
    rows = table(["class", *counts])
    for label in weak:
        rows.add_row(classes[label], *(f"{counts[name][label]:,}" for name in counts))
    line = (
        f"{len(weak):,} of {len(classes):,} classes have too few images to be learnt or measured: add some, or leave "
        "out classes with fewer than N images to train on: --min-images N"
    )
    return (line, *as_text(rows).splitlines())
