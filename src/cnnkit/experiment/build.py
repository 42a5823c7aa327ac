"""All that a training needs but a place: the network, the data and the settings, put together."""

import copy
import hashlib
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.allocator import keep_large_blocks
from cnnkit.core.device import pick_device, seed_everything
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.shape import by
from cnnkit.data import (
    Augment,
    Batches,
    Dataset,
    ImageSet,
    Preprocess,
    Reading,
    channel_statistics,
    load_dataset,
    place,
    with_parts,
)
from cnnkit.deploy import Bundle, published_preprocess
from cnnkit.experiment.config import RunConfig
from cnnkit.nets import create, entry
from cnnkit.nets.foreign import foreign_name, is_foreign, require_same
from cnnkit.train import ALONE, World, initialise
from cnnkit.train.memory import fitting_batch

__all__ = ["DATA", "NOTHING", "Given", "Job", "looking_batch", "places", "prepare"]

MOST_PIXELS, MOST_IMAGES = 2**22, 500  # of a batch that is only looked at
DATA = ("data", "validation_data", "test_data")  # settings that say where data are
Size = tuple[int, int]


@dataclass(frozen=True)
class Given:
    """What Python hands in beside the settings, and a command line cannot; None is what the settings say."""

    net: nn.Module | None = None
    data: Any = None
    validation_data: Any = None
    test_data: Any = None

    def places(self) -> dict[str, str]:
        """Return what the settings say of what is given."""
        names = {name: place(value) for name, value in self.data_by_name().items()}
        return names if self.net is None else names | {"net": foreign_name(self.net)}

    def data_by_name(self) -> dict[str, Any]:
        """Return the data that are given, by the setting that they stand for."""
        return {name: value for name in DATA if (value := getattr(self, name)) is not None}


NOTHING: Given = Given()


@dataclass(frozen=True)
class Job:
    """A net and its batches, with the settings in full."""

    config: RunConfig
    net: nn.Module
    training: Batches
    validation: Batches | None
    split: dict[str, Any]
    skipped: tuple[tuple[str, str], ...]
    bundle: Bundle
    stem: str
    """What its run folder is called after."""

    def with_places(self, places: dict[str, str], in_bundle: dict[str, str]) -> "Job":
        """Return the job with its data found elsewhere from now on."""
        config, bundle = self.config.model_copy(update=places), self.bundle.model_copy(update=in_bundle)
        return replace(self, config=config, bundle=bundle)


def prepare(
    config: RunConfig, world: World = ALONE, given: Given = NOTHING, resumed: bool = False, progress: bool = True
) -> Job:
    """Build the net and read the data; whatever is wrong shows here, before there is a run folder.

    A resumed run has its weights in its checkpoint. `progress` tells how far reading is.
    """
    keep_large_blocks()
    if config.pretrained and (config.init != "torch" or config.raw_pixels):
        other = "raw_pixels" if config.raw_pixels else f"init {config.init!r}"
        raise UsageError(f"{other} does not go with pretrained weights: leave out one of the two")
    size = _image_size(config, given)
    if config.augment:
        Augment(config.augment, size or (1, 1))  # a wrong name is told before the data are read
    device = pick_device(config.device, world.local_rank)
    config = config.model_copy(update=places(config))
    dataset = _read(config, given, size, progress and world.is_main)
    _, channels, height, width = dataset.train.storage.shape
    size = size or (height, width)
    seed_everything(config.seed)
    net = _build(config, given, channels, size, len(dataset.classes), resumed, world)
    initialise(net, config.init)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap in torch's stubs
    training, validation, split = _split(dataset, config)
    batch_size = config.batch_size if isinstance(config.batch_size, int) else 0
    if not batch_size:
        batch_size = world.share(fitting_batch(net, (channels, *size), len(training), config))
    config = config.model_copy(update={"image_size": size[0] if size[0] == size[1] else None, "batch_size": batch_size})
    preprocess = Preprocess(size, *_statistics(config, training, channels))
    bundle = Bundle(
        net=config.net,
        arguments=config.model_kwargs,
        in_channels=channels,
        image_size=preprocess.image_size,
        classes=dataset.classes,
        mean=preprocess.mean,
        std=preprocess.std,
        data=config.data,
        data_dir=config.data_dir and str(config.data_dir),
        test_fraction=0.0 if config.test_data else config.test,  # then nothing was set aside
        test_data=config.test_data,
        data_sha256=dataset.sha256,
        split_sha256=hashlib.sha256(json.dumps(split).encode()).hexdigest(),
        metrics={},
        versions=Bundle.current_versions(),
    )
    augment = Augment(config.augment, size) if config.augment else None
    where: dict[str, Any] = {"device": device, "shard": world.shard}
    looking = looking_batch(max(size), world)
    return Job(
        config,
        net,
        Batches(training, batch_size, preprocess, seed=config.seed, augment=augment, **where),
        Batches(validation, looking, preprocess, **where) if len(validation) else None,
        split,
        dataset.skipped,
        bundle,
        f"{type(given.net).__name__.lower() if given.net else config.net}-{Path(dataset.name).name}",
    )


def places(config: RunConfig) -> dict[str, str]:
    """Return the settings that say where data are, in a way that means the same from every folder."""
    return {name: place(value) for name in DATA if (value := getattr(config, name)) is not None}


