"""All that a training needs but a place: the network, the data and the settings, put together."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.cli.settings import RunConfig
from cnnkit.core.allocator import keep_large_blocks
from cnnkit.core.device import pick_device, seed_everything
from cnnkit.core.errors import DataError, UsageError
from cnnkit.data import (
    DATASETS,
    Augment,
    Batches,
    Dataset,
    ImageSet,
    Preprocess,
    ShardBatches,
    ShardImages,
    channel_statistics,
    is_shards,
    load_dataset,
    set_aside,
    stratified_split,
)
from cnnkit.deploy import Bundle, published_preprocess
from cnnkit.nets import create, entry
from cnnkit.train import ALONE, World, initialise
from cnnkit.train.memory import fitting_batch

__all__ = ["Job", "batches_of", "looking_batch", "place", "prepare"]

MOST_PIXELS, MOST_IMAGES = 2**22, 500  # of a batch that is only looked at


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


def prepare(config: RunConfig, world: World = ALONE, resumed: bool = False) -> Job:
    """Build the net and read the data; whatever is wrong shows here, before there is a run folder.

    A resumed run has its weights in its checkpoint.
    """
    keep_large_blocks()
    if config.pretrained and (config.init != "torch" or config.raw_pixels):
        other = "raw_pixels" if config.raw_pixels else f"init {config.init!r}"
        raise UsageError(f"{other} does not go with pretrained weights: leave out one of the two")
    own_size = entry(config.net).input[1]  # a wrong name is told before the data is read
    pixels = config.image_size or own_size
    augment = Augment(config.augment, (pixels, pixels)) if config.augment else None
    device = pick_device(config.device, world.local_rank)
    config = config.model_copy(update={"data": place(config.data)})
    dataset = _read(config, pixels, world)
    channels = dataset.train.images.shape[1]
    seed_everything(config.seed)
    arguments: dict[str, Any] = config.model_kwargs | {
        "in_channels": channels,
        "num_classes": len(dataset.classes),
        "image_size": pixels,
    }
    if isinstance(config.batch_size, int) and config.batch_size < 2 * world.size:
        with torch.device("meta"):
            _try_one_image(create(config.net, **arguments), torch.empty(1, channels, pixels, pixels))
    net = create(config.net, pretrained=config.pretrained and not resumed, **arguments)
    initialise(net, config.init)
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap in torch's stubs
    training, validation, split = _split(dataset, config)
    batch_size = config.batch_size if isinstance(config.batch_size, int) else 0
    if not batch_size:
        batch_size = world.share(fitting_batch(net, (channels, pixels, pixels), len(training), config))
    config = config.model_copy(update={"image_size": pixels, "batch_size": batch_size})
    preprocess = Preprocess((pixels, pixels), *_statistics(config, training, channels))
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
        test_fraction=config.test,
        split_sha256=hashlib.sha256(json.dumps(split).encode()).hexdigest(),
        metrics={},
        versions=Bundle.current_versions(),
    )
    batches = batches_of(training)
    where: dict[str, Any] = {"device": device, "shard": world.shard}
    return Job(
        config,
        net,
        batches(training, batch_size, preprocess, seed=config.seed, augment=augment, **where),
        batches(validation, looking_batch(pixels, world), preprocess, **where) if len(validation) else None,
        split,
        dataset.skipped,
        bundle,
        f"{config.net}-{Path(dataset.name).name}",
    )


def looking_batch(pixels: int, world: World = ALONE) -> int:
    """Return how many images of this height and width to predict at once: enough for speed, few enough for memory."""
    return max(world.size, min(MOST_IMAGES, MOST_PIXELS // pixels**2))


def batches_of(images: ImageSet) -> type[Batches]:
    """Return what makes batches of these images."""
    return ShardBatches if isinstance(images.images, ShardImages) else Batches


def place(data: str) -> str:
    """Return what --data says in a way that means the same from every folder."""
    here = Path(data).expanduser()
    if data in DATASETS or "://" in data or not (here.is_dir() or is_shards(data)):
        return data
    return str(here.absolute())


def _read(config: RunConfig, pixels: int, world: World) -> Dataset:
    options: dict[str, Any] = {
        "image_size": (pixels, pixels),
        "on_bad_image": config.on_bad_image,
        "workers": config.workers,
        "progress": world.is_main,
    }
    return load_dataset(config.data, config.data_dir, test_fraction=config.test, **options)


def _split(dataset: Dataset, config: RunConfig) -> tuple[ImageSet, ImageSet, dict[str, Any]]:
    """Return the training and the validation images, and what split.json says of them and of the test images."""
    training, validation = dataset.train, dataset.validation
    rows = torch.empty(0, dtype=torch.int64)
    if validation is None:
        if isinstance(training.images, ShardImages):
            kept, rows = set_aside(training, config.validation, config.seed)
        else:
            kept, rows = stratified_split(training.labels, config.validation, config.seed)
        training, validation = dataset.train.subset(kept), dataset.train.subset(rows)
    if not len(dataset.train):
        raise DataError(f"{config.data} has no images to train on, only others")
    if not len(training):
        raise UsageError(f"validation {config.validation} leaves no image to train on")
    split: dict[str, Any] = {"seed": config.seed, "validation": validation.names or rows.tolist()}
    if isinstance(training.images, ShardImages):
        places = training.images.index.samples[training.images.rows.numpy()]
        split["train_sha256"] = hashlib.sha256(places.tobytes()).hexdigest()
    elif training.names:
        split["test"] = dataset.test.names if dataset.test else ()
        split["train_sha256"] = hashlib.sha256(json.dumps(training.names).encode()).hexdigest()
    return training, validation, json.loads(json.dumps(split))


def _statistics(config: RunConfig, training: ImageSet, channels: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the deviation that pixels are shifted and scaled by, where 255 is 1."""
    if config.raw_pixels:
        return (0.0,), (1 / 255,)
    if config.pretrained:
        known = published_preprocess(config.net, channels)
        return known.mean, known.std
    if config.standardize:
        images = training.images
        return channel_statistics(images.sample() if isinstance(images, ShardImages) else images)
    return (0.0,), (1.0,)


def _try_one_image(net: nn.Module, image: Tensor) -> None:
    """Raise UsageError if batch normalisation would have a single value per channel."""
    try:
        net(image)
    except ValueError as error:
        raise UsageError(f"batch_size cannot be 1: batch normalisation needs more to train on ({error})") from error
