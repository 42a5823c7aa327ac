"""The network that a verb is given: a name of the zoo, or a folder with a trained one."""

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
    """A network in evaluation mode with its preprocessing, and a label to display."""

    name: str  # in the zoo
    net: nn.Module
    preprocess: Preprocess
    in_channels: int
    label: str


def open_net(source: str, device: torch.device | str = "cpu", pretrained: bool = False) -> Source:
    """Return the zoo's network `source`, or the one in a run folder or bundle.

    A name of the zoo takes precedence; ./NAME is always a folder. Networks of the zoo have random weights of seed 0
    or, if `pretrained`, the published ones. Raises UsageError if `source` is neither or has no published weights,
    CnnkitError if the bundle is corrupt.
    """
    path = Path(source)
    try:
        channels, height, width = entry(source).input
    except UsageError as error:
        if not path.exists() and len(path.parts) == 1:
            raise UsageError(f"{error}; there is no run folder or bundle of this name either") from error
        if pretrained:
            raise UsageError(f"{source} has trained weights; remove --pretrained") from error
        model = load(path, device=device)
        name, channels = model.bundle.net, model.bundle.in_channels
        return Source(name, model.net, model.preprocess, channels, f"{name} from {path}")
    seed_everything(0)
    net = create(source, pretrained=pretrained).eval().to(device)
    preprocess = published_preprocess(source) if pretrained else Preprocess((height, width))
    return Source(
        full_name(source), net, preprocess, channels, f"{source} with {'published' if pretrained else 'random'} weights"
    )
