"""The net that a verb is told to look into: one of the zoo, or a trained one from its folder."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from cnnkit.core.device import seed_everything
from cnnkit.core.errors import UsageError
from cnnkit.data import Preprocess
from cnnkit.deploy import load, published_preprocess
from cnnkit.nets import create, entry
from cnnkit.nets.zoo import full_name

__all__ = ["Source", "open_net"]


@dataclass(frozen=True)
class Source:
    """A net in prediction mode, what feeds it, and how to call it before people."""

    name: str  # in the zoo
    net: nn.Module
    preprocess: Preprocess
    in_channels: int
    label: str


def open_net(source: str, device: torch.device | str = "cpu", pretrained: bool = False) -> Source:
    """Return the zoo's network called `source`, or that of a run folder or bundle.

    A name of the zoo comes first; ./NAME is always a folder. The zoo's have random weights of seed 0 or, if
    `pretrained`, the published ones. Raises UsageError if it is neither, or has no published weights, CnnkitError if
    the bundle is damaged.
    """
    path = Path(source)
    try:
        channels, height, width = entry(source).input
    except UsageError as error:
        if not path.exists() and len(path.parts) == 1:
            raise UsageError(f"{error}; nor is there a run folder or bundle of this name") from error
        if pretrained:
            raise UsageError(f"{source} has weights of its own; leave out --pretrained") from error
        model = load(path, device=device)
        name, channels = model.bundle.net, model.bundle.in_channels
        return Source(name, model.net, model.preprocess, channels, f"{name} of {path}")
    seed_everything(0)
    net = create(source, pretrained=pretrained).eval().to(device)
    preprocess = published_preprocess(source) if pretrained else Preprocess((height, width))
    return Source(
        full_name(source), net, preprocess, channels, f"{source} with {'published' if pretrained else 'random'} weights"
    )
