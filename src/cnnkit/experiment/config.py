"""The settings of a run: training, network and data."""

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

TRUE = "true"  # instead of a path
TABLES = ("model_kwargs", "stage_lr")  # settings that are tables themselves


class RunConfig(TrainConfig):
    """Settings of a whole run; saved as its config.toml."""

    net: Annotated[str, Parameter(parse=False)] = ""
    """Network name; `cnnkit nets` lists them."""
    data: str = "digits"
    """Data set: digits (included), fashion-mnist or mnist; a folder CLASS/..., or train/CLASS/... with optional val/
    and test/; an archive of one (.zip, .tar.gz); a CSV file with columns path, label and optionally split; or tar
    shards: a folder, "x-{000..015}.tar" or a URL."""
    validation_data: str | None = None
    """Choose the best epoch on this data set instead of on a share of the training images."""
    test_data: str | None = None
    """Test on this data set instead of on the test images of --data."""
    data_dir: Path | None = None
    """Folder of IDX files; by default search in $CNNKIT_DATA, the cache and /usr/share/datasets, then download."""
    recipe: str = "default"
    """Recipe to start from; `cnnkit recipes` lists them."""
    image_size: int | None = Field(None, ge=1, le=MAX_CANVAS)
    """Resize images to this height and width in pixels; by default the network's input size."""
    weights: str | None = None
    """Start from these weights and their pixel normalisation: a run folder, a bundle, a weights file (.pth, .pt,
    .safetensors) or its URL, or true for torchvision's. If the classes differ, the head is new, except for classes of
    the same name."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights (networks named .tv), as --weights true does."""
    test: float = Field(0.1, gt=0, lt=1)
    """Hold out this share of the images of each class for testing if the data have no test and no validation split."""
    split_seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the validation split; the test split does not depend on it."""
    min_images: int = Field(0, ge=0, le=MAX_COUNT)
    """Skip classes with fewer training images than this."""
    on_bad_image: Literal["error", "skip"] = "error"
    """Stop before training if an image cannot be read, or skip the image and report it."""
    max_pixels: int = Field(DEFAULT_MAX_PIXELS, ge=1, le=MAX_PIXELS)
    """Treat images that decode to more pixels than this as unreadable."""
    workers: int | None = Field(None, ge=1, le=MAX_WORKERS)
    """Number of threads that decode images; by default one per processor."""
    tensorboard: bool = False
    """Write TensorBoard logs to the run's tensorboard/."""
    model_kwargs: dict[str, Argument] = Field({})
    """Pass arguments to the network's builder: --model-kwargs.norm from_scratch."""

    @field_validator("model_kwargs", mode="before")
    @classmethod
    def _literal(cls, values: Any) -> Any:
        """Parse "0.9" as a number and "true" as a bool; keep words."""
        return {name: _parse(value) for name, value in values.items()} if isinstance(values, dict) else values

    @field_validator("model_kwargs")
    @classmethod
    def _the_builders_own(cls, values: dict[str, Any]) -> dict[str, Any]:
        for name in values.keys() & {"name", "in_channels", "num_classes", "image_size", "pretrained"}:
            raise ValueError(f"{name} is set by the data, the network, --image-size or --pretrained")
        if values.get("head", "logits") != "logits":
            raise ValueError("training needs logits: remove head")
        return values

    @field_validator("weights", mode="before")
    @classmethod
    def _place(cls, weights: Any) -> Any:
        """Make a path absolute, as the working folder may differ when the settings are read again."""
        if not isinstance(weights, str | os.PathLike):
            return TRUE if weights is True else weights or None
        if is_url(str(weights)):
            return str(weights)
        return TRUE if str(weights).lower() == TRUE else str(expanded(weights).absolute())

    @model_validator(mode="after")
    def _one_start(self) -> "RunConfig":
        if self.weights and self.pretrained:
            raise ValueError(f"weights {self.weights} and pretrained cannot be combined: remove one")
        return self

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return path and path.resolve()


def resolve(given: dict[str, Any], saved: dict[str, Any] | None = None, file: Path | None = None) -> RunConfig:
    """Return all settings: `given` overrides those `saved` in a file, its recipe, and the defaults.

    Raises UsageError that names each wrong setting and its value.
    """
    own, given = given.keys(), _with_those_of_weights((saved or {}) | given)
    try:
        config = RunConfig(**(recipe(str(given.get("recipe", "default"))) | given))
    except ValidationError as error:
        raise explain(error, RunConfig, file, (saved or {}).keys() - own) from error
    if not config.net:
        raise UsageError("no network given; name one, such as lenet (`cnnkit nets` lists them)")
    return config


def merge(given: dict[str, Any], file: Path | None = None) -> RunConfig:
    """Return all settings: `given` overrides a TOML file, which overrides its recipe and the defaults.

    Raises UsageError as `resolve` does, and for a file that cannot be read.
    """
    saved = read_toml(file) if file else {}
    if "recipe" in given and saved.get("recipe", given["recipe"]) != given["recipe"]:
        raise UsageError(f"{file} has recipe {saved['recipe']!r}, but --recipe is {given['recipe']!r}: remove one")
    for table in TABLES:  # merged entry by entry
        if table in given and isinstance(saved.get(table), dict):
            given = given | {table: saved[table] | given[table]}
    return resolve(given, saved, file)


def _with_those_of_weights(given: dict[str, Any]) -> dict[str, Any]:
    """Add the network settings of the run or bundle that `weights` names, where they are not given."""
    place = given.get("weights")
    if place is None or place is False:
        return given
    if str(place).lower() == TRUE:
        return {name: value for name, value in given.items() if name != "weights"} | {"pretrained": True}
    given = {"pretrained": False} | given  # overrides the recipe
    if not isinstance(place, str | os.PathLike) or is_url(str(place)) or not expanded(place).is_dir():
        return given
    from cnnkit.deploy import read_bundle

    _, bundle = read_bundle(expanded(place))
    if given.get("net", bundle.net) != bundle.net:
        return given  # reported when the weights are read
    height, width = bundle.image_size
    saved = {"net": bundle.net} | ({"image_size": height} if height == width else {})
    arguments = {name: value for name, value in bundle.arguments.items() if name != "pretrained"}
    own = given.get("model_kwargs", {})
    return saved | given | {"model_kwargs": arguments | own if isinstance(own, dict) else own}


def _parse(value: Any) -> Any:
    try:
        return from_json(value) if isinstance(value, str) else value
    except ValueError:
        return value
