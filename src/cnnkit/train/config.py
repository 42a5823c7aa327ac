"""The settings of a training run; each field's docstring is also its help on the command line."""

from collections.abc import Set
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.limits import MAX_COUNT, MAX_EPOCHS, MAX_IMAGES
from cnnkit.core.schema import brief, describe, reason_of

__all__ = ["MAX_RATE", "TrainConfig", "explain"]

MAX_RATE, MAX_POWER = 1e38, 1e4  # the range of float32; an exponent
MAX_MINUTES, MAX_KEPT = 1e8, 10_000


class TrainConfig(BaseModel):
    """Training settings; the defaults are the recipe `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: int = Field(10, ge=1, le=MAX_EPOCHS)
    """Train for this many passes over the training images."""
    batch_size: Annotated[int, Field(ge=1, le=MAX_IMAGES)] | Literal["auto"] = 64
    """Images per step, summed over all processes; "auto" finds a size that fits into memory."""
    accumulate: int = Field(1, ge=1, le=MAX_IMAGES)
    """Split each batch into this many micro-batches and accumulate their gradients, to save memory."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    """Optimiser that updates the weights."""
    lr: float = Field(0.01, gt=0, le=MAX_RATE)
    """Learning rate; the peak if the schedule varies it."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    nesterov: bool = False
    """Use Nesterov momentum, with sgd."""
    weight_decay: float = Field(0.01, ge=0, le=MAX_RATE)
    """Weight decay of all weights except biases and normalisation; adamw decouples it from the gradient."""
    schedule: Literal["constant", "cosine", "one-cycle", "poly", "step"] = "one-cycle"
    """Learning rate schedule: constant, cosine decay, one cycle up and down, polynomial decay, or decay in steps."""
    warm_up: float | None = Field(None, ge=0, le=MAX_EPOCHS)
    """Warm up the learning rate for this many epochs; by default a quarter of the run for one-cycle, else none."""
    lr_step: int = Field(30, ge=1, le=MAX_EPOCHS)
    """Epochs between two decays of the step schedule."""
    lr_gamma: float = Field(0.1, gt=0, le=1)
    """Multiply the learning rate by this at each decay of the step schedule."""
    lr_power: float = Field(1.0, gt=0, le=MAX_POWER)
    """Power of the poly schedule; 1 is linear."""
    clip: float | None = Field(None, gt=0, le=MAX_RATE)
    """Clip the gradient norm to this value."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Validate and save a moving average of the weights, with this decay per step, such as 0.999."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Spread this share of each label over all classes."""
    mixup: float = Field(0.0, ge=0, le=MAX_POWER)
    """Blend each image with another, in a ratio drawn from Beta(mixup, mixup); 0 is off."""
    cutmix: float = Field(0.0, ge=0, le=MAX_POWER)
    """Paste a box of another image into each, its area drawn from Beta(cutmix, cutmix); 0 is off. If mixup is on too,
    each batch gets one of the two at random."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weight the classes in the loss: equally, or in inverse proportion to their number of training images."""
    norm_statistics: Literal["fresh", "moving"] = "fresh"
    """Statistics that batch normalisation predicts with: fresh ones, measured on a few training batches before each
    validation, or moving averages over the steps, as in Keras and torch, which lag behind the weights."""
    freeze: tuple[str, ...] = ()
    """Freeze the weights of these stages or layers, such as stem or "conv*"."""
    stage_lr: dict[str, Annotated[float, Field(ge=0, le=MAX_RATE)]] = Field({})
    """Multiply the learning rate of a stage: --stage-lr.stem 0.1."""
    init: Literal["torch", "glorot", "he"] = "torch"
    """Initial weights: torch's defaults; Glorot uniform, as in Keras; or He normal, which deep ReLU networks without
    batch normalisation need, such as VGG-16. Glorot and He set biases to 0."""
    standardize: bool = True
    """Normalise pixels to mean 0 and standard deviation 1 over the training images, instead of to 0-1."""
    raw_pixels: bool = False
    """Feed pixels as 0-255, without normalisation; overrides --standardize."""
    augment: tuple[str, ...] = ()
    """Augment the training images, such as flip,crop:4: flip, crop, rrc (random resized crop), jitter, erase, trivial
    (TrivialAugment), rand (RandAugment); preview: `cnnkit data show`."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Hold out this share of the training images of each class to choose the best epoch."""
    patience: int | None = Field(None, ge=1, le=MAX_EPOCHS)
    """Stop after this many epochs without a new best epoch."""
    max_time: float | None = Field(None, gt=0, le=MAX_MINUTES)
    """Save a checkpoint and stop after this many minutes of training."""
    skip_nan: int = Field(0, ge=0, le=MAX_COUNT)
    """Skip up to this many steps with NaN/Inf gradients before failing; the check synchronises the GPU."""
    engine: Literal["auto", "torch", "lanes"] = "auto"
    """Compute steps with torch, or with lanes, cnnkit's own compiled C++ engine for small networks on a CPU, which
    needs a C++ compiler; "auto" picks the faster one, or torch if the run is short."""
    plan: str = "auto"
    """Execution plan of a step: "auto" benchmarks this machine, unless the run is short; "off" uses torch's
    defaults; or a file, such as an earlier run's plan.json."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Precision of the forward pass; "auto" is fp32, or bf16 if the plan finds it much faster."""
    compile: bool = False
    """Compile the network with torch.compile before training."""
    sync_bn: bool = False
    """Synchronise batch normalisation over all processes."""
    checkpoint_steps: int | None = Field(None, ge=1, le=MAX_COUNT)
    """Interval in steps between checkpoints, in addition to those after each epoch."""
    checkpoint_minutes: float | None = Field(10, gt=0, le=MAX_MINUTES)
    """Interval in minutes between checkpoints, in addition to those after each epoch."""
    keep: int = Field(2, ge=1, le=MAX_KEPT)
    """Keep this many of the latest checkpoints."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed for the initial weights, the order of the images, augmentation and dropout."""
    device: str = "auto"
    """Device: cpu, cuda, cuda:1, mps or auto."""

    @field_validator("augment", "freeze", mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        """Split "flip,crop:4" into two words."""
        words = (values,) if isinstance(values, str) else values
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            return values
        return tuple(part.strip() for word in words for part in word.split(",") if part.strip())

    @model_validator(mode="after")
    def _together(self) -> "TrainConfig":
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov needs --optimizer sgd and a --momentum above 0")
        return self


def explain(
    error: ValidationError, model: type[BaseModel], file: Path | None = None, saved: Set[str] = frozenset()
) -> UsageError:
    """Return pydantic's report as a UsageError: for each wrong setting its name, what it must be, and its value.

    The settings `saved` are from `file`.
    """
    lines = [(f"{file}: " if saved & {*row["loc"][:1]} else "") + _explain(row, model) for row in error.errors()]
    return UsageError("; ".join(dict.fromkeys(lines)))


def _explain(row: Any, model: type[BaseModel]) -> str:
    name = ".".join(map(str, row["loc"][:2]))
    if not name:  # settings that contradict each other
        return reason_of(row)
    if name.startswith("batch_size."):
        return f"batch_size must be an integer from 1 to {MAX_IMAGES:,}, or auto, not {brief(row['input'])}"
    if len(row["loc"]) > 2:  # one report for each type of a union
        return f"{name} must be a number from -1e9 to 1e9, true, false or a word, not {brief(row['input'])}"
    if row["type"] == "extra_forbidden":
        return str(unknown("setting", name, model.model_fields))
    if row["type"] == "literal_error":
        choices = row["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return str(unknown(name, str(row["input"]), choices))
    return describe(row)
