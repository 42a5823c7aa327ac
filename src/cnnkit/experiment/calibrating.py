"""The temperature of a run's bundle, fitted on the run's validation images."""

import logging
import os
from contextlib import nullcontext

import numpy as np
import torch
from torch import nn

from cnnkit.core.errors import CnnkitError
from cnnkit.core.text import counted
from cnnkit.data import Reading
from cnnkit.deploy import amend_bundle
from cnnkit.experiment.predictions import SplitPredictions
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.split_images import NoImagesError, SplitImages
from cnnkit.experiment.trained import Trained
from cnnkit.metrics import TemperatureFit, fit_temperature

__all__ = ["about_temperature", "calibrate", "calibrate_run"]

log = logging.getLogger(__name__)


def calibrate(
    model: str | os.PathLike[str], *, device: torch.device | str = "auto", progress: bool = True
) -> TemperatureFit:
    """Fit the temperature of a run on its validation images, and store it in its bundle.

    The kept predictions are used if they are up to date. The temperature is 1, with the reason, where it cannot be
    fitted. Raises UsageError if `model` is neither a run nor a bundle, DataError for images that cannot be read,
    CnnkitError if the bundle cannot be written or another process is training the run.
    """
    trained = Trained.open(model, device=device)
    with trained.folder.locked() if trained.folder else nullcontext():  # training replaces the bundle
        try:
            found = trained.kept("validation") or trained.predictions("validation", None, Reading(progress=progress))
        except NoImagesError:
            found = None
        return _stored(trained, found)


def calibrate_run(folder: RunFolder, validation: SplitImages, net: nn.Module | None, device: torch.device) -> None:
    """Fit the temperature of a run that has just finished, and log it; a failure is logged as a warning.

    `net` is a network that is not of the zoo.
    """
    try:
        trained = Trained.open(folder.path, device=device, net=net)
        fit = _stored(trained, trained.predict(validation, "validation", progress=False) if validation.images else None)
    except (CnnkitError, torch.OutOfMemoryError) as error:  # the trained network is still in memory, too
        log.warning("the temperature was not fitted: %s", error)
    else:
        log.info("%s", about_temperature(fit))


def about_temperature(fit: TemperatureFit) -> str:
    """Return a line on a fitted temperature."""
    if fit.reason:
        return f"temperature 1: {fit.reason}"
    return (
        f"temperature {fit.temperature:.3f}, fitted on {counted(fit.images, 'validation image')}: "
        f"log loss {fit.log_loss_before:.4f} -> {fit.log_loss_after:.4f}"
    )


def _stored(trained: Trained, found: SplitPredictions | None) -> TemperatureFit:
    images = (found.logits, found.labels) if found else (np.empty((0, 1)), np.empty(0, np.int64))
    fit = fit_temperature(*images)
    assert trained.place  # only a classifier from Python has none
    amend_bundle(trained.place, temperature=fit.temperature, temperature_reason=fit.reason)
    return fit
