"""The images behind predictions, small, for galleries."""

import logging
import os
from collections.abc import Sequence

import numpy as np
import torch

from cnnkit.core.errors import CnnkitError
from cnnkit.data import Reading
from cnnkit.data.images.decode import fitted_size
from cnnkit.experiment.predictions import SplitPredictions, digest_of_images
from cnnkit.experiment.trained import Trained

__all__ = ["images_of"]

log = logging.getLogger(__name__)


def images_of(
    model: str | os.PathLike[str], predictions: SplitPredictions, rows: Sequence[int], size: int
) -> list[np.ndarray | None]:
    """Return the images of some rows of a run's predictions: uint8, H x W x C, at most `size` pixels a side.

    Image files keep their aspect ratio, others are as they are stored. None stands for an image that is gone or cannot
    be read; if the data are gone, a warning says so.
    """
    options = Reading(image_size=(size, size), on_bad_image="skip", budget=0, progress=False)  # decodes these rows only
    try:
        images = Trained.open(model).images(predictions.split, None, options).images
    except CnnkitError as error:
        log.warning("no images to show: %s", error)
        return [None] * len(rows)
    places: list[int | None] = list(rows)
    if digest_of_images(images, predictions.classes) != predictions.data_sha256:  # some are gone, or have changed
        at = {name: row for row, name in enumerate(images.names)}
        places = [at.get(predictions.name_of(row)) for row in rows]
    there = [number for number, place in enumerate(places) if place is not None]
    found: list[np.ndarray | None] = [None] * len(rows)
    if there:
        wanted = torch.tensor([places[number] for number in there])
        pixels, kept = images.storage.read(wanted)
        numbers = np.array(there)[kept if isinstance(kept, slice) else kept.numpy()]
        for number, image in zip(numbers.tolist(), pixels.permute(0, 2, 3, 1).cpu().numpy(), strict=True):
            found[number] = (
                image if images.files is None else _unpadded(image, images.files.sizes[places[number]].tolist())
            )
    return found


def _unpadded(image: np.ndarray, size: Sequence[int]) -> np.ndarray:
    """Return an image H x W x C without the padding that an original of `size`, height and width, has got."""
    canvas = image.shape[0], image.shape[1]
    inside = fitted_size(size[0], size[1], canvas)
    rows, columns = (
        slice(first, first + pixels)
        for pixels, whole in zip(inside, canvas, strict=True)
        for first in [(whole - pixels) // 2]
    )
    return image[rows, columns]
