"""Classifiers: trained networks with their classes and preprocessing."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnkit.core.device import pick_device
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.finite import require_finite
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_BATCH, MAX_WORKERS
from cnnkit.core.modes import prediction_mode
from cnnkit.core.modules import unwrapped
from cnnkit.core.parallel import ahead, processors
from cnnkit.core.places import expanded
from cnnkit.core.progress import Counter
from cnnkit.core.shape import by, count
from cnnkit.core.text import printable
from cnnkit.data.preprocess import Preprocess
from cnnkit.deploy.bundle import CONFIG, Bundle, read_bundle, read_weights
from cnnkit.deploy.inputs import Input, each_image
from cnnkit.deploy.predictions import Predictions, joined
from cnnkit.nets import create
from cnnkit.nets.foreign import is_foreign, require_same

__all__ = ["Classifier", "load"]

BATCH = 32  # images: enough to keep a CPU busy, few enough that decoding the next batch keeps up
DEPTH = 2  # batches that are decoded ahead


@dataclass(frozen=True, eq=False)
class Classifier:
    """A network in evaluation mode, returning logits, and the bundle that describes it.

    Wrappers around the network (`torch.compile`, `DataParallel`, `DistributedDataParallel`) are removed.
    """

    net: nn.Module
    bundle: Bundle
    folder: Path | None = None
    """The bundle's folder, if it was loaded from one."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "net", unwrapped(self.net))

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the logits."""
        return self.bundle.classes

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of uint8 images N x C x H x W into the network's input."""
        return self.bundle.preprocess

    @property
    def device(self) -> torch.device:
        """The device of the network."""
        return next(self.net.parameters(), torch.empty(0)).device

    def predict(
        self,
        images: Any,
        *,
        batch_size: int | None = None,
        workers: int | None = None,
        progress: bool = True,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        temperature: bool = True,
    ) -> Predictions:
        """Return the class probabilities of each image.

        `images` is a path, a folder (searched recursively), a PIL image, an array (H x W or H x W x C), a tensor (C x
        H x W), each uint8 or float from 0 to 1, a batch of these, or a list of any of them. Files are decoded ahead by
        `workers` threads (None: one per processor) and resized as in training. Files that cannot be read, or that
        decode to more than `max_pixels`, are reported in `errors`. `progress` shows a counter on standard error.
        `temperature` applies the temperature that was fitted on the validation images, if there is one.
        Raises UsageError for arguments that are not images, DataError for arrays of other values or channels and for a
        folder without images, CnnkitError if the network outputs NaN or Inf.
        """
        size = count(BATCH if batch_size is None else batch_size, "batch_size", MAX_BATCH)
        threads = count(processors() if workers is None else workers, "workers", MAX_WORKERS)
        inputs = list(each_image(images, self.bundle.in_channels, max_pixels))
        with Counter("predicting", len(inputs), progress and len(inputs) > size) as counter:
            answers = self._answers(inputs, size, threads, counter)
            return joined(self.classes, answers, self.bundle.temperature if temperature else 1.0)

    def batch(self, images: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Tensor:
        """Return images, as `predict` takes them, as the network's input: float32, N x C x H x W, on its device.

        Raises DataError for an image that cannot be read or decodes to more than `max_pixels`.
        """
        pixels = []
        for one in each_image(images, self.bundle.in_channels, max_pixels):
            found = self._read(one)
            if isinstance(found, str):
                raise DataError(f"{one.name}: {found}")
            pixels.append(found)
        if not pixels:
            raise UsageError("images is empty")
        return self._prepared(pixels)

    def _answers(
        self, inputs: list[Input], batch_size: int, workers: int, counter: Counter
    ) -> Iterator[tuple[str, Tensor | str]]:
        """Yield each image's name with its logits, or with the reason that it cannot be read."""
        names: list[str] = []
        waiting: list[np.ndarray] = []
        depth = DEPTH * batch_size if len(inputs) > 1 else 0
        for one, found in zip(inputs, ahead(self._read, inputs, workers, depth), strict=True):
            if isinstance(found, str):
                yield one.name, found
            else:
                names.append(one.name)
                waiting.append(found)
            if len(waiting) == batch_size:
                yield from zip(names, self._logits(waiting, names), strict=True)
                names, waiting = [], []
            counter.advance(1)
        if waiting:
            yield from zip(names, self._logits(waiting, names), strict=True)

    def _read(self, one: Input) -> np.ndarray | str:
        """Return an image's pixels, or the reason that it cannot be read."""
        whole = self.bundle.resize is not None  # as preprocessing resizes and crops it
        try:
            return one.read(self.bundle.in_channels, None if whole else self.bundle.image_size)
        except DataError as error:
            if not one.file:
                raise DataError(f"{one.name}: {error}") from error
            return str(error)

    def _logits(self, pixels: list[np.ndarray], names: list[str]) -> Tensor:
        x = self._prepared(pixels)
        with prediction_mode(self.net):
            logits: Tensor = self.net(x)
        require_finite(self.net, x, logits, names)
        return logits.float().cpu()

    def _prepared(self, pixels: list[np.ndarray]) -> Tensor:
        """Return images of any sizes as one batch of input."""
        alike = len({image.shape for image in pixels}) == 1
        batches = [np.stack(some) for some in ([pixels] if alike else [[image] for image in pixels])]
        made = [self.preprocess(torch.from_numpy(batch).to(self.device).permute(0, 3, 1, 2)) for batch in batches]
        return torch.cat(made) if len(made) > 1 else made[0]

    def __repr__(self) -> str:
        bundle = self.bundle
        found = bundle.metrics.get("val_accuracy")
        accuracy = f", validation accuracy {found:.4f}" if found is not None else ""
        few = ", ".join([*self.classes[:5], *(["..."] if len(self.classes) > 5 else [])])
        return printable(
            f"Classifier({bundle.net}, {len(self.classes)} classes: {few}; input "
            f"{by(bundle.in_channels, *bundle.image_size)}; trained on {bundle.data}{accuracy})"
        )


def load(path: str | os.PathLike[str], net: nn.Module | None = None, device: torch.device | str = "auto") -> Classifier:
    """Load the classifier in a run folder (its best weights) or a bundle.

    For a network that is not of the zoo, pass the module as `net`; the weights are loaded into it. Raises UsageError if
    `path` is neither folder, or if `net` is missing, another module, or given for a network of the zoo; CnnkitError,
    before memory is taken for the network, if files are corrupt or do not match, and for weights with NaN or Inf.
    """
    folder, bundle = read_bundle(expanded(path))
    where = pick_device(device) if isinstance(device, str) else device
    if is_foreign(bundle.net):
        if net is None:
            raise UsageError(
                f"{path} has weights of {bundle.net.partition(':')[2]}, which is not in the zoo: "
                f"pass the module, cnnkit.load({str(path)!r}, net=module)"
            )
        require_same(net, bundle.net)
        made = unwrapped(net)
    elif net is not None:
        raise UsageError(f"{path} has weights of {bundle.net}, which is in the zoo: remove net")
    else:
        made = _described(folder, bundle)
    weights = read_weights(folder, bundle, made)
    if not is_foreign(bundle.net):
        made.to_empty(device="cpu")  # allocated only after the weights have been checked
    made.load_state_dict(weights)
    made.eval().to(where, memory_format=torch.channels_last)  # type: ignore[call-overload]  # missing in torch's stubs
    return Classifier(made, bundle, folder)


def _described(folder: Path, bundle: Bundle) -> nn.Module:
    """Return the bundle's network on the meta device; raises CnnkitError if it cannot be built."""
    own: dict[str, Any] = {
        "in_channels": bundle.in_channels,
        "num_classes": len(bundle.classes),
        "image_size": bundle.image_size,
        "pretrained": False,  # the bundle has its weights
    }
    try:
        with torch.device("meta"):
            return create(bundle.net, **(bundle.arguments | own))
    except (UsageError, TypeError) as error:
        raise CnnkitError(f"{folder / CONFIG}: the network cannot be built ({error})") from error
