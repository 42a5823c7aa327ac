"""`cnnkit train`: marry a network, a data set and the trainer in a run folder."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from cnnkit.cli.settings import RunConfig, resolve
from cnnkit.core.errors import DataError, Interrupted, UsageError
from cnnkit.train.record import Run, read_toml

if TYPE_CHECKING:
    from torch import Tensor, nn

    from cnnkit.data import Batches
    from cnnkit.deploy import Bundle
    from cnnkit.train import EpochRecord

__all__ = ["train"]


def train(
    net: str | None = None,
    *,
    config: Annotated[Path | None, Parameter(alias="-c")] = None,
    resume: Path | None = None,
    output: Path = Path("runs"),
    settings: Annotated[RunConfig, Parameter(name="*")] = RunConfig(),  # noqa: B008  frozen
) -> None:
    """Train a network and keep the best of it.

    The run gets a folder of its own: settings, log, metrics, the split, `last.ckpt` to resume from, and
    `best/`, the weights of the best validation accuracy, for `evaluate` and `predict`. Ctrl-C saves and leaves.

    Parameters
    ----------
    net
        A name from `cnnkit nets`.
    config
        A TOML file of settings, such as a run's config.toml; flags override it, it overrides the recipe.
    resume
        A run folder to continue from its last checkpoint, with its own settings.
    output
        Where run folders are made.
    """
    given = settings.model_dump(include=settings.model_fields_set) | ({"net": net} if net else {})
    if resume is None:
        file = read_toml(config) if config else {}
        if "recipe" in given and file.get("recipe", given["recipe"]) != given["recipe"]:
            raise UsageError(f"{config} says recipe {file['recipe']!r}, --recipe {given['recipe']!r}: leave out one")
        if "model_kwargs" in given and isinstance(file.get("model_kwargs"), dict):  # one by one, as the other settings
            given["model_kwargs"] = file["model_kwargs"] | given["model_kwargs"]
        job = _prepare(resolve(file | given))
        stem = f"{job.config.net}-{job.config.data}"
        run = Run.create(output, stem, job.config.model_dump(mode="json"))
        run.write_json("split.json", job.split)
    else:
        if given or config:
            others = ", ".join(given or ["config"])
            raise UsageError(f"--resume takes the run's own settings; leave the others out: {others}")
        run = Run.open(resume)
        job = _prepare(resolve(run.settings()), resumed=True)
        if run.read_json("split.json") != job.split:
            raise DataError(f"{job.config.data} is not the data that {run.path} was split from (split.json)")
    _train(job, run, resume is not None)


@dataclass(frozen=True)
class _Job:
    """All that a training needs but a place."""

    config: RunConfig
    net: "nn.Module"
    training: "Batches"
    validation: "Batches | None"
    split: dict[str, Any]
    bundle: "Bundle"


def _prepare(config: RunConfig, resumed: bool = False) -> _Job:
    """Build the net and read the data; whatever is wrong shows here, before there is a run folder.

    A resumed run has its weights in its checkpoint.
    """
    import torch

    from cnnkit.core.device import pick_device, seed_everything
    from cnnkit.data import Batches, ImageSet, Preprocess, channel_statistics, load_dataset, stratified_split
    from cnnkit.deploy import Bundle, published_preprocess
    from cnnkit.nets import create, entry
    from cnnkit.train import initialise

    if config.pretrained and (config.init != "torch" or config.raw_pixels):
        other = "raw_pixels" if config.raw_pixels else f"init {config.init!r}"
        raise UsageError(f"{other} does not go with pretrained weights: leave out one of the two")
    own_size = entry(config.net).input[1]  # a wrong name is told before the data is read
    pixels = config.image_size or own_size
    config = config.model_copy(update={"image_size": pixels})
    device = pick_device(config.device)
    dataset = load_dataset(config.data, config.data_dir)
    channels = dataset.train.images.shape[1]
    seed_everything(config.seed)
    arguments: dict[str, Any] = config.model_kwargs | {
        "in_channels": channels,
        "num_classes": len(dataset.classes),
        "image_size": pixels,
    }
    if config.batch_size == 1:
        with torch.device("meta"):
            _try_one_image(create(config.net, **arguments), torch.empty(1, channels, pixels, pixels))
    net = create(config.net, pretrained=config.pretrained and not resumed, **arguments)
    initialise(net, config.init)
    rows = stratified_split(dataset.train.labels, config.validation, config.seed)
    training, validation = (ImageSet(dataset.train.images[r], dataset.train.labels[r]) for r in rows)
    if not len(training):
        raise UsageError(f"validation {config.validation} leaves no image to train on")
    split = {"seed": config.seed, "validation": rows[1].tolist()}
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    if config.raw_pixels:
        std = (1 / 255,)
    elif config.pretrained:
        known = published_preprocess(config.net, channels)
        mean, std = known.mean, known.std
    elif config.standardize:
        mean, std = channel_statistics(training.images)
    preprocess = Preprocess((pixels, pixels), mean, std)
    bundle = Bundle(
        net=config.net,
        arguments=config.model_kwargs,
        in_channels=channels,
        image_size=preprocess.image_size,
        classes=dataset.classes,
        mean=mean,
        std=std,
        data=config.data,
        data_dir=config.data_dir and str(config.data_dir),
        split_sha256=hashlib.sha256(json.dumps(split).encode()).hexdigest(),
        metrics={},
        versions=Bundle.current_versions(),
    )
    return _Job(
        config,
        net.to(device, memory_format=torch.channels_last),  # type: ignore[call-overload]  # a gap in torch's stubs
        Batches(training, config.batch_size, preprocess, device=device, seed=config.seed),
        Batches(validation, 500, preprocess, device=device) if len(validation) else None,
        split,
        bundle,
    )


def _try_one_image(net: "nn.Module", image: "Tensor") -> None:
    """Raise UsageError if batch normalisation would have a single value per channel."""
    try:
        net(image)
    except ValueError as error:
        raise UsageError(f"batch_size cannot be 1: batch normalisation needs more to train on ({error})") from error


def _train(job: _Job, run: Run, resume: bool) -> None:
    from cnnkit.cli.progress import Display
    from cnnkit.deploy import save_bundle
    from cnnkit.train import Trainer

    def save_best(net: "nn.Module", record: "EpochRecord") -> None:
        metrics = {"epoch": record.epoch, "val_loss": record.val_loss, "val_accuracy": record.val_accuracy}
        save_bundle(run.best, net, job.bundle.model_copy(update={"metrics": metrics}))

    with run.locked(), Display(run, job.config.epochs) as display:
        trainer = Trainer(
            job.net,
            job.training,
            job.validation,
            job.config,
            checkpoint=run.checkpoint,
            observer=display,
            save_best=save_best,
        )
        if resume:
            trainer.resume()
            run.drop_metrics_from(trainer.epoch)
        validation = f"{job.validation.num_images:,} to choose the best epoch by" if job.validation else "none aside"
        display.say(
            f"{job.config.net} on {job.config.data}: {job.training.num_images:,} images to train on, {validation}, "
            f"on {job.training.labels.device}\nrun folder: {run.path}"
        )
        try:
            trainer.run()
        except Interrupted as stop:
            raise Interrupted(f"{stop}; go on with: cnnkit train --resume {run.path}") from stop
        display.say(f"done; the best weights are in {run.best}\nnext: cnnkit evaluate {run.path}")
