"""Everything that a run needs except its folder: the network, the data and the settings, put together."""

from collections.abc import Set
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from cnnkit.core.allocator import keep_large_blocks
from cnnkit.core.device import pick_device, seed_everything
from cnnkit.core.errors import UsageError
from cnnkit.data import (
    Augment,
    Batches,
    Dataset,
    ImageSet,
    Preprocess,
    Reading,
    channel_statistics,
    open_dataset,
    place,
    with_parts,
)
from cnnkit.deploy import Bundle, published_preprocess
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.counts import about_classes
from cnnkit.experiment.division import draw_split, restore_split
from cnnkit.experiment.network import build_network
from cnnkit.experiment.record import UNUSED, Record, digest_of, known_content, own_record
from cnnkit.experiment.run_folder import RunFolder
from cnnkit.experiment.split_images import SplitImages
from cnnkit.experiment.start import START, Start, open_start, read_start
from cnnkit.nets import entry
from cnnkit.nets.foreign import foreign_name, is_foreign, require_same
from cnnkit.train import ALONE, World, initialise
from cnnkit.train.autotune.batch_size import fitting_batch

__all__ = ["DATA", "NOTHING", "START", "Given", "Job", "build", "eval_batch_size", "places"]

EVAL_PIXELS, EVAL_IMAGES = 2**22, 500  # at most, of a batch without a training step
DATA = ("data", "validation_data", "test_data")  # settings that name data
Size = tuple[int, int]


@dataclass(frozen=True)
class Given:
    """Arguments that only Python can pass; None falls back to the settings."""

    net: nn.Module | None = None
    data: Any = None
    validation_data: Any = None
    test_data: Any = None

    def places(self) -> dict[str, str]:
        """Return what the settings record of the given arguments."""
        names = {name: place(value) for name, value in self.data_by_name().items()}
        return names if self.net is None else names | {"net": foreign_name(self.net)}

    def data_by_name(self) -> dict[str, Any]:
        """Return the given data by the setting that they replace."""
        return {name: value for name in DATA if (value := getattr(self, name)) is not None}


NOTHING: Given = Given()


@dataclass(frozen=True)
class Job:
    """A net and its batches, with the complete settings."""

    config: RunConfig
    net: nn.Module
    training: Batches
    validation: Batches | None
    held_out: SplitImages
    """The images of `validation`, maybe none."""
    record: dict[str, Any]
    """Content of its split.json."""
    start: dict[str, Any]
    """Content of its start.json: the weights that it starts from, if not from random ones."""
    skipped: tuple[tuple[str, str], ...]
    remarks: tuple[str, ...]
    """Warnings about the data, shown before training."""
    bundle: Bundle
    stem: str
    """Prefix of the run folder's name."""


def build(
    config: RunConfig,
    world: World = ALONE,
    given: Given = NOTHING,
    earlier: RunFolder | None = None,
    progress: bool = True,
    allow_changed_data: bool = False,
) -> Job:
    """Build the net and read the data, so that every error is raised before there is a run folder.

    A resumed run has its folder in `earlier`: what it started from, its images, and its weights in a checkpoint;
    `allow_changed_data` lets it resume after its images have changed. `progress` shows the progress of reading.
    """
    keep_large_blocks()
    starts = "weights" if config.weights else "pretrained weights" if config.pretrained else ""
    if starts and (config.init != "torch" or config.raw_pixels):
        other = "raw_pixels" if config.raw_pixels else f"init {config.init!r}"
        raise UsageError(f"{other} cannot be combined with {starts}: remove one")
    size = _image_size(config, given)
    if config.augment:
        Augment(config.augment, size or (1, 1))  # reports a wrong name before the data are read
    device = pick_device(config.device, world.local_rank)
    config = config.model_copy(update=places(config))
    start = None if earlier and world.broadcast(earlier.has_begun) else open_start(config)
    origin = read_start(earlier) if earlier else {}
    record = own_record(earlier.path) if earlier else None
    before = start.before if start else UNUSED
    dataset = _read(config, given, size, before.used, record, allow_changed_data, progress and world.is_main)
    if record is None:
        division = draw_split(dataset, config, before)
    else:
        division = restore_split(record, dataset, config, allow_changed_data)
    training, validation = division.training, division.validation
    _, channels, height, width = training.storage.shape
    size = size or (height, width)
    channels = origin.get("in_channels") or (start.channels_for(channels) if start else channels)
    seed_everything(config.seed)
    net = build_network(config, given.net, channels, size, len(dataset.classes), world)
    initialise(net, config.init)
    preprocess = _preprocess(config, size, channels, training, start, origin)
    if start:
        origin = {"in_channels": channels, "mean": preprocess.mean, "std": preprocess.std, "source": start.source}
        origin["loaded"] = str(start.give(net, config, dataset.classes))
    net.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]  # a gap in torch's stubs
    batch_size = config.batch_size if isinstance(config.batch_size, int) else 0
    if not batch_size:
        batch_size = world.broadcast(fitting_batch(net, (channels, *size), len(training), config))
    config = config.model_copy(update={"image_size": size[0] if size[0] == size[1] else None, "batch_size": batch_size})
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
        test_fraction=0.0 if config.test_data else config.test,  # then nothing was held out
        validation_data=config.validation_data,
        test_data=config.test_data,
        data_sha256=dataset.sha256,
        split_sha256=digest_of(division.record),
        metrics={},
        versions=Bundle.current_versions(),
    )
    augment = Augment(config.augment, size) if config.augment else None
    where: dict[str, Any] = {"device": device, "shard": world.shard}
    weak = about_classes(dataset.classes, training, validation, division.test)
    return Job(
        config,
        net,
        Batches(training, batch_size, preprocess, seed=config.seed, augment=augment, **where),
        Batches(validation, eval_batch_size(max(size), world), preprocess, **where) if len(validation) else None,
        SplitImages(validation, dataset.name, True, (), ()),
        division.record,
        origin,
        dataset.skipped,
        (*dataset.remarks, *division.remarks, *weak),
        bundle,
        f"{type(given.net).__name__.lower() if given.net else config.net}-{Path(dataset.name).name}",
    )


