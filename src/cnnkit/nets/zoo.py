"""The zoo: every network by name, with what is known of it."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from torch import nn

from cnnkit.core.errors import CnnkitError, UsageError, unknown
from cnnkit.core.shape import Pair, by, count, pair
from cnnkit.nets.alexnet import alexnet
from cnnkit.nets.densenet import densenet
from cnnkit.nets.googlenet import googlenet
from cnnkit.nets.lenet import lenet, lenet_bn
from cnnkit.nets.nin import nin
from cnnkit.nets.pretrained import load_pretrained
from cnnkit.nets.resnet import resnet
from cnnkit.nets.vgg import vgg

__all__ = ["ZOO", "Entry", "Published", "create", "entry", "full_name", "list_networks"]


@dataclass(frozen=True)
class Published:
    """What a source says of a network's size, rounded as there."""

    params: int | None
    macs: int | None
    source: str


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
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of `build`, that make this row
    published: Published | None = None


KRIZHEVSKY = "Krizhevsky et al. 2012, figure 2"
SIMONYAN = "Simonyan and Zisserman 2015, table 1"
SZEGEDY = "Szegedy et al. 2015, table 1"
HE = "He et al. 2016, table 1"
HE_AGAIN = "He et al. 2016b, figure 1"
HUANG = "Huang et al. 2017, table 1"

GREY, COLOUR, SMALL = (1, 224, 224), (3, 224, 224), (1, 96, 96)
FULL = "3 x 224 x 224, 1,000 classes"


def _twin(
    build: Callable[..., nn.Sequential],
    smallest: int,
    year: int,
    section: str,
    paper: str,
    params: int,
    giga_macs: float,
    **arguments: Any,
) -> Entry:
    """A row in torchvision's definition, with the counts that it publishes."""
    said = Published(params, round(giga_macs * 1e9), "torchvision")
    full = {"layout": "torchvision"} | arguments
    return Entry(build, COLOUR, smallest, 1000, year, section, paper, "torchvision", full, said)


ZOO: dict[str, Entry] = {
    # 5.5 and 5.10
    "lenet": Entry(
        lenet, (1, 28, 28), 16, 10, 1998, "5.5", "LeCun et al. 1998, figure 2", "chapter", {},
        Published(60_000, 340_908, "the paper, 1 x 32 x 32, radial basis outputs"),
    ),
    "lenet_bn": Entry(lenet_bn, (1, 28, 28), 16, 10, 2015, "5.10", "Ioffe and Szegedy 2015", "chapter"),
    # 5.6
    "alexnet": Entry(
        alexnet, GREY, 67, 10, 2012, "5.6", KRIZHEVSKY, "chapter", {}, Published(60 * 10**6, None, f"the paper, {FULL}")
    ),
    "alexnet.tv": _twin(alexnet, 63, 2014, "5.6", "Krizhevsky 2014", 61_100_840, 0.714),
    # 5.7
    **{
        f"vgg{depth}": Entry(
            vgg, GREY, 32, 10, 2014, "5.7", SIMONYAN, "chapter", {"depth": depth},
            Published(millions * 10**6, None, f"the paper's table 2, {FULL}"),
        )
        for depth, millions in {11: 133, 13: 133, 16: 138, 19: 144}.items()
    },
    "vgg11.tv": _twin(vgg, 32, 2014, "5.7", SIMONYAN, 132_863_336, 7.609, depth=11),
    "vgg13.tv": _twin(vgg, 32, 2014, "5.7", SIMONYAN, 133_047_848, 11.308, depth=13),
    "vgg16.tv": _twin(vgg, 32, 2014, "5.7", SIMONYAN, 138_357_544, 15.470, depth=16),
    "vgg19.tv": _twin(vgg, 32, 2014, "5.7", SIMONYAN, 143_667_240, 19.632, depth=19),
    "vgg11_bn.tv": _twin(vgg, 32, 2015, "5.7", SIMONYAN, 132_868_840, 7.609, depth=11, normalised=True),
    "vgg13_bn.tv": _twin(vgg, 32, 2015, "5.7", SIMONYAN, 133_053_736, 11.308, depth=13, normalised=True),
    "vgg16_bn.tv": _twin(vgg, 32, 2015, "5.7", SIMONYAN, 138_365_992, 15.470, depth=16, normalised=True),
    "vgg19_bn.tv": _twin(vgg, 32, 2015, "5.7", SIMONYAN, 143_678_248, 19.632, depth=19, normalised=True),
    # 5.8
    "nin": Entry(nin, GREY, 67, 10, 2014, "5.8", "Lin et al. 2014, figure 2", "chapter"),
    # 5.9
    "googlenet": Entry(
        googlenet, SMALL, 1, 10, 2014, "5.9", SZEGEDY, "chapter", {},
        Published(6_797_700, 1_502_000_000, f"the paper's table 1, {FULL}"),
    ),
    "googlenet.tv": _twin(googlenet, 15, 2014, "5.9", SZEGEDY, 6_624_904, 1.498),
    # 5.11
    **{
        f"resnet{depth}": Entry(
            resnet, GREY, 1, 10, 2015, "5.11", HE, "chapter", {"depth": depth},
            Published(None, round(giga_macs * 1e9), f"the paper's table 1, {FULL}"),
        )
        for depth, giga_macs in {18: 1.8, 34: 3.6}.items()
    },
    "resnet18.tv": _twin(resnet, 1, 2015, "5.11", HE, 11_689_512, 1.814, depth=18),
    "resnet34.tv": _twin(resnet, 1, 2015, "5.11", HE, 21_797_672, 3.664, depth=34),
    "resnet50.tv": _twin(resnet, 1, 2015, "5.11", HE, 25_557_032, 4.089, depth=50),
    "resnet101.tv": _twin(resnet, 1, 2015, "5.11", HE, 44_549_160, 7.801, depth=101),
    "resnet152.tv": _twin(resnet, 1, 2015, "5.11", HE, 60_192_808, 11.514, depth=152),
    **{
        f"resnet{depth}_preact": Entry(
            resnet, COLOUR, 1, 1000, 2016, "5.11", HE_AGAIN, "paper", {"depth": depth, "layout": "preactivation"}
        )
        for depth in (18, 50)
    },
    # 5.12
    "densenet": Entry(densenet, SMALL, 1, 10, 2016, "5.12", HUANG, "chapter"),
    "densenet121.tv": _twin(densenet, 29, 2016, "5.12", HUANG, 7_978_856, 2.834, depth=121),
    "densenet161.tv": _twin(densenet, 29, 2016, "5.12", HUANG, 28_681_000, 7.728, depth=161),
    "densenet169.tv": _twin(densenet, 29, 2016, "5.12", HUANG, 14_149_480, 3.360, depth=169),
    "densenet201.tv": _twin(densenet, 29, 2016, "5.12", HUANG, 20_013_928, 4.291, depth=201),
}  # fmt: skip


