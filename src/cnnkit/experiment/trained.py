"""A trained network with what is known of its run: the images of its splits, and its predictions for them."""

import copy
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.core.files import CannotWrite
from cnnkit.core.places import expanded
from cnnkit.data import Reading, is_handed_in
from cnnkit.deploy import Bundle, Classifier, load, read_bundle, require_intact
from cnnkit.experiment.build import NOTHING, Given, eval_batch_size
from cnnkit.experiment.passwords import with_passwords
from cnnkit.experiment.predictions import SplitPredictions, kept_predictions, predict_split
from cnnkit.experiment.record import Record, digest_of, read_record
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.split_images import SplitImages, SplitName, other_images, own_images, separate_place
from cnnkit.train import ALONE, World

__all__ = ["Trained"]

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Trained:
    """A trained network; `open` finds it, and the network is loaded at its first use."""

    bundle: Bundle
    place: Path | None
    """The bundle's folder."""
    record: Record | None
    """Content of its split.json."""
    folder: RunFolder | None
    """The run folder, if it has one."""
    given: Given
    """Network and data that were passed from Python."""
    load: Callable[[], Classifier]

    @classmethod
    def open(
        cls,
        model: Classifier | str | os.PathLike[str],
        net: nn.Module | None = None,
        device: torch.device | str = "auto",
    ) -> "Trained":
        """Return the network of a run, a run folder or a bundle.

        `net` is as in `cnnkit.load`; a `Run` has it, and data passed from Python. Raises UsageError if `model` is none
        of these, CnnkitError if its files are corrupt.
        """
        given: Given = getattr(model, "given", NOTHING)
        if isinstance(model, Classifier):
            if net is not None:
                raise UsageError("a Classifier contains its network: remove net")
            record = read_record(model.folder) if model.folder else None
            return cls(model.bundle, model.folder, _checked(record, model.bundle), None, given, lambda: model)
        path = expanded(model)
        place, bundle = read_bundle(path)
        run = RunFolder(place.parent)
        is_best = run.config_file.is_file() and run.best.resolve() == place.resolve()
        network = given.net if net is None else net
        return cls(
            with_passwords(bundle, place),
            place,
            _checked(read_record(place), bundle),
            run if is_best else None,
            given,
            lambda: load(path, copy.deepcopy(network), device),
        )

    @cached_property
    def classifier(self) -> Classifier:
        """The network with its best weights."""
        return self.load()

    def images(self, split: SplitName, data: Any, options: Reading, allow_class_mismatch: bool = False) -> SplitImages:
        """Return a split of the network's own data, or of other `data`, at the size in `options` or the network's."""
        size = options.image_size or self.bundle.image_size
        options = replace(
            options, image_size=size, channels=self.bundle.in_channels, test_fraction=0.0, trainable=False
        )
        if data is not None:
            return other_images(self.bundle, self.record, data, options, split, allow_class_mismatch)
        separate = separate_place(self.bundle, split)
        given = getattr(self.given, f"{split}_data") if separate else self.given.data
        from_python = is_handed_in(separate or self.bundle.data)
        return own_images(self.bundle, self.record, options, split, given if from_python else None)

    def predictions(
        self,
        split: SplitName,
        data: Any,
        options: Reading,
        *,
        batch_size: int | None = None,
        allow_class_mismatch: bool = False,
        world: World = ALONE,
    ) -> SplitPredictions:
        """Run the network on a split of its own data, or of other `data`, as `predict` does."""
        _ = self.classifier  # a corrupt network is reported before the data are read
        found = self.images(split, data, options, allow_class_mismatch)
        return self.predict(found, split, batch_size=batch_size, world=world, progress=options.progress)

    def predict(
        self,
        found: SplitImages,
        split: SplitName,
        *,
        batch_size: int | None = None,
        world: World = ALONE,
        progress: bool = True,
    ) -> SplitPredictions:
        """Run the network on images, and keep the predictions in the run folder.

        Raises DataError for another number of channels, CnnkitError if the network returns NaN or Inf. If the
        predictions cannot be written, a warning is logged.
        """
        channels = found.images.storage.shape[1]
        if self.bundle.preprocess.channels(channels) != self.bundle.in_channels:
            raise DataError(f"{found.name} has {channels} channels, the network takes {self.bundle.in_channels}")
        size = batch_size or eval_batch_size(max(self.bundle.image_size), world)
        made = predict_split(self.classifier, found, split, size, world=world, progress=progress)
        if self.folder and world.is_main:
            try:
                made.save(self.folder.path)
            except CannotWrite as error:
                log.warning("%s; the predictions are not kept", error)
        return made

    def kept(self, split: SplitName) -> SplitPredictions | None:
        """Return the predictions in the run folder for a split of the network's own data, None if there are none.

        Raises CnnkitError if the weights are not those that the bundle describes.
        """
        if self.place:
            require_intact(self.place, self.bundle)
        return kept_predictions(self.folder.path, self.bundle, split) if self.folder else None

    @property
    def about_temperature(self) -> str:
        """Where the temperature of the bundle comes from."""
        reason = self.bundle.temperature_reason
        return "not fitted yet: run cnnkit calibrate" if reason is None else reason or "fitted on the validation images"


def _checked(record: Record | None, bundle: Bundle) -> Record | None:
    """Return the record of a bundle's split; raises CnnkitError if it is another split's."""
    if record and "labels" in record and digest_of(record) != bundle.split_sha256:
        raise CnnkitError("split.json is not the one that the network was trained with")
    return record
