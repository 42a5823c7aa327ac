"""TrivialAugment and RandAugment: an operation for each image, drawn from a list of fourteen."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from cnnkit.core.device import send
from cnnkit.data.augment.colour import (
    autocontrast,
    brightness,
    contrast,
    equalize,
    posterize,
    saturation,
    sharpness,
    solarize,
)
from cnnkit.data.augment.geometry import Matrix, warp

__all__ = ["Operation", "operations", "rand", "trivial"]

LEVELS = 31  # of TrivialAugment, the first without effect
FULL = 10  # RandAugment's magnitude for the end of an operation's range


@dataclass(frozen=True)
class Operation:
    """A change of uint8 images, given an amount for each, and the largest amounts."""

    apply: Callable[[Tensor, list[float]], Tensor]
    trivial: float = 0.0  # the largest amount
    rand: float = 0.0  # the amount at magnitude 10
    signed: bool = False  # half of the images take the amount's negative


def operations(height: int, width: int) -> dict[str, Operation]:
    """Return the operations for images of this size; bit-exact with Pillow's (see `colour`).

    The ranges are those of TrivialAugment's wide space, and of RandAugment with every effect increasing with the
    magnitude; translations are at most half a side. Rotations are about the centre, shears about the upper left
    corner, as in the papers' code.
    """
    middle, half = width / 2, height / 2

    def moved(matrix: Callable[[float], Matrix]) -> Callable[[Tensor, list[float]], Tensor]:
        return lambda images, amounts: warp(images, [matrix(amount) for amount in amounts])

    def turned(degrees: float) -> Matrix:
        c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
        return c, -s, middle - c * middle + s * half, s, c, half - s * middle - c * half

    return {
        "identity": Operation(lambda images, amounts: images),
        "shear_x": Operation(moved(lambda a: (1, a, 0, 0, 1, 0)), 0.99, 0.3, True),
        "shear_y": Operation(moved(lambda a: (1, 0, 0, a, 1, 0)), 0.99, 0.3, True),
        "translate_x": Operation(
            moved(lambda a: (1, 0, a, 0, 1, 0)), min(32, middle), min(100, middle), True
        ),  # pixels
        "translate_y": Operation(moved(lambda a: (1, 0, 0, 0, 1, a)), min(32, half), min(100, half), True),
        "rotate": Operation(moved(turned), 135, 30, True),  # degrees
        "brightness": Operation(brightness, 0.99, 0.9, True),
        "saturation": Operation(saturation, 0.99, 0.9, True),
        "contrast": Operation(contrast, 0.99, 0.9, True),
        "sharpness": Operation(sharpness, 0.99, 0.9, True),
        "posterize": Operation(posterize, 6, 4),  # bits
        "solarize": Operation(solarize, 1, 1),
        "autocontrast": Operation(autocontrast),
        "equalize": Operation(equalize),
    }


def trivial(images: Tensor, u: Tensor) -> Tensor:
    """Apply one operation of random strength to each image (TrivialAugmentWide: Müller and Hutter 2021).

    u is N x 3: the operation, the strength in 31 levels, the sign.
    """
    drawn = [(which, _signed(int(level * LEVELS) / (LEVELS - 1), sign)) for which, level, sign in u.tolist()]
    return _apply(images, drawn, lambda operation: operation.trivial)


def rand(images: Tensor, u: Tensor, magnitude: float) -> Tensor:
    """Apply one operation of this magnitude, 10 for its full range, to each image (RandAugment: Cubuk et al. 2020).

    u is N x 2: the operation, the sign. The paper applies several in turn.
    """
    drawn = [(which, _signed(magnitude / FULL, sign)) for which, sign in u.tolist()]
    return _apply(images, drawn, lambda operation: operation.rand)


def _signed(share: float, sign: float) -> float:
    return share if sign < 0.5 else -share


def _apply(images: Tensor, drawn: list[tuple[float, float]], largest: Callable[[Operation], float]) -> Tensor:
    """Apply to each image its operation, drawn as (which, fraction of its range), grouped by operation."""
    result = images.clone()
    table = operations(*images.shape[-2:]).values()
    for number, operation in enumerate(table):
        rows = [row for row, (which, _) in enumerate(drawn) if int(which * len(table)) == number]
        if rows:
            shares = [drawn[row][1] for row in rows]
            amounts = [largest(operation) * (share if operation.signed else abs(share)) for share in shares]
            index = send(torch.tensor(rows), images.device)
            result[index] = operation.apply(images[index], amounts)
    return result
