"""All settings of a run: those of the training, the network and the data."""

import os
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import Field, ValidationError, field_validator, model_validator

from cnnkit.core.errors import UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_CANVAS, MAX_COUNT, MAX_PIXELS, MAX_WORKERS
from cnnkit.core.places import expanded
from cnnkit.core.schema import Argument
from cnnkit.core.text import from_json, is_url
from cnnkit.experiment.recipes import recipe
from cnnkit.experiment.run_folder import read_toml
from cnnkit.train.config import TrainConfig, explain

__all__ = ["TABLES", "RunConfig", "merge", "resolve"]

TRUE = "true"  # in the place of a path
TABLES = ("model_kwargs", "stage_lr")  # settings that are tables themselves


class RunConfig(TrainConfig):
    """A run from start to end; saved as its config.toml."""

    net: Annotated[str, Parameter(parse=False)] = ""
    """A name from `cnnkit nets`."""
    data: str = "digits"
    """digits (in the package), fashion-mnist, mnist; a folder of images: CLASS/..., or train/CLASS/... and, where
    there are, val/CLASS/... and test/CLASS/...; an archive of one (.zip, .tar.gz); a CSV file with the columns path and
    label, and split if it has one; or tar shards: a folder, "x-{000..015}.tar", or a URL."""
    validation_data: str | None = None
    """Other data to choose the best epoch by, in the place of a share of the training images."""
    test_data: str | None = None
    """Other data to test on, in the place of the data's own test images."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files; without it: $CNNKIT_DATA, the cache, /usr/share/datasets, download."""
    recipe: str = "default"
    """The row of settings to start from, of those that `cnnkit recipes` prints."""
    image_size: int | None = Field(None, ge=1, le=MAX_CANVAS)
    """Pixels in height and width that the network sees; without it, its own size."""
    weights: str | None = None
    """Weights to start from, with the pixels that they are used to: a run folder, a bundle, a file of tensors (.pth,
    .pt, .safetensors) or its URL, or true for torchvision's. Another set of classes gets a new head, which knows those
    of the same name."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights (networks named .tv): --weights true."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share of the images, of each class, that is set aside for testing if the data have neither test nor val part."""
    split_seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the validation images; those for testing are always the same."""
    min_images: int = Field(0, ge=0, le=MAX_COUNT)
    """Leave out classes with fewer images to train on."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about an image that cannot be read: stop before training, or leave it out and say so."""
    max_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """The most pixels that an image may be decoded to; a larger one cannot be read."""
    workers: int | None = Field(None, ge=1, le=MAX_WORKERS)
    """Threads that decode images; without it, one for each processor."""
    tensorboard: bool = False
    """Write the run's tensorboard/ too, for TensorBoard to show."""
    model_kwargs: dict[str, Argument] = Field({})
    """Arguments of the network's builder: --model-kwargs.norm from_scratch."""

    @field_validator("model_kwargs", mode="before")
    @classmethod
    def _literal(cls, values: Any) -> Any:
        """Read "0.9" as a number and "true" as a truth value; a word stays one."""
        return {name: _parse(value) for name, value in values.items()} if isinstance(values, dict) else values

    @field_validator("model_kwargs")
    @classmethod
    def _the_builders_own(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values.keys() & {"name", "in_channels", "num_classes", "image_size", "pretrained"}:
            raise ValueError(f"{name} follows from the data, the network, --image-size or --pretrained")
        if values.get("head", "logits") != "logits":
            raise ValueError("training takes the network's logits: leave out head")
        return values

    @field_validator("weights", mode="before")
    @classmethod
    def _place(cls, weights: Any) -> Any:
        """Make the saved settings mean the same from every folder; "true" is no place."""
        if not isinstance(weights, str | os.PathLike):
            return TRUE if weights is True else weights or None
        if is_url(str(weights)):
            return str(weights)
        return TRUE if str(weights).lower() == TRUE else str(expanded(weights).absolute())

    @model_validator(mode="after")
    def _one_start(self) -> "RunConfig":
        if self.weights and self.pretrained:
            raise ValueError(f"weights {self.weights} and pretrained are two starts: leave out one")
        return self

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Make the saved settings mean the same from every folder."""
        return path and path.resolve()


def resolve(given: dict[str, Any]) -> RunConfig:
    """Return the settings in full: what is given, on top of its recipe, on top of the defaults.

    Raises UsageError that names each wrong setting and its value.
    """
    given = _with_those_of_weights(given)
    try:
        config = RunConfig(**(recipe(str(given.get("recipe", "default"))) | given))
    except ValidationError as error:
        raise explain(error, RunConfig) from error
    if not config.net:
        raise UsageError("which network? name one of the zoo, such as lenet; `cnnkit nets` lists them")
    return config


def merge(given: dict[str, Any], file: Path | None = None) -> RunConfig:
    """Return the settings in full: what is given on top of a TOML file on top of its recipe on top of the defaults.

    Raises UsageError for a file that cannot be read and as `resolve` does.
    """
    saved = read_toml(file) if file else {}
    if "recipe" in given and saved.get("recipe", given["recipe"]) != given["recipe"]:
        raise UsageError(f"{file} says recipe {saved['recipe']!r}, --recipe {given['recipe']!r}: leave out one")
    for table in TABLES:  # entry by entry, as the other settings
        if table in given and isinstance(saved.get(table), dict):
            given = given | {table: saved[table] | given[table]}
    return resolve(saved | given)


def _with_those_of_weights(given: dict[str, Any]) -> dict[str, Any]:
    """Return the settings with what the run or the bundle that they start from says of its network."""
    place = given.get("weights")
    if place is None or place is False:
        return given
    if str(place).lower() == TRUE:
        return {name: value for name, value in given.items() if name != "weights"} | {"pretrained": True}
    given = {"pretrained": False} | given  # whatever the recipe says
    if not isinstance(place, str | os.PathLike) or is_url(str(place)) or not expanded(place).is_dir():
        return given
    from cnnkit.deploy import read_bundle

    _, bundle = read_bundle(expanded(place))
    if given.get("net", bundle.net) != bundle.net:
        return given  # which is told when the weights are read
    height, width = bundle.image_size
    said = {"net": bundle.net} | ({"image_size": height} if height == width else {})
    arguments = {name: value for name, value in bundle.arguments.items() if name != "pretrained"}
    own = given.get("model_kwargs", {})
    return said | given | {"model_kwargs": arguments | own if isinstance(own, dict) else own}


def _parse(value: Any) -> Any:
    try:
        return from_json(value) if isinstance(value, str) else value
    except ValueError:
        return value
