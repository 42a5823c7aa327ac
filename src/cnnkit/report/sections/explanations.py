"""What the network responds to: filters of its first layer, feature maps of an image, and Grad-CAM."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from cnnkit.core.errors import DataError
from cnnkit.core.shape import by
from cnnkit.deploy import Classifier
from cnnkit.experiment.images import images_of
from cnnkit.experiment.run import Run
from cnnkit.explain import attributions, feature_maps, filters
from cnnkit.metrics.plain import plain
from cnnkit.report.sections.judged import Judged, JudgedImage
from cnnkit.report.sections.parts import Missing, attempt

__all__ = ["Case", "Explanations", "FilterSet", "Heat", "MapSet", "StageMaps", "explanations"]

MAX_FILTERS, MAX_MAPS = 64, 8  # of the first layer, of a stage
CASES = 4  # mistakes, and as many correct answers
GONE = "the images cannot be read any more; make the report again where they are"
Pixels = np.ndarray  # uint8, H x W x C


@dataclass(frozen=True, eq=False)
class FilterSet:
    """The filters of the first convolution, and the first of them as images."""

    number: int
    size: tuple[int, ...]
    images: list[Pixels]

    @property
    def sentence(self) -> str:
        """What the images show."""
        shown = "" if len(self.images) == self.number else f", {len(self.images)} of them shown"
        mean = "" if self.size[0] in (1, 3) else ", as the mean over the channels"
        return (
            f"The first convolution has {self.number} filters of {by(*self.size)}{shown}{mean}. Zero is mid-grey; the "
            "weight farthest from it is black or white."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers."""
        return {"number": self.number, "size": list(self.size)}


@dataclass(frozen=True, eq=False)
class StageMaps:
    """The shape of a stage's output, and some of its maps as images, each from black (minimum) to white (maximum)."""

    name: str
    shape: tuple[int, ...]
    images: list[Pixels]

    @property
    def title(self) -> str:
        """The stage with the shape of its output."""
        shown = "" if len(self.images) == self.shape[0] else f", {len(self.images)} of the maps"
        return f"{self.name}: {by(*self.shape)}{shown}"


@dataclass(frozen=True, eq=False)
class MapSet:
    """The feature maps of an image through the stages that output maps."""

    image: JudgedImage
    stages: tuple[StageMaps, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the image, and the shapes of the stages' outputs."""
        return {"image": plain(self.image), "stages": {one.name: list(one.shape) for one in self.stages}}


@dataclass(frozen=True, eq=False)
class Case:
    """An image with its attribution as numbers, and two images: itself, and with the heat over it."""

    image: JudgedImage
    attribution: dict[str, Any]
    images: list[Pixels]


@dataclass(frozen=True, eq=False)
class Heat:
    """The attributions of some answers."""

    layer: str | None
    cases: tuple[Case, ...]

    @property
    def sentence(self) -> str:
        """How to read them."""
        return (
            f"Grad-CAM at {self.layer}: the regions of the image (left) that speak for the predicted class (right), "
            "first for mistakes, then for correct answers. The frame is what the strongest element depends on."
        )

    def to_dict(self) -> dict[str, Any]:
        """Return the images with the numbers of their attributions."""
        return {"layer": self.layer, "cases": [{"image": plain(one.image), **one.attribution} for one in self.cases]}


@dataclass(frozen=True, eq=False)
class Explanations:
    """Filters, feature maps and heat; Missing stands for those that cannot be shown."""

    filters: FilterSet | Missing
    maps: MapSet | Missing
    heat: Heat | Missing

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers as plain data, without images."""
        return {name: part.to_dict() for name, part in vars(self).items()}


def explanations(run: Run, judged: Judged, has_images: bool = True) -> Explanations:
    """Return what the network of a run responds to; `has_images` says whether any image can be read."""
    model = attempt(lambda: run.model)
    if isinstance(model, Missing):
        return Explanations(model, model, model)
    chosen = attempt(lambda: _chosen(run, model, judged)) if has_images else Missing(GONE)
    if isinstance(chosen, Missing):
        return Explanations(attempt(lambda: _filters(model)), chosen, chosen)
    images, pixels = chosen
    return Explanations(
        attempt(lambda: _filters(model)),
        attempt(lambda: _maps(model, images[-1], pixels[-1])),
        attempt(lambda: _heat(model, images, pixels)),
    )


def _chosen(run: Run, model: Classifier, judged: Judged) -> tuple[list[JudgedImage], list[Pixels]]:
    """Return the most confident mistakes, and the most confident correct answers of different classes, with pixels."""
    images = [*judged.mistakes(CASES).images, *judged.confident(CASES)]
    rows = [image.row for image in images]
    found = images_of(run, judged.predictions, rows, max(model.bundle.image_size))
    there = [(image, pixels) for image, pixels in zip(images, found, strict=True) if pixels is not None]
    if not there:
        raise DataError(GONE)
    return [image for image, _ in there], [pixels for _, pixels in there]


def _filters(model: Classifier) -> FilterSet:
    weights = filters(model)
    some = weights[:MAX_FILTERS].float().cpu()
    some = some if some.shape[1] in (1, 3) else some.mean(1, keepdim=True)
    largest = some.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(some.dtype).tiny)
    return FilterSet(len(weights), tuple(weights.shape[1:]), _images((some / largest + 1) / 2))


def _maps(model: Classifier, image: JudgedImage, pixels: Pixels) -> MapSet:
    maps = feature_maps(model, pixels)
    stages = [
        StageMaps(name, tuple(values.shape[1:]), _images(_scaled(_evenly(values[0]))))
        for name, values in maps.items()
        if values.ndim == 4 and values[0, 0].numel() > 1
    ]
    return MapSet(image, tuple(stages))


def _heat(model: Classifier, images: Sequence[JudgedImage], pixels: Sequence[Pixels]) -> Heat:
    found = attributions(model, list(pixels), targets=[image.predicted for image in images])
    cases = (
        Case(image, one.to_dict(), [one.image, np.asarray(one.overlay())])
        for image, one in zip(images, found, strict=True)
    )
    return Heat(found[0].layer, tuple(cases))


def _evenly(maps: Tensor) -> Tensor:
    """Return at most MAX_MAPS of the maps C x H x W, evenly spaced, as N x 1 x H x W."""
    shown = min(len(maps), MAX_MAPS)
    return maps[[index * len(maps) // shown for index in range(shown)], None].float().cpu()


def _scaled(maps: Tensor) -> Tensor:
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def _images(values: Tensor) -> list[Pixels]:
    """Return values from 0 to 1, N x C x H x W, as images."""
    return list((values * 255).round().byte().permute(0, 2, 3, 1).numpy())
