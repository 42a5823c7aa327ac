"""The zoo: every network by name, with its builder, size and source."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnkit.core.errors import CnnkitError, UsageError, unknown
from cnnkit.core.memory import free_bytes
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

Builder = Callable[..., nn.Sequential]
Size = tuple[int, int, int]  # C x H x W
About = tuple[int, str, str]  # the year, the chapter's section, the paper


@dataclass(frozen=True)
class Published:
    """A network's size as its source publishes it, rounded as there."""

    params: int | None
    macs: int | None
    source: str


@dataclass(frozen=True)
class Entry:
    """One row of the zoo."""

    build: Builder
    input: Size
    smallest: int  # pixels in height and width
    classes: int
    params: int
    macs: int  # multiply-accumulates for one image of the input's size
    year: int
    section: str  # of the chapter
    paper: str
    source: str  # of the definition: chapter, paper or torchvision
    arguments: Mapping[str, Any] = field(default_factory=dict)  # of `build` for this row
    published: Published | None = None


LECUN = "LeCun et al. 1998, figure 2"
IOFFE = "Ioffe and Szegedy 2015"
KRIZHEVSKY = "Krizhevsky et al. 2012, figure 2"
SIMONYAN = "Simonyan and Zisserman 2015, table 1"
LIN = "Lin et al. 2014, figure 2"
SZEGEDY = "Szegedy et al. 2015, table 1"
HE = "He et al. 2016, table 1"
HE_AGAIN = "He et al. 2016b, figure 1"
HUANG = "Huang et al. 2017, table 1"

GREY, COLOUR, SMALL = (1, 224, 224), (3, 224, 224), (1, 96, 96)
FIXED = {"image_size", "layout", "depth"}  # arguments that a row's name determines
FULL = "3 x 224 x 224, 1,000 classes"
GIB = 2**30  # bytes


def _chapters(
    build: Builder,
    size: Size,
    smallest: int,
    params: int,
    macs: int,
    about: About,
    published: Published | None = None,
    **arguments: Any,
) -> Entry:
    """Return a row in the chapter's definition."""
    return Entry(build, size, smallest, 10, params, macs, *about, "chapter", arguments, published)


def _twin(build: Builder, smallest: int, params: int, macs: int, about: About, **arguments: Any) -> Entry:
    """Return a row in torchvision's definition, which publishes the parameters, and the MACs in millions."""
    published = Published(params, round(macs, -6), f"torchvision, {FULL}")
    layout = {"layout": "torchvision"} | arguments
    return Entry(build, COLOUR, smallest, 1000, params, macs, *about, "torchvision", layout, published)


def _vgg(depth: int, params: int, macs: int, millions: int) -> Entry:
    published = Published(millions * 10**6, None, f"the paper's table 2, {FULL}")
    return _chapters(vgg, GREY, 32, params, macs, VGG, published, depth=depth)


def _resnet(depth: int, params: int, macs: int, billions: float) -> Entry:
    published = Published(None, round(billions * 1e9), f"the paper's table 1, {FULL}")
    return _chapters(resnet, GREY, 1, params, macs, RESNET, published, depth=depth)


def _preact(depth: int, params: int, macs: int) -> Entry:
    layout = {"depth": depth, "layout": "preactivation"}
    return Entry(resnet, COLOUR, 1, 1000, params, macs, 2016, "5.11", HE_AGAIN, "paper", layout)


VGG, VGG_BN = (2014, "5.7", SIMONYAN), (2015, "5.7", SIMONYAN)
GOOGLENET, RESNET, DENSENET = (2014, "5.9", SZEGEDY), (2015, "5.11", HE), (2016, "5.12", HUANG)