def list_networks(pattern: str = "*") -> list[str]:
    """Return the names that match a glob such as "lenet*", sorted; raises UsageError if none does."""
    names = sorted(name for name in ZOO if fnmatchcase(name, pattern))
    if not names:
        raise unknown("network", pattern, ZOO)
    return names


def full_name(name: str) -> str:
    """Return the zoo's name: `name`, or `name`.tv if only torchvision has it.

    Raises UsageError, with the nearest name, for any other.
    """
    for candidate in (name, f"{name}.tv"):
        if candidate in ZOO:
            return candidate
    raise unknown("network", name, ZOO)


def entry(name: str) -> Entry:
    """Return the row of the zoo called `name`; raises UsageError, with the nearest name, if there is none."""
    return ZOO[full_name(name)]


def create(
    name: str,
    *,
    in_channels: int | None = None,
    num_classes: int | None = None,
    image_size: Pair | None = None,
    pretrained: bool | str | Path = False,
    **kwargs: Any,
) -> nn.Sequential:
    """Build a network of the zoo: an `nn.Sequential` of named stages, the last one `head`, returning logits.

    Channels, classes and image size (pixels: an int, or height and width) default to those of the zoo's row;
    `kwargs` are the builder's own (`help(cnnkit.nets.lenet_bn)`). `pretrained` loads weights: True downloads
    torchvision's (rows ".tv"; `cnnkit.nets.WEIGHTS` says how their images are prepared), a path names a file of them.
    Raises UsageError for an unknown name or argument, and for an image smaller than the network can take; DataError
    for weights that cannot be had or are another network's.

    >>> net = create("lenet", num_classes=3)
    >>> [name for name, stage in net.named_children()]
    ['conv1', 'conv2', 'dense', 'head']
    """
    name = full_name(name)
    row = ZOO[name]
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
    known = inspect.signature(row.build).parameters.keys() - arguments.keys() - row.arguments.keys() - {"image_size"}
    for argument in kwargs:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known)
    try:
        net = row.build(**arguments, image_size=size, **row.arguments, **kwargs)
    except CnnkitError:
        raise
    except (TypeError, ValueError) as error:
        raise UsageError(f"{name} cannot be built with {kwargs}: {error}") from error
    if pretrained:
        load_pretrained(net, name, None if pretrained is True else Path(pretrained))
    return net
