"""Initial weights of a run: from a file, a run, a bundle, or torchvision's."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BaseModel, Field, model_validator
from torch import Tensor, nn

from cnnkit.core.errors import UsageError, reading
from cnnkit.core.limits import MAX_CHANNELS
from cnnkit.core.schema import Mean, Std, Word, validated
from cnnkit.core.text import is_url, without_passwords
from cnnkit.data import Preprocess
from cnnkit.deploy import published_preprocess, read_bundle, read_weights
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.record import UNUSED, EarlierUse, content_before, read_record
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.nets import create
from cnnkit.nets.foreign import is_foreign
from cnnkit.nets.pretrained import WEIGHTS, download_weights, fetch_weights, own_names
from cnnkit.nets.weights import Loaded, give_weights, read_weights_file
from cnnkit.nets.zoo import full_name

__all__ = ["START", "Start", "StartRecord", "open_start", "read_start"]

START = "start.json"


class StartRecord(BaseModel):
    """Schema of start.json: the weights that a run started from."""

    in_channels: Annotated[int, Field(strict=True, ge=1, le=MAX_CHANNELS)]
    mean: Annotated[tuple[Mean, ...], Field(min_length=1, max_length=MAX_CHANNELS)]
    std: Annotated[tuple[Std, ...], Field(min_length=1, max_length=MAX_CHANNELS)]
    source: Word
    loaded: Word

    @model_validator(mode="after")
    def _by_channel(self) -> "StartRecord":
        if not {len(self.mean), len(self.std)} <= {1, self.in_channels}:
            raise ValueError(f"mean and std must have 1 or {self.in_channels} values, one per channel")
        return self


@dataclass(frozen=True)
class Start:
    """Initial weights, and what is known of them."""

    source: str
    tensors: Mapping[str, Tensor]
    in_channels: int | None
    """Image channels that they expect, if known."""
    preprocess: Preprocess | None = None
    """Preprocessing that they expect, if known."""
    classes: tuple[str, ...] | None = None
    before: EarlierUse = UNUSED
    """Images that they were trained on and chosen by."""

    def channels_for(self, channels: int) -> int:
        """Return the network's channels for images with `channels`; a grey channel is repeated."""
        return self.in_channels if channels == 1 and self.in_channels else channels

    def give(self, net: nn.Module, config: RunConfig, classes: tuple[str, ...]) -> Loaded:
        """Load the weights into a network for these classes; raises DataError if they are another network's."""
        tensors = self.tensors if is_foreign(config.net) else own_names(net, full_name(config.net), self.tensors)
        pair = (classes, self.classes) if self.classes else None
        return give_weights(net, tensors, self.source, len(classes), new_head=True, classes=pair)


def open_start(config: RunConfig) -> Start | None:
    """Return the initial weights that the settings name, or None.

    Raises UsageError for a network without published weights or a folder without weights, DataError for a file that is
    missing, corrupt or not a weights file.
    """
    if config.pretrained:
        name = full_name(config.net)
        preprocess = published_preprocess(name)
        return Start(str(path := download_weights(name)), read_weights_file(path), len(preprocess.mean), preprocess)
    if config.weights is None:
        return None
    path, source = Path(config.weights), without_passwords(config.weights)
    if is_url(config.weights):
        path, tensors = fetch_weights(config.weights)
    elif not path.is_dir():
        tensors = read_weights_file(path)
    else:
        folder, bundle = read_bundle(path)
        if bundle.net != config.net:
            raise UsageError(f"{path} has weights of {bundle.net}, not of {config.net}: remove the network name")
        before = content_before(read_record(folder))
        tensors = read_weights(folder, bundle)
        return Start(source, tensors, bundle.in_channels, bundle.preprocess, bundle.classes, before)
    published = next((name for name, weights in WEIGHTS.items() if weights.file == path.name), None)
    known = published_preprocess(published) if published and published == full_name(config.net) else None
    return Start(source, tensors, None if is_foreign(config.net) else _first_channels(config, tensors), known)


def _first_channels(config: RunConfig, tensors: Mapping[str, Tensor]) -> int | None:
    """Return the image channels that the weights of a network of the zoo expect."""
    with torch.device("meta"):
        arguments: dict[str, Any] = config.model_kwargs
        net = create(config.net, **arguments)
    tensors = own_names(net, full_name(config.net), tensors)
    first = next((name for name, value in net.state_dict().items() if value.ndim == 4), "")
    return tensors[first].shape[1] if first in tensors and tensors[first].ndim == 4 else None


def read_start(folder: RunFolder) -> dict[str, Any]:
    """Return the content of a run's start.json, {} if there is none; raises CnnkitError if it is corrupt."""
    place = folder.path / START
    if not place.exists():
        return {}
    with reading(place):
        return validated(StartRecord, folder.read_json(START)).model_dump()
