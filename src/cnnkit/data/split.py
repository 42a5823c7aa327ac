"""Splits of a training set into training and held-out images, reproducible anywhere: by seed or by content."""

import hashlib
import random
from collections import defaultdict
from collections.abc import Sequence, Set

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError

__all__ = ["require_fraction", "split_by_content", "stratified_split"]

LEAST = 3  # images of a class, of which at least one is held out


def stratified_split(labels: Tensor, fraction: float, seed: int) -> tuple[Tensor, Tensor]:
    """Return sorted indices (training, held out), with `fraction` of each class, rounded, held out.

    Python's generator draws them, as it does not depend on torch's version or the device. Raises UsageError unless
    0 <= fraction < 1.
    """
    require_fraction(fraction)
    draw = random.Random(seed)
    chosen: list[int] = []
    for label in torch.unique(labels).tolist():
        members = (labels == label).nonzero().flatten().tolist()
        chosen += draw.sample(members, round(len(members) * fraction))
    return _divided(len(labels), chosen)


def split_by_content(
    labels: Tensor,
    digests: Sequence[str],
    groups: Tensor,
    fraction: float,
    key: str,
    barred: Set[str] = frozenset(),
) -> tuple[Tensor, Tensor]:
    """Return sorted indices (training, held out): `fraction` of each class, rounded, but at least one of LEAST images.

    Near-duplicates have the same number in `groups` (int64, N) and stay together. The groups of a class are ranked by
    a hash of `key` and of their images' `digests`, and the first ones that fit are held out: names and order do not
    matter, and adding or removing an image moves only a few at the border. Groups with a digest in `barred`, or with
    several classes, are not held out, nor is the last group of a class. Raises UsageError unless 0 <= fraction < 1.
    """
    require_fraction(fraction)
    members: dict[int, list[int]] = defaultdict(list)
    for row, group in enumerate(groups.tolist()):
        members[group].append(row)
    classes: dict[int, list[list[int]]] = defaultdict(list)
    of_row = labels.tolist()
    for rows in members.values():
        several = {of_row[row] for row in rows}
        if len(several) == 1 and not any(digests[row] in barred for row in rows):
            classes[several.pop()].append(rows)
    counts = torch.bincount(labels).tolist() if len(labels) else []
    chosen: list[int] = []
    for label, own in classes.items():
        own.sort(key=lambda rows: min(_rank(key, digests[row]) for row in rows))
        chosen += _first(own, counts[label], fraction)
    return _divided(len(labels), chosen)


def require_fraction(fraction: float) -> None:
    """Raise UsageError unless 0 <= fraction < 1."""
    if not 0 <= fraction < 1:
        raise UsageError(f"the fraction to hold out must be at least 0 and below 1, not {fraction!r}")


def _first(groups: list[list[int]], number: int, fraction: float) -> list[int]:
    """Return the rows of the first groups that fill the fraction of a class of `number` images."""
    if not fraction:
        return []
    share = min(max(round(number * fraction), number >= LEAST), number - 1)
    chosen: list[int] = []
    for rows in groups:
        if len(chosen) + len(rows) <= share:
            chosen += rows
    smallest = min(groups, key=len)  # the first one
    return smallest if not chosen and share and len(smallest) < number else chosen


def _rank(key: str, digest: str) -> bytes:
    return hashlib.blake2b(f"{key} {digest}".encode(), digest_size=8).digest()


def _divided(number: int, chosen: list[int]) -> tuple[Tensor, Tensor]:
    aside = torch.zeros(number, dtype=torch.bool)
    aside[chosen] = True
    return (~aside).nonzero().flatten(), aside.nonzero().flatten()