ZOO: dict[str, Entry] = {
    "lenet": _chapters(
        lenet, (1, 28, 28), 16, 44_426, 281_640, (1998, "5.5", LECUN),
        Published(60_000, 340_908, "LeCun et al. 1998, 32 x 32 input, RBF output layer"),
    ),
    "lenet_bn": _chapters(lenet_bn, (1, 28, 28), 16, 44_878, 281_640, (2015, "5.10", IOFFE)),
    "alexnet": _chapters(
        alexnet, GREY, 67, 46_764_746, 938_146_176, (2012, "5.6", KRIZHEVSKY),
        Published(60_000_000, None, f"the paper, {FULL}"),
    ),
    "alexnet.tv": _twin(alexnet, 63, 61_100_840, 714_188_480, (2014, "5.6", "Krizhevsky 2014")),
    "vgg11": _vgg(11, 128_806_154, 7_547_232_256, 133),
    "vgg13": _vgg(13, 128_990_666, 11_246_608_384, 133),
    "vgg16": _vgg(16, 134_300_362, 15_408_406_528, 138),
    "vgg19": _vgg(19, 139_610_058, 19_570_204_672, 144),
    "vgg11.tv": _twin(vgg, 32, 132_863_336, 7_609_090_048, VGG, depth=11),
    "vgg13.tv": _twin(vgg, 32, 133_047_848, 11_308_466_176, VGG, depth=13),
    "vgg16.tv": _twin(vgg, 32, 138_357_544, 15_470_264_320, VGG, depth=16),
    "vgg19.tv": _twin(vgg, 32, 143_667_240, 19_632_062_464, VGG, depth=19),
    "vgg11_bn.tv": _twin(vgg, 32, 132_868_840, 7_609_090_048, VGG_BN, depth=11, normalised=True),
    "vgg13_bn.tv": _twin(vgg, 32, 133_053_736, 11_308_466_176, VGG_BN, depth=13, normalised=True),
    "vgg16_bn.tv": _twin(vgg, 32, 138_365_992, 15_470_264_320, VGG_BN, depth=16, normalised=True),
    "vgg19_bn.tv": _twin(vgg, 32, 143_678_248, 19_632_062_464, VGG_BN, depth=19, normalised=True),
    "nin": _chapters(nin, GREY, 67, 1_992_166, 762_297_352, (2014, "5.8", LIN)),
    "googlenet": _chapters(
        googlenet, SMALL, 1, 5_977_530, 276_066_304, GOOGLENET,
        Published(6_797_700, 1_502_000_000, f"the paper's table 1, {FULL}"),
    ),
    "googlenet.tv": _twin(googlenet, 15, 6_624_904, 1_498_376_192, GOOGLENET),
    "resnet18": _resnet(18, 11_178_378, 1_734_890_496, 1.8),
    "resnet34": _resnet(34, 21_290_250, 3_584_578_560, 3.6),
    "resnet18.tv": _twin(resnet, 1, 11_689_512, 1_814_073_344, RESNET, depth=18),
    "resnet34.tv": _twin(resnet, 1, 21_797_672, 3_663_761_408, RESNET, depth=34),
    "resnet50.tv": _twin(resnet, 1, 25_557_032, 4_089_184_256, RESNET, depth=50),
    "resnet101.tv": _twin(resnet, 1, 44_549_160, 7_801_405_440, RESNET, depth=101),
    "resnet152.tv": _twin(resnet, 1, 60_192_808, 11_513_626_624, RESNET, depth=152),
    "resnet18_preact": _preact(18, 11_687_720, 1_814_073_344),
    "resnet50_preact": _preact(50, 25_549_352, 4_089_184_256),
    "densenet": _chapters(densenet, SMALL, 1, 979_938, 182_668_208, DENSENET),
    "densenet121.tv": _twin(densenet, 29, 7_978_856, 2_834_161_664, DENSENET, depth=121),
    "densenet161.tv": _twin(densenet, 29, 28_681_000, 7_727_907_072, DENSENET, depth=161),
    "densenet169.tv": _twin(densenet, 29, 14_149_480, 3_359_843_328, DENSENET, depth=169),
    "densenet201.tv": _twin(densenet, 29, 20_013_928, 4_291_365_888, DENSENET, depth=201),
}  # fmt: skip


def list_networks(pattern: str = "*") -> list[str]:
    """Return the sorted names that match a glob such as "lenet*"; raises UsageError if there are none."""
    names = sorted(name for name in ZOO if fnmatchcase(name, pattern))
    if not names and any(name.startswith(pattern) for name in ZOO):
        raise UsageError(f"unknown network {pattern!r}; to match names that start with it: {pattern}*")
    if not names:
        raise unknown("network", pattern, ZOO)
    return names


def full_name(name: str) -> str:
    """Return `name`, or `name`.tv if only torchvision has it.

    Raises UsageError, with the closest name, if neither is in the zoo.
    """
    for candidate in (name, f"{name}.tv"):
        if candidate in ZOO:
            return candidate
    raise unknown("network", name, ZOO)


def entry(name: str) -> Entry:
    """Return the zoo's row `name`; raises UsageError, with the closest name, if there is none."""
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
    """Build a network of the zoo: an `nn.Sequential` of named stages, the last one `head`, that returns logits.

    Channels, classes and image size (in pixels, an int or height and width) default to those of the zoo's row;
    `kwargs` are passed to the builder (see `help(cnnkit.nets.lenet_bn)`). `pretrained` loads weights: True downloads
    torchvision's (rows ".tv"; `cnnkit.nets.WEIGHTS` has their preprocessing), a path names a file; the head is new if
    `num_classes` differs.
    Raises UsageError for an unknown name or argument, for images below the network's minimum size, and for weights that
    exceed the free memory; DataError for weights that cannot be downloaded or are of another network.

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
    known = inspect.signature(row.build).parameters.keys() - arguments.keys() - FIXED - row.arguments.keys()
    for argument in kwargs:
        if argument not in known:
            raise unknown(f"argument of {name}", argument, known | arguments.keys() | {"image_size", "pretrained"})
    label = f"{name}{f' with {kwargs}' if kwargs else ''}"
    try:
        with torch.device("meta"):  # shapes only, without memory
            net = row.build(**arguments, image_size=size, **row.arguments, **kwargs)
        if torch.get_default_device().type != "meta":
            _require_memory(net, label)
            net = row.build(**arguments, image_size=size, **row.arguments, **kwargs)
    except CnnkitError:
        raise
    except (TypeError, ValueError, RuntimeError, OverflowError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"{label} cannot be built: {reason}") from error
    if not isinstance(pretrained, bool | str | Path):
        raise UsageError(f"pretrained must be True, False or a path, not {pretrained!r}")
    if pretrained is not False:
        load_pretrained(net, name, None if pretrained is True else Path(pretrained), new_head=num_classes is not None)
    return net


def _require_memory(net: nn.Module, label: str) -> None:
    """Raise UsageError if the weights of a network exceed the free memory."""
    needed, free = sum(value.nbytes for value in net.state_dict().values()), free_bytes(torch.get_default_device())
    if needed > free:
        raise UsageError(
            f"{label} cannot be built: its weights need {needed / GIB:,.1f} GiB, but only {free / GIB:,.1f} GiB are "
            "free; use a narrower network or smaller images"
        )
