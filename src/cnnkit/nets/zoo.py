"""The zoo: every network by name, with what is known of it."""

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.shape import Pair, by, count, pair
from cnnkit.nets.lenet import lenet, lenet_bn

__all__ = ["ZOO", "Entry", "create", "entry", "list_networks"]


@dataclass(frozen=True)
class Entry:
    """One row of the zoo."""

    build: Callable[..., nn.Sequential]
    input: tuple[int, int, int]  # C x H x W
    smallest: int  # pixels in height and width
    classes: int
    year: int
    section: str  # of the chapter
    paper: str
    source: str  # whose definition the name means


ZOO: dict[str, Entry] = {
    "lenet": Entry(lenet, (1, 28, 28), 16, 10, 1998, "5.5", "LeCun et al. 1998, figure 2", "chapter"),
    "lenet_bn": Entry(lenet_bn, (1, 28, 28), 16, 10, 2015, "5.10", "Ioffe and Szegedy 2015", "chapter"),
}


def list_networks(pattern: str = "*") -> list[str]:
    """Return the names that match a glob such as "lenet*", sorted; raises UsageError if none does."""
    names = sorted(name for name in ZOO if fnmatchcase(name, pattern))
    if not names:
        raise unknown("network", pattern, ZOO)
    return names


def entry(name: str) -> Entry:
    """Return the row of the zoo called `name`; raises UsageError, with the nearest name, if there is none."""
    if name not in ZOO:
        raise unknown("network", name, ZOO)
    return ZOO[name]


def create(
    name: str,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    image_size: Pair | None = None,
    **kwargs: Any,
) -> nn.Sequential:
    """Build a network of the zoo: an `nn.Sequential` of named stages, the last one `head`, returning logits.

    Channels, classes and image size (pixels: an int, or height and width) default to those of the zoo's row;
    `kwargs` are the builder's own (`help(cnnkit.nets.lenet_bn)`). Raises UsageError for an unknown name or
    argument, and for an image smaller than the network can take.

    >>> net = create("lenet", num_classes=3)
    >>> [name for name, stage in net.named_children()]
    ['conv1', 'conv2', 'dense', 'head']
    """
    row = entry(name)
    channels, height, width = row.input
    size = pair(image_size if image_size is not None else (height, width), "image_size")
    if min(size) < row.smallest:
        raise UsageError(f"{name} needs images of at least {by(row.smallest, row.smallest)}, not {by(*size)}")
    arguments = {
        "in_channels": channels if in_channels is None else in_channels,
        "num_classes": row.classes if num_classes is None else num_classes,
    }
    for argument, value in arguments.items():
        count(value, argument)
    known = inspect.signature(row.build).parameters.keys() - arguments.keys() - {"image_size"}
    for argument in kwargs:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known)
    return row.build(**arguments, image_size=size, **kwargs)