def places(config: RunConfig) -> dict[str, str]:
    """Return the settings that name data, as paths that are valid from every folder."""
    return {name: place(value) for name in DATA if (value := getattr(config, name)) is not None}


def eval_batch_size(pixels: int, world: World = ALONE) -> int:
    """Return how many images of this height and width to predict at once: many for speed, few enough for memory."""
    return max(world.size, min(EVAL_IMAGES, EVAL_PIXELS // pixels**2))


def _image_size(config: RunConfig, given: Given) -> Size | None:
    """Return the input size of the network; None if it is that of the data."""
    if given.net is not None:
        if config.model_kwargs or config.pretrained:
            raise UsageError("model_kwargs and pretrained apply to networks of the zoo, not to a net that is passed in")
        require_same(given.net, config.net)  # a resumed run may be given another net
        return (config.image_size, config.image_size) if config.image_size else None
    if is_foreign(config.net):
        raise UsageError(
            f"the network {config.net.partition(':')[2]} is not in the zoo: pass it again, with cnnkit.fit(net=...)"
        )
    pixels = config.image_size or entry(config.net).input[1]  # reports a wrong name before the data are read
    return pixels, pixels


def _read(
    config: RunConfig,
    given: Given,
    size: Size | None,
    used: Set[str],
    record: Record | None,
    allow_changed: bool,
    progress: bool,
) -> Dataset:
    """Read the data: all of them for a new run, and the run's own images, wherever they are now, for a resumed one."""
    sources = {name: getattr(config, name) for name in DATA} | given.data_by_name()
    known = known_content(record)
    split = known is not None or sources["test_data"] is not None  # then nothing is held out for testing
    options = Reading(
        data_dir=config.data_dir,
        image_size=size,
        on_bad_image=config.on_bad_image,
        max_pixels=config.max_pixels,
        workers=config.workers,
        test_fraction=0.0 if split else config.test,
        min_images=config.min_images,
        used=used,
        only=None if allow_changed else known,
        progress=progress,
    )
    dataset = open_dataset(sources["data"], options)
    options = replace(options, data_dir=None, trainable=False)
    return with_parts(dataset, sources["validation_data"], sources["test_data"], options)


def _preprocess(
    config: RunConfig, size: Size, channels: int, training: ImageSet, start: Start | None, origin: dict[str, Any]
) -> Preprocess:
    """Return how pixels are shifted and scaled: as the initial weights expect, or by the training images."""
    if origin:
        mean, std = tuple(origin["mean"]), tuple(origin["std"])
    elif start and start.preprocess:
        mean, std = start.preprocess.mean, start.preprocess.std
    elif config.pretrained:  # a resumed run of an earlier version
        known = published_preprocess(config.net, channels)
        mean, std = known.mean, known.std
    elif config.raw_pixels:
        mean, std = (0.0,), (1 / 255,)
    else:
        mean, std = channel_statistics(training.images) if config.standardize else ((0.0,), (1.0,))
    if len(mean) > channels:
        mean, std = (sum(mean) / len(mean),), (sum(std) / len(std),)
    elif training.storage.shape[1] < channels:  # a grey image is repeated
        mean, std = (values * (channels // len(values)) for values in (mean, std))
    return Preprocess(size, mean, std)
