"""Near-duplicates of images, found in nearly linear time."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.progress import Counter

__all__ = ["alike", "gather", "near_pairs"]

PASSES, NEIGHBOURS = 8, 8  # sort orders, and the number of following images that each is compared with
BITS, AXES = 64, 24
CLOSE = 0.05  # largest difference of two thumbnails, as a fraction of their contrast
FLAT = 2  # grey levels: images of less contrast cannot be compared
SAMPLE, BLOCK = 5000, 8192


def near_pairs(thumbs: np.ndarray, progress: bool = False) -> Iterator[tuple[int, int]]:
    """Yield pairs of rows with near-duplicate thumbnails (uint8, N x D).

    Thumbnails are near-duplicates if the root mean square of their difference is below CLOSE times the smaller of their
    standard deviations. Candidates are neighbours when the images are sorted by 64-bit perceptual hashes, whose bits
    are shuffled for each pass (Charikar 2002). A bit is the side of the median on which an image lies along a random
    direction, drawn after whitening the principal components of these images, so that the bits differ in half of the
    cases even if all images are similar, such as clothes on black.
    """
    if len(thumbs) < 2:
        return
    bits = _hashes(thumbs)
    contrast = np.concatenate([block.std(1) for block in _blocks(thumbs)])
    limit = np.where(contrast < FLAT, 0, CLOSE * contrast) ** 2
    draw = np.random.default_rng(0)
    with Counter("comparing images", PASSES * NEIGHBOURS, progress) as counter:
        for _ in range(PASSES):
            shuffled = np.packbits(bits[:, draw.permutation(BITS)], axis=1)
            order = np.argsort(np.ascontiguousarray(shuffled).view(">u8")[:, 0], kind="stable")
            for step in range(1, NEIGHBOURS + 1):
                for start in range(0, len(order) - step, BLOCK):
                    one = order[:-step][start : start + BLOCK]
                    other = order[step:][start : start + BLOCK]
                    difference = thumbs[one].astype(np.float32) - thumbs[other]
                    close = (difference**2).mean(1) < np.minimum(limit[one], limit[other])
                    yield from zip(one[close].tolist(), other[close].tolist(), strict=True)
                counter.advance(1)


def alike(digests: Sequence[str], thumbs: np.ndarray, progress: bool) -> Tensor:
    """Return a group for each image, int64, N: the same for equal `digests` and near-duplicate thumbnails."""
    _, firsts, numbers = np.unique(np.asarray(digests), return_index=True, return_inverse=True)
    joined = np.arange(len(firsts))
    for group in gather(near_pairs(thumbs[firsts], progress)):
        joined[group] = group[0]
    return torch.from_numpy(joined[numbers])


def gather(pairs: Iterable[tuple[int, int]]) -> list[list[int]]:
    """Return the sorted connected components of the pairs.

    >>> gather([(1, 2), (5, 4), (2, 0)])
    [[0, 1, 2], [4, 5]]
    """
    parent: dict[int, int] = {}

    def first(row: int) -> int:
        while (above := parent.setdefault(row, row)) != row:
            parent[row] = row = parent[above]
        return row

    for one, other in pairs:
        low, high = sorted((first(one), first(other)))
        parent[high] = low
    groups = defaultdict(list)
    for row in sorted(parent):
        groups[first(row)].append(row)
    return list(groups.values())


def _hashes(thumbs: np.ndarray) -> np.ndarray:
    """Return N x BITS booleans."""
    sample = thumbs[:: 1 + len(thumbs) // SAMPLE].astype(np.float32)
    centre = sample.mean(0)
    variances, axes = np.linalg.eigh(np.cov(sample - centre, rowvar=False))
    directions = axes[:, -AXES:] / np.sqrt(variances[-AXES:].clip(0) + 1)
    directions = directions @ np.random.default_rng(0).normal(size=(directions.shape[1], BITS))
    sides = np.concatenate([(block - centre) @ directions for block in _blocks(thumbs)])
    return np.asarray(sides > np.median(sides, 0))


def _blocks(thumbs: np.ndarray) -> Iterator[np.ndarray]:
    for start in range(0, len(thumbs), BLOCK):
        yield thumbs[start : start + BLOCK].astype(np.float32)
