"""The settings of a training run; each field's text is also its help on the command line."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.limits import MAX_COUNT, MAX_EPOCHS, MAX_IMAGES
from cnnkit.core.schema import brief, reason_of

__all__ = ["MAX_RATE", "TrainConfig", "explain"]

MAX_RATE, MAX_POWER = 1e38, 1e4  # what float32 holds; an exponent
MAX_MINUTES, MAX_KEPT = 1e8, 10_000


class TrainConfig(BaseModel):
    """How to train; the defaults are the recipe `default`."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    epochs: int = Field(10, ge=1, le=MAX_EPOCHS)
    """Passes over the training images."""
    batch_size: int | Literal["auto"] = Field(64)
    """Images per step, over all processes; "auto" tries how many fit into memory."""
    accumulate: int = Field(1, ge=1, le=MAX_IMAGES)
    """Parts that a batch is computed in, one after the other, to save memory."""
    optimizer: Literal["sgd", "adam", "adamw", "rmsprop"] = "adamw"
    """How gradients become steps."""
    lr: float = Field(0.01, gt=0, le=MAX_RATE)
    """Learning rate; the peak, where the schedule changes it."""
    momentum: float = Field(0.0, ge=0, lt=1)
    """Momentum of sgd and rmsprop."""
    nesterov: bool = False
    """Nesterov's momentum, for sgd."""
    weight_decay: float = Field(0.01, ge=0, le=MAX_RATE)
    """Weight decay, not of biases and normalisations; adamw decouples it from the gradient."""
    schedule: Literal["constant", "cosine", "one-cycle", "poly", "step"] = "one-cycle"
    """Learning rate over time: the same; down along a cosine; up and down along a cosine; down as a power of the time
    left; or down in steps."""
    warm_up: float | None = Field(None, ge=0, le=MAX_EPOCHS)
    """Epochs in which the learning rate first rises to its peak; without it, a quarter of the run for one-cycle, else
    none."""
    lr_step: int = Field(30, ge=1, le=MAX_EPOCHS)
    """Epochs between the cuts of the schedule step."""
    lr_gamma: float = Field(0.1, gt=0, le=1)
    """What a cut of the schedule step multiplies the learning rate by."""
    lr_power: float = Field(1.0, gt=0, le=MAX_POWER)
    """Power of the schedule poly; 1 is a straight line."""
    clip: float | None = Field(None, gt=0, le=MAX_RATE)
    """Largest norm of the gradient; a larger one is scaled down to it."""
    ema: float | None = Field(None, gt=0, lt=1)
    """Keep a moving average of the weights, with this decay per step, such as 0.999; it is validated and kept."""
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """Share of a label's weight that is spread over all classes."""
    mixup: float = Field(0.0, ge=0, le=MAX_POWER)
    """Blend each image with another; the share follows Beta(mixup, mixup)."""
    cutmix: float = Field(0.0, ge=0, le=MAX_POWER)
    """Paste a box of another image into each; the share follows Beta(cutmix, cutmix). With mixup, one of the two."""
    class_weights: Literal["none", "balanced"] = "none"
    """Weigh the loss of each class: all the same, or by how rare it is in the training images."""
    norm_statistics: Literal["fresh", "moving"] = "fresh"
    """What batch normalisation predicts with: statistics measured on a few training batches before each validation,
    which belong to the weights; or moving averages over the steps, as in Keras and torch, which lag behind them."""
    freeze: tuple[str, ...] = ()
    """Stages or layers that keep their weights, such as stem "conv*"."""
    stage_lr: dict[str, Annotated[float, Field(ge=0, le=MAX_RATE)]] = Field({})
    """What to multiply the learning rate of some stages by: --stage-lr.stem 0.1."""
    init: Literal["torch", "glorot", "he"] = "torch"
    """Initial weights: torch's own, Glorot-uniform as in Keras, or He-normal, which deep ReLU networks without batch
    normalisation such as VGG-16 need; the latter two with zero biases."""
    standardize: bool = True
    """Shift and scale pixels to mean 0 and deviation 1 over the training images; without it they are 0-1."""
    raw_pixels: bool = False
    """Feed pixels as 0-255 and nothing else, as the chapter's run does."""
    augment: tuple[str, ...] = ()
    """Random changes of the training images: flip crop:4 rrc jitter:0.4 erase:0.25 trivial rand; `cnnkit data show`
    shows them."""
    validation: float = Field(0.1, ge=0, lt=1)
    """Share of the training images, of each class, set aside to choose the best epoch."""
    patience: int | None = Field(None, ge=1, le=MAX_EPOCHS)
    """Stop after this many epochs without a new best."""
    max_time: float | None = Field(None, gt=0, le=MAX_MINUTES)
    """Stop, with a checkpoint, after this many minutes of training."""
    skip_nan: int = Field(0, ge=0, le=MAX_COUNT)
    """Steps whose gradient is no number to leave out, at most, before giving up; looking costs time on a GPU."""
    engine: Literal["auto", "torch", "lanes"] = "auto"
    """What computes the steps: torch; lanes, for small networks on a CPU, which a C++ compiler is needed for; or
    "auto", the faster of the two, unless the training is a short one."""
    plan: str = "auto"
    """How steps are computed: "auto" tries what is fastest on this machine, unless the training is a short one; "off"
    leaves it to torch; or a file, such as an earlier run's plan.json."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """What the forward pass computes in; "auto" is fp32, or bf16 where the plan finds it much faster."""
    compile: bool = False
    """Compile the network with torch.compile before training."""
    sync_bn: bool = False
    """Batch normalisation over the images of all processes, not of each."""
    checkpoint_steps: int | None = Field(None, ge=1, le=MAX_COUNT)
    """Save a checkpoint after so many steps too, not only after each epoch."""
    checkpoint_minutes: float | None = Field(10, gt=0, le=MAX_MINUTES)
    """Save a checkpoint after so many minutes too."""
    keep: int = Field(2, ge=1, le=MAX_KEPT)
    """Checkpoints to keep: the last, and those before it."""
    seed: int = Field(0, ge=0, lt=2**31)
    """Seed of the weights, the order of the images, augmentation and dropout."""
    device: str = "auto"
    """cpu, cuda, cuda:1, mps, or auto."""

    @field_validator("batch_size")
    @classmethod
    def _possible(cls, value: int | str) -> int | str:
        if isinstance(value, int) and not 1 <= value <= MAX_IMAGES:
            raise ValueError(f"should be at least 1 and less than {MAX_IMAGES + 1}")
        return value

    @field_validator("augment", "freeze", mode="before")
    @classmethod
    def _words(cls, values: Any) -> Any:
        """Take "flip,crop:4" for two words."""
        words = (values,) if isinstance(values, str) else values
        if not isinstance(words, list | tuple) or not all(isinstance(word, str) for word in words):
            return values
        return tuple(part.strip() for word in words for part in word.split(",") if part.strip())

    @model_validator(mode="after")
    def _together(self) -> "TrainConfig":
        if self.nesterov and (self.optimizer != "sgd" or not self.momentum):
            raise ValueError("nesterov goes with --optimizer sgd and a --momentum above 0")
        return self


def explain(error: ValidationError, model: type[BaseModel]) -> UsageError:
    """Turn pydantic's report into one line per wrong setting: which, its value, and what it takes."""
    return UsageError("; ".join(dict.fromkeys(_explain(row, model) for row in error.errors())))


def _explain(row: Any, model: type[BaseModel]) -> str:
    name = ".".join(map(str, row["loc"][:2]))
    reason = reason_of(row)
    if not name:  # of several settings together
        return reason
    if name.startswith("batch_size."):
        return f"batch_size cannot be {brief(row['input'])}: it takes a number of images, or auto"
    if len(row["loc"]) > 2:  # one report for each type that would have been right
        return f"{name} cannot be {brief(row['input'])}: it takes a number from -1e9 to 1e9, true, false or a word"
    if row["type"] == "extra_forbidden":
        return str(unknown("setting", name, model.model_fields))
    if row["type"] == "literal_error":
        choices = row["ctx"]["expected"].replace(" or ", ", ").replace("'", "").split(", ")
        return str(unknown(name, str(row["input"]), choices))
    return f"{name} cannot be {brief(row['input'])}: {reason}"
