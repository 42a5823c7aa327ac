"""What the network responds to: filters of its first layer, feature maps of an image, and Grad-CAM."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.shape import by
from cnnkit.deploy import Classifier
from cnnkit.explain import Attribution, attributions, feature_maps, filters
from cnnkit.report.sections.judged import JudgedImage

__all__ = ["Case", "FilterSet", "Heat", "MapSet", "StageMaps", "filter_set", "heat", "map_set"]

MAX_FILTERS, MAX_MAPS = 64, 8
Pixels = np.ndarray  # uint8, H x W x C


@dataclass(frozen=True)
class FilterSet:
    """The filters of the first convolution as images, each scaled so that zero is mid-grey."""

    number: int
    size: tuple[int, int]
    channels: int
    images: list[Pixels] = field(repr=False)

    @property
    def sentence(self) -> str:
        """What the images show."""
        shown = "" if len(self.images) == self.number else f", {len(self.images)} of them shown"
        mean = ", as the mean over the channels" if self.channels not in (1, 3) else ""
        return (
            f"The first layer has {self.number} filters of {by(self.channels, *self.size)}{shown}{mean}. Zero is "
            "mid-grey; white and black are the largest weights of a filter, positive and negative."
        )


@dataclass(frozen=True)
class StageMaps:
    """Some feature maps of a stage as images, each scaled from black (its minimum) to white (its maximum)."""

    name: str
    shape: tuple[int, ...]
    images: list[Pixels] = field(repr=False)

    @property
    def title(self) -> str:
        """The stage with the shape of its output."""
        shown = "" if len(self.images) == self.shape[0] else f", {len(self.images)} maps shown"
        return f"{self.name}: {by(*self.shape)}{shown}"


@dataclass(frozen=True)
class MapSet:
    """The feature maps of an image through the stages that output maps."""

    image: JudgedImage
    stages: tuple[StageMaps, ...]


@dataclass(frozen=True)
class Case:
    """An image with the class that is explained."""

    image: JudgedImage
    target: str
    pixels: list[Pixels] = field(repr=False)
    """The image, and the image with the heat over it."""


@dataclass(frozen=True)
class Heat:
    """Explanations of answers, by a layer's map."""

    method: str
    layer: str | None
    cases: tuple[Case, ...]

    @property
    def sentence(self) -> str:
        """How to read them."""
        return (
            f"Grad-CAM at {self.layer}: the regions that speak for the predicted class, from the image alone (left) to "
            "the strongest region (right)."
        )


def filter_set(classifier: Classifier) -> FilterSet:
    """Return the first layer's filters; raises UsageError if the network has no convolution."""
    weights = filters(classifier)
    number, channels, *size = weights.shape
    some = weights[:MAX_FILTERS].float().cpu()
    some = some if channels in (1, 3) else some.mean(1, keepdim=True)
    largest = some.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(some.dtype).tiny)
    return FilterSet(number, (size[0], size[1]), channels, _images((some / largest + 1) / 2))


def map_set(classifier: Classifier, image: JudgedImage, pixels: Pixels) -> MapSet:
    """Return feature maps of an image in each stage that outputs maps of more than one element."""
    maps = feature_maps(classifier, pixels)
    stages = [
        StageMaps(name, tuple(values.shape[1:]), _images(_scaled(_some(values[0]))))
        for name, values in maps.items()
        if values.ndim == 4 and values[0, 0].numel() > 1
    ]
    return MapSet(image, tuple(stages))


def heat(classifier: Classifier, images: Sequence[JudgedImage], pixels: Sequence[Pixels]) -> Heat:
    """Return Grad-CAM for the predicted classes; raises CnnkitError if Captum is missing."""
    found = attributions(classifier, list(pixels), targets=[one.predicted for one in images])
    cases = (_case(one, explained) for one, explained in zip(images, found, strict=True))
    return Heat("gradcam", found[0].layer, tuple(cases))


def _case(image: JudgedImage, found: Attribution) -> Case:
    return Case(image, found.label, [found.image, np.asarray(found.overlay())])


def _some(maps: Tensor) -> Tensor:
    """Return at most MAX_MAPS of the maps C x H x W, evenly spaced, as N x 1 x H x W."""
    shown = min(len(maps), MAX_MAPS)
    return maps[[index * len(maps) // shown for index in range(shown)], None].float().cpu()


def _scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def _images(values: Tensor) -> list[Pixels]:
    """Return values from 0 to 1, N x C x H x W, as images."""
    return list((values * 255).round().byte().permute(0, 2, 3, 1).numpy())
