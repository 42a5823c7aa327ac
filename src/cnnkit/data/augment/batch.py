"""Augmentation on the batch: pure functions of the images and of a vector of uniform random numbers per image.

An image is changed by its own random numbers only, so that batches can be split among processes, and runs repeated and
resumed. Pixels without a source are zero, like padding. The random numbers may stay on the CPU while the images are on
another device; then nothing waits for the device.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError, pick
from cnnkit.data.augment.colour import jitter
from cnnkit.data.augment.geometry import crop, erase, flip, random_resized_crop
from cnnkit.data.augment.policies import rand, trivial

__all__ = ["AUGMENTATIONS", "AUGMENT_HELP", "Augment", "Parameter", "Row", "parse"]

CACHED = 2**20  # bytes of images that a CPU augments at a time, within its cache


@dataclass(frozen=True)
class Parameter:
    """A parameter after an augmentation's name; an integer unless its default is a float."""

    name: str
    default: float | None
    lowest: float
    highest: float

    def read(self, text: str, entry: str) -> float:
        """Return the number in a text; raises UsageError, quoting the entry, unless it is in range."""
        kind = float if isinstance(self.default, float) else int
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not self.lowest <= value <= self.highest:
            number = "a number" if kind is float else "an integer"
            raise UsageError(f"{entry!r}: {self.name} must be {number} from {self.lowest} to {self.highest}")
        return value


@dataclass(frozen=True)
class Row:
    """An augmentation of the table."""

    apply: Callable[..., Tensor]  # of images, u and the parameters by name
    numbers: int  # columns of u
    line: str
    parameters: tuple[Parameter, ...] = ()


AUGMENTATIONS = {
    "flip": Row(flip, 1, "mirror half of the images, left to right"),
    "crop": Row(
        crop,
        2,
        "pad with zeros (an eighth of the side) and crop at random",
        (Parameter("padding", None, 0, 1024),),
    ),
    "rrc": Row(
        random_resized_crop,
        4,
        "resize a random crop of at least this fraction of the area (0.08)",
        (Parameter("smallest", 0.08, 0.01, 1),),
    ),
    "jitter": Row(
        jitter,
        4,
        "change brightness, contrast, saturation and, a quarter as much, hue (0.4)",
        (Parameter("strength", 0.4, 0, 1),),
    ),
    "erase": Row(
        erase, 5, "set a rectangle to zero with this probability (0.25)", (Parameter("probability", 0.25, 0, 1),)
    ),
    "trivial": Row(trivial, 3, "TrivialAugment: one of 14 operations at random strength"),
    "rand": Row(
        rand,
        2,
        "RandAugment: several (2) of the 14 operations at one magnitude (9 of 10)",
        (Parameter("operations", 2, 1, 14), Parameter("magnitude", 9.0, 0, 10)),
    ),
}


def _usage(name: str) -> str:
    """Return a name with its parameters: rand[:OPERATIONS[:MAGNITUDE]]."""
    parameters = [parameter.name.upper() for parameter in AUGMENTATIONS[name].parameters]
    return "[:".join([name, *parameters]) + "]" * len(parameters)


AUGMENT_HELP = "; ".join(f"{_usage(name)}: {row.line}" for name, row in AUGMENTATIONS.items())


class Augment:
    """Augmentations by name, applied in order, such as `flip`, `crop:4` or `rand:2:9`; see AUGMENT_HELP.

    Called with uint8 images N x C x H x W (C of 1 or 3) and u, float32 in [0, 1), N x `numbers`, it returns new uint8
    images with channels-last strides, of the same size, or of `image_size` after `rrc`. Raises UsageError for a name
    that is unknown or repeated, a parameter out of range, and a u of another shape.
    """

    def __init__(self, names: Sequence[str], image_size: tuple[int, int]):
        self._steps: list[tuple[Callable[[Tensor, Tensor], Tensor], int]] = []
        seen = set()
        for entry in names:
            name, values = _read(entry)
            if name in seen:
                raise UsageError(f"augmentation {name!r} is given twice; remove one")
            seen.add(name)
            times = int(values.pop("operations", 1))
            if name == "rrc":
                values["size"] = image_size
            row = AUGMENTATIONS[name]
            self._steps += [(partial(row.apply, **values), row.numbers)] * times
        self.numbers = sum(numbers for _, numbers in self._steps)

    def __call__(self, images: Tensor, u: Tensor) -> Tensor:
        """Return the augmented images."""
        if u.shape != (len(images), self.numbers):
            raise UsageError(f"u must be {len(images)} x {self.numbers}, not {tuple(u.shape)}")
        if images.device.type != "cpu":
            return self._augmented(images, u)
        at_a_time = max(1, CACHED // max(1, images[:1].numel()))
        pieces = zip(images.split(at_a_time), u.split(at_a_time), strict=True)
        return torch.cat([self._augmented(some, own) for some, own in pieces])

    def _augmented(self, images: Tensor, u: Tensor) -> Tensor:
        columns = u.split([numbers for _, numbers in self._steps], 1)
        for (apply, _), own in zip(self._steps, columns, strict=True):
            images = apply(images, own)
        return images.contiguous(memory_format=torch.channels_last)


def parse(entries: Iterable[str]) -> tuple[str, ...]:
    """Return the names in entries that may each hold several, separated by commas.

    >>> parse(["flip,crop:4", "erase"])
    ('flip', 'crop:4', 'erase')
    """
    return tuple(name.strip() for entry in entries for name in entry.split(",") if name.strip())


def _read(entry: str) -> tuple[str, dict[str, Any]]:
    """Return the augmentation's name and the values of its parameters."""
    name, *texts = entry.split(":")
    parameters = pick(AUGMENTATIONS, name, "augmentation").parameters
    if len(texts) > len(parameters):
        raise UsageError(f"{entry!r} has too many parameters; write {_usage(name)}")
    given = [parameter.read(text, entry) for parameter, text in zip(parameters, texts, strict=False)]
    values = given + [parameter.default for parameter in parameters[len(given) :]]
    return name, {parameter.name: value for parameter, value in zip(parameters, values, strict=True)}
