"""The settings of a training run; each field's text is also its help on the command line."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from cnnkit.core.errors import UsageError, unknown

__all__ = ["TrainConfig", "explain"]


class TrainConfig(BaseModel):
    """How to train; the defaults are the recipe `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: int = Field(10, ge=1)
    """Passes over the training images."""
    batch_size: int = Field(64, ge=1, lt=2**31)
    """Images per step."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    """How gradients become steps."""
    lr: float = Field(0.01, gt=0, allow_inf_nan=False)
    """Learning rate; the peak, where the schedule changes it."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    weight_decay: float = Field(0.01, ge=0)
    """Weight decay; adamw decouples it from the gradient."""
    schedule: Literal["constant", "one-cycle"] = "one-cycle"
    """Learning rate over time: the same, or up for a quarter of the run and down to zero along a cosine."""
    init: Literal["torch", "glorot", "he"] = "torch"
    """Initial weights: torch's own, Glorot-uniform as in Keras, or He-normal, which deep ReLU networks without batch
    normalisation such as VGG-16 need; the latter two with zero biases."""
    standardize: bool = True
    """Shift and scale pixels to mean 0 and deviation 1 over the training images; without it they are 0-1."""
    raw_pixels: bool = False
    """Feed pixels as 0-255 and nothing else, as the chapter's run does."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the training images, of each class, set aside to choose the best epoch."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the weights, the split, the order of the images and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""


def explain(error: ValidationError, model: type[BaseModel]) -> UsageError:
    """Turn pydantic's report into one line per wrong setting: which, its value, and what it takes."""
    return UsageError("; ".join(dict.fromkeys(_explain(row, model) for row in error.errors())))


def _explain(row: Any, model: type[BaseModel]) -> str:
    name = ".".join(map(str, row["loc"][:2]))
    if len(row["loc"]) > 2:  # one report for each type that would have been right
        return f"{name} cannot be {row['input']!r}: it takes a number, true, false or a word"
    if row["type"] == "extra_forbidden":
        return str(unknown("setting", name, model.model_fields))
    if row["type"] == "literal_error":
        choices = row["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return str(unknown(name, str(row["input"]), choices))
    return f"{name} cannot be {row['input']!r}: {row['msg'].removeprefix('Input ').removeprefix('Value error, ')}"
