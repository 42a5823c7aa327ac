"""Evaluation of a trained network on a split of its own data, or of other data."""

import logging
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnkit.core.device import pick_device
from cnnkit.core.errors import unknown
from cnnkit.core.files import CannotWrite
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_BATCH
from cnnkit.core.shape import count
from cnnkit.data import Reading
from cnnkit.data.reading import BadImage
from cnnkit.deploy import Classifier
from cnnkit.experiment.evaluation import Evaluation
from cnnkit.experiment.predictions import SplitPredictions
from cnnkit.experiment.record import PARTS as SPLITS
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.split_images import NoImagesError, SplitName
from cnnkit.experiment.trained import Trained
from cnnkit.train import ALONE, World

__all__ = ["evaluate", "evaluation_of"]

log = logging.getLogger(__name__)


def evaluate(
    model: Classifier | str | os.PathLike[str],
    data: Any = None,
    *,
    split: SplitName = "test",
    net: nn.Module | None = None,
    data_dir: Path | str | None = None,
    on_bad_image: BadImage = "error",
    workers: int | None = None,
    device: torch.device | str = "auto",
    batch_size: int | None = None,
    temperature: bool = True,
    allow_class_mismatch: bool = False,
    progress: bool = True,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    world: World = ALONE,
) -> Evaluation:
    """Evaluate a classifier, a run folder or a bundle on a split of the data that it was trained on.

    `data` is another data set, whose split is used (all of it if it has no splits), or the training data of the run, if
    they were passed from Python. Its classes are matched by name; those that the network does not know, or that the
    data lack, are an error unless `allow_class_mismatch`. The predictions are kept in the run folder
    (`predictions-<split>-<digest>.npz`), the metrics on its own test images in test.json. `temperature` applies the
    temperature of the bundle. `net` is as in `cnnkit.load`, `world` a process group that shares the work, the other
    arguments as in `cnnkit.data.load_dataset`.

    Raises UsageError or DataError if the classes or channels differ, or if images are missing or cannot be read;
    CnnkitError if the network outputs NaN or Inf.
    """
    if split not in SPLITS:
        raise unknown("split", split, SPLITS)
    if batch_size is not None:
        count(batch_size, "batch_size", MAX_BATCH)
    options = Reading(
        data_dir=Path(data_dir) if data_dir else None,
        on_bad_image=on_bad_image,
        workers=workers,
        progress=progress and world.is_main,
        max_pixels=max_pixels,
    )
    trained = Trained.open(model, net, pick_device(device, world.local_rank) if isinstance(device, str) else device)
    found = trained.predictions(
        split, data, options, batch_size=batch_size, allow_class_mismatch=allow_class_mismatch, world=world
    )
    made = _evaluation(found, trained) if temperature else Evaluation(found)
    if trained.folder and world.is_main and split == "test" and found.split_sha256:
        _save(trained.folder, made)
    return made


def evaluation_of(model: str | os.PathLike[str], split: SplitName | None = None, progress: bool = True) -> Evaluation:
    """Return the evaluation of a run on a split of its own data, from the kept predictions if they are up to date.

    Without a split it is the test split or, if the run has no test images, the validation split.
    """
    trained = Trained.open(model)
    if found := trained.kept(split or "test"):
        return _evaluation(found, trained)
    try:
        return evaluate(model, split=split or "test", progress=progress)
    except NoImagesError as error:
        if split:
            raise
        instead = evaluation_of(model, "validation", progress)
        reason = str(error).partition(":")[0]
        remarks = (f"{reason}: these are the validation images", *instead.predictions.remarks)
        found = replace(instead.predictions, remarks=remarks)
        return replace(instead, predictions=found)


def _evaluation(found: SplitPredictions, trained: Trained) -> Evaluation:
    return Evaluation(found, trained.bundle.temperature, trained.about_temperature)


def _save(folder: RunFolder, made: Evaluation) -> None:
    """Write a run's test metrics to test.json; log a warning if that fails."""
    try:
        folder.write_json("test.json", made.to_dict())
    except CannotWrite as error:
        log.warning("%s; the test metrics are not saved", error)
