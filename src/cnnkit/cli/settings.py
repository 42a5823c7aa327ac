"""All settings of `cnnkit train`: those of the training, the network and the data."""

import json
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from pydantic import Field, ValidationError, field_validator

from cnnkit.core.errors import UsageError
from cnnkit.train.config import TrainConfig, explain
from cnnkit.train.recipes import recipe

__all__ = ["RunConfig", "resolve"]


class RunConfig(TrainConfig):
    """A run from start to end; saved as its config.toml."""

    net: Annotated[str, Parameter(parse=False)] = ""
    """A name from `cnnkit nets`."""
    data: str = "digits"
    """digits (in the package), fashion-mnist, mnist; a folder of pictures: CLASS/..., or train/CLASS/... and, where
    there are, val/CLASS/... and test/CLASS/...; or tar shards: a folder, "x-{000..015}.tar", or a URL."""
    data_dir: Path | None = None
    """Folder of the data set's IDX files; without it: $CNNKIT_DATA, the cache, /usr/share/datasets, download."""
    recipe: str = "default"
    """The row of settings to start from, of those that `cnnkit recipes` prints."""
    image_size: int | None = Field(None, ge=1)
    """Pixels in height and width that the network sees; without it, its own size."""
    pretrained: bool = False
    """Start from torchvision's ImageNet weights (networks named .tv), with the pixels they are used to."""
    test: float = Field(0.1, gt=0, lt=1)
    """Share of the pictures, of each class, that is set aside for testing if the folder has no test/."""
    on_bad_image: Literal["error", "skip"] = "error"
    """What to do about a picture that cannot be read: stop before training, or leave it out and say so."""
    workers: int | None = Field(None, ge=1)
    """Threads that decode pictures; without it, one for each processor."""
    tensorboard: bool = False
    """Write the run's tensorboard/ too, for TensorBoard to show."""
    model_kwargs: dict[str, bool | int | float | str] = Field({})
    """Arguments of the network's builder: --model-kwargs.norm by_hand."""

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

    @field_validator("data_dir")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        """Make the saved settings mean the same from every folder."""
        return path and path.resolve()


def resolve(given: dict[str, Any]) -> RunConfig:
    """Return the settings in full: what is given, on top of its recipe, on top of the defaults.

    Raises UsageError that names each wrong setting and its value.
    """
    try:
        config = RunConfig(**(recipe(str(given.get("recipe", "default"))) | given))
    except ValidationError as error:
        raise explain(error, RunConfig) from error
    if not config.net:
        raise UsageError("which network? write cnnkit train NET; `cnnkit nets` lists them")
    return config


def _parse(value: Any) -> Any:
    try:
        return json.loads(value) if isinstance(value, str) else value
    except ValueError:
        return value
