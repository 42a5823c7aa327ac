"""Attributions of one or many images, for a classifier or any network that returns logits."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from cnnkit.anatomy.receptive import Receptive
from cnnkit.core.errors import UsageError, pick, unknown
from cnnkit.core.finite import require_finite
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.shape import by
from cnnkit.deploy import Classifier
from cnnkit.deploy.inputs import each_image
from cnnkit.explain.attribution import Attribution
from cnnkit.explain.features import network
from cnnkit.explain.methods import METHODS, heat_of, parts_of
from cnnkit.explain.placement import Box, Placement
from cnnkit.explain.subject import Subject, field_of, map_layer, private_copy

__all__ = ["Explainer", "attribute", "attributions"]

Target = int | str | None


@dataclass(frozen=True)
class Seen:
    """Images as a batch of input x, N x C x H x W, and the pixels, the name and the placement of each."""

    x: Tensor
    pixels: list[np.ndarray]
    names: list[str]
    placements: list[Placement]


class Explainer:
    """Explains answers of one network, of which it keeps a copy.

    It finds the layer and its receptive field once for all images of a size, where `attribute` does so in each call.
    """

    def __init__(self, model: nn.Module | Classifier):
        self.classifier = model if isinstance(model, Classifier) else None
        self.net = private_copy(network(model))
        self._fields: dict[tuple[str, tuple[int, ...]], Receptive | None] = {}

    def __call__(
        self,
        images: Any,
        method: str = "gradcam",
        targets: Target | Sequence[Target] = None,
        layer: str | None = None,
        *,
        temperature: bool = True,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> list[Attribution]:
        """Return attributions as `attributions` does."""
        row = pick(METHODS, method, "method")
        if layer is not None and not row.by_layer:
            raise UsageError(f"{method} explains without a layer: remove layer={layer!r}")
        seen = self.read(images, max_pixels)
        logits = self.logits(seen)
        wanted = self.targets(targets, logits)
        subject = self.subject(seen.x, layer) if row.by_layer else Subject(self.net)
        heat = heat_of(row, subject, seen.x, wanted)
        divisor = self.classifier.bundle.temperature if self.classifier and temperature else 1.0
        shares = (logits.double() / divisor).softmax(1)
        return [
            Attribution(
                method,
                subject.layer or None,
                target,
                self.classes[target] if self.classes else str(target),
                shares[index, target].item(),
                back.numpy(),
                seen.pixels[index],
                _strongest(back),
                None if heat.cells is None else self._field(seen.x, subject.layer, heat.cells[index], placement),
            )
            for index, (target, placement) in enumerate(zip(wanted.tolist(), seen.placements, strict=True))
            for back in [placement.back(heat.pixels[index])]
        ]

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes; none for a network that is not a Classifier."""
        return self.classifier.classes if self.classifier else ()

    def read(self, images: Any, max_pixels: int = DEFAULT_MAX_PIXELS) -> Seen:
        """Return images as the network's input, with what is needed to map heat back to them."""
        if self.classifier is None:
            return _batch(images)
        images = list(images) if isinstance(images, Iterator) else images  # they are read twice
        x = self.classifier.batch(images, max_pixels=max_pixels)
        channels, preprocess = self.classifier.bundle.in_channels, self.classifier.preprocess
        inputs = list(each_image(images, channels, max_pixels))
        pixels = [one.read(channels, None) for one in inputs]
        return Seen(
            x, pixels, [one.name for one in inputs], [Placement.of(preprocess, *one.shape[:2]) for one in pixels]
        )

    def logits(self, seen: Seen) -> Tensor:
        """Return the logits N x classes; raises CnnkitError if they are not finite, UsageError for another shape."""
        with torch.inference_mode(False), torch.no_grad():
            map_free = [_run(self.net, some) for some in parts_of(seen.x)]
        for logits in map_free:
            if not isinstance(logits, Tensor) or logits.ndim != 2:
                shape = by(*logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
                raise UsageError(f"the network must return logits N x classes, not {shape}")
        found = torch.cat(map_free)
        require_finite(self.net, seen.x, found, seen.names)
        return found.float().cpu()

    def targets(self, targets: Target | Sequence[Target], logits: Tensor) -> Tensor:
        """Return the class of each image: those asked for, by default the most likely one."""
        several = [targets] * len(logits) if targets is None or isinstance(targets, int | str) else list(targets)
        if len(several) != len(logits):
            raise UsageError(f"targets has {len(several)} classes for {len(logits)} images")
        likely = logits.argmax(1).tolist()
        found = [
            likely[index] if one is None else self._target(one, logits.shape[1]) for index, one in enumerate(several)
        ]
        return torch.tensor(found)

    def subject(self, x: Tensor, layer: str | None) -> Subject:
        """Return the network with the layer to explain images like x by."""
        with torch.inference_mode(False), torch.no_grad():
            return Subject(self.net, map_layer(self.net, x[:1].clone(), layer))

    def _target(self, target: int | str, num_classes: int) -> int:
        if isinstance(target, str):
            if target not in self.classes:
                raise unknown("class", target, self.classes or map(str, range(num_classes)))
            return self.classes.index(target)
        if isinstance(target, bool) or not 0 <= target < num_classes:
            raise UsageError(f"target must be a class from 0 to {num_classes - 1}, not {target!r}")
        return target

    def _field(self, x: Tensor, layer: str, cells: Tensor, placement: Placement) -> Box | None:
        """Return the image's pixels that the strongest element of a map h' x w' depends on."""
        size = x.shape[1], x.shape[2], x.shape[3]
        if (layer, size) not in self._fields:
            self._fields[layer, size] = field_of(self.net, layer, size)
        field = self._fields[layer, size]
        if field is None or (cell := _strongest(cells)) is None:
            return None
        top, left = (start + place * step for start, place, step in zip(field.start, cell, field.step, strict=True))
        return placement.box(Box(top, left, top + field.size[0], left + field.size[1]))


def attribute(
    model: nn.Module | Classifier,
    image: Any,
    method: str = "gradcam",
    target: Target = None,
    layer: str | None = None,
    *,
    temperature: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Attribution:
    """Return the pixels of an image that the network's answer depends on.

    `image` is what `predict` takes for a Classifier; for a module a float C x H x W or 1 x C x H x W, its input. The
    arguments, and the errors, are those of `attributions`.
    """
    found = attributions(
        model, _single(model, image), method, target, layer, temperature=temperature, max_pixels=max_pixels
    )
    if len(found) != 1:
        raise UsageError(f"attribute explains one image, not {len(found)}: use attributions")
    return found[0]


def attributions(
    model: nn.Module | Classifier,
    images: Any,
    method: str = "gradcam",
    targets: Target | Sequence[Target] = None,
    layer: str | None = None,
    *,
    temperature: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> list[Attribution]:
    """Return, for each image, the pixels that an answer of the network depends on.

    `images` are what `predict` takes for a Classifier, of any sizes; for a module they are its input, floats N x C x H
    x W. `method` is a name in `METHODS`. `targets` are the classes to explain, by name or number, one for all images or
    one for each; None is the most likely class. The logit is explained, not the probability. `layer` (a dotted path)
    is the one whose map Grad-CAM weighs, by default the last stage with a map of more than one location. `temperature`
    is for the probability, as in `predict`.

    The network, its mode and the global random state are not changed. Raises UsageError for an unknown method, class or
    layer and for images that the network does not accept, DataError for an image that cannot be read, CnnkitError if
    Captum is missing (the extra `explain`), if logits or gradients are not finite, or if none arrive.
    """
    return Explainer(model)(images, method, targets, layer, temperature=temperature, max_pixels=max_pixels)


def _single(model: nn.Module | Classifier, image: Any) -> Any:
    alone = isinstance(image, Tensor) and image.ndim == 3 and not isinstance(model, Classifier)
    return image[None] if alone else image


def _run(net: nn.Module, x: Tensor) -> Any:
    try:
        return Subject(net)(x)
    except (RuntimeError, ValueError) as error:
        reason = str(error).partition("\n")[0]
        raise UsageError(f"the network does not accept a batch of {by(*x.shape)}: {reason}") from error


def _batch(images: Any) -> Seen:
    """Return a module's input as images; other values than 0 to 1 are scaled to be shown."""
    if not isinstance(images, Tensor) or not images.is_floating_point() or images.ndim != 4 or not images.numel():
        what = tuple(images.shape) if isinstance(images, Tensor) else type(images).__name__
        raise UsageError(f"images for a module must be a float tensor N x C x H x W, its input, not {what}")
    low, high = images.amin((1, 2, 3), keepdim=True).clamp(max=0), images.amax((1, 2, 3), keepdim=True).clamp(min=1)
    shown = ((images - low) / (high - low) * 255).nan_to_num(0).round().byte().permute(0, 2, 3, 1).cpu().numpy()
    names = [f"image {index}" for index in range(len(images))]
    return Seen(images, list(shown), names, [Placement.identity(*images.shape[2:])] * len(images))


def _strongest(heat: Tensor) -> tuple[int, int] | None:
    """Return row and column of the largest value; None if none is positive."""
    place = int(heat.argmax())
    return divmod(place, heat.shape[1]) if heat.flatten()[place] > 0 else None