def looking_batch(pixels: int, world: World = ALONE) -> int:
    """Return how many images of this height and width to predict at once: enough for speed, few enough for memory."""
    return max(world.size, min(MOST_IMAGES, MOST_PIXELS // pixels**2))


def _image_size(config: RunConfig, given: Given) -> Size | None:
    """Return the size that the network sees; None if it takes the data's."""
    if given.net is not None:
        if config.model_kwargs or config.pretrained:
            raise UsageError("model_kwargs and pretrained are for networks of the zoo; this one is built already")
        require_same(given.net, config.net)  # of a resumed run it may be another
        return (config.image_size, config.image_size) if config.image_size else None
    if is_foreign(config.net):
        raise UsageError(
            f"the network {config.net.partition(':')[2]} is not of the zoo: hand it in again, with cnnkit.fit(net=...)"
        )
    pixels = config.image_size or entry(config.net).input[1]  # a wrong name is told before the data are read
    return pixels, pixels


def _read(config: RunConfig, given: Given, size: Size | None, progress: bool) -> Dataset:
    options = Reading(
        data_dir=config.data_dir,
        image_size=size,
        on_bad_image=config.on_bad_image,
        workers=config.workers,
        test_fraction=config.test,
        progress=progress,
    )
    if given.test_data is not None or config.test_data is not None:
        options = replace(options, test_fraction=0.0)
    dataset = load_dataset(_first(given.data, config.data), **vars(options))
    validation = _first(given.validation_data, config.validation_data)
    test = _first(given.test_data, config.test_data)
    return with_parts(dataset, validation, test, replace(options, data_dir=None))


def _first(given: Any, setting: str | None) -> Any:
    return setting if given is None else given


def _build(
    config: RunConfig, given: Given, channels: int, size: Size, num_classes: int, resumed: bool, world: World
) -> nn.Module:
    """Return the network for such images and classes; a copy, if it is given."""
    alone = isinstance(config.batch_size, int) and config.batch_size < 2 * world.size  # an image in a batch
    if given.net is not None:
        try:
            net = copy.deepcopy(given.net)
        except Exception as error:  # of what the module holds
            raise UsageError(f"the network cannot be copied ({error}): leave out of it what is no layer") from error
        if world.size > 1:  # each process may have made it by other random numbers
            net.load_state_dict(world.share(net.state_dict()))
        _require_logits(copy.deepcopy(net), torch.zeros(2, channels, *size), num_classes)
        if alone:
            where = next(net.parameters()).device
            _try_one_image(copy.deepcopy(net).train(), torch.zeros(1, channels, *size, device=where))
        return net
    arguments: dict[str, Any] = config.model_kwargs | {
        "in_channels": channels,
        "num_classes": num_classes,
        "image_size": size,
    }
    if alone:
        with torch.device("meta"):
            _try_one_image(create(config.net, **arguments), torch.empty(1, channels, *size))
    return create(config.net, pretrained=config.pretrained and not resumed, **arguments)


def _require_logits(net: nn.Module, images: Tensor, num_classes: int) -> None:
    """Raise UsageError unless the net gives logits, N x classes, for images."""
    where = next(net.parameters(), None)
    if where is None:
        raise UsageError("the network has no parameters: there is nothing to train")
    try:
        with torch.random.fork_rng():  # dropout draws
            logits = net.train()(images.to(where.device))
    except Exception as error:  # of the network's own code
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"the network cannot take images of {by(*images.shape[1:])}: {reason}") from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (len(images), num_classes):
        raise UsageError(
            f"the network gives {shape} for {len(images)} images; it must give logits, N x classes, and the data have "
            f"{num_classes} classes"
        )
    if not logits.requires_grad and any(parameter.requires_grad for parameter in net.parameters()):
        raise UsageError("the network's logits depend on none of its parameters: nothing could learn")


def _split(dataset: Dataset, config: RunConfig) -> tuple[ImageSet, ImageSet, dict[str, Any]]:
    """Return the training and the validation images, and what split.json says of them and of the test images."""
    training, validation = dataset.train, dataset.validation
    rows = torch.empty(0, dtype=torch.int64)
    if validation is None:
        kept, rows = training.hold_out(config.validation, config.seed)
        training, validation = dataset.train.subset(kept), dataset.train.subset(rows)
    if not len(dataset.train):
        raise DataError(f"{config.data} has no images to train on, only others")
    if not len(training):
        raise UsageError(f"validation {config.validation} leaves no image to train on")
    split: dict[str, Any] = {"seed": config.seed, "validation": validation.names or rows.tolist()}
    if training.names:
        split["test"] = dataset.test.names if dataset.test else ()
    if digest := training.digest():
        split["train_sha256"] = digest
    if digests := [digest for digest in (dataset.sha256, *dataset.parts_sha256) if digest]:
        split["data_sha256"] = digests
    return training, validation, json.loads(json.dumps(split))


def _statistics(config: RunConfig, training: ImageSet, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the standard deviation that pixels are shifted and scaled by, where 255 is 1."""
    if config.raw_pixels:
        return (0.0,), (1 / 255,)
    if config.pretrained:
        known = published_preprocess(config.net, channels)
        return known.mean, known.std
    return channel_statistics(training.images) if config.standardize else ((0.0,), (1.0,))


def _try_one_image(net: nn.Module, image: Tensor) -> None:
    """Raise UsageError if batch normalisation would have a single value per channel."""
    try:
        net(image)
    except ValueError as error:
        raise UsageError(f"batch_size cannot be 1: batch normalisation needs more to train on ({error})") from error
