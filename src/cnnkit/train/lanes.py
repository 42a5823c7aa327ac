"""Training in lanes: why a run cannot use them, and the stepper that uses them."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from cnnkit import lanes
from cnnkit.data.batches import Batches
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import ALONE, World
from cnnkit.train.norms import Moments, Norm
from cnnkit.train.step import Step, Stepper

__all__ = ["LaneStepper", "image_size", "make_stepper", "unsupported_reason"]

CHUNK_SECONDS, CHUNK_STEPS = 0.05, 512  # limits of the steps that one call takes

# Settings with which lanes compute what torch does. Any other setting must have its default value.
HONOURED = {
    *("epochs", "batch_size", "lr", "momentum", "nesterov", "weight_decay", "stage_lr", "label_smoothing"),
    *("schedule", "warm_up", "lr_step", "lr_gamma", "lr_power", "init", "standardize", "raw_pixels", "augment"),
    *("norm_statistics", "sync_bn", "validation", "patience", "max_time", "checkpoint_steps", "checkpoint_minutes"),
    *("keep", "seed", "engine", "plan", "device"),
}
HONOURED_VALUES = {"optimizer": ("sgd", "adam", "adamw"), "precision": ("auto", "fp32")}

Image = tuple[int, int, int]  # C, H, W


def unsupported_reason(net: nn.Module, image: Image, config: TrainConfig, train: Batches | None = None) -> str | None:
    """Return why `net` cannot be trained in lanes, on images C x H x W with these settings, or None if it can."""
    others = {name: field.default for name, field in TrainConfig.model_fields.items() if name not in HONOURED}
    if refused := [
        f"{name}={getattr(config, name)}"
        for name, default in others.items()
        if getattr(config, name) not in HONOURED_VALUES.get(name, (default,))
    ]:
        return f"unsupported settings: {', '.join(refused)}"
    if next(net.parameters()).device.type != "cpu":
        return "the network is not on the CPU"
    if train and train.world > 1:
        return "more than one process trains"
    if train and not train.in_memory:
        return "the images are not in memory but read while training"
    return lanes.unsupported_reason(net, image)


class LaneStepper(Stepper):
    """A stepper that takes many steps per call, for about a twentieth of a second, on images C x H x W.

    Pixels p of uint8 images become p * scale + shift; float images are used unchanged.
    """

    def __init__(
        self,
        net: nn.Module,
        config: TrainConfig,
        plan: Plan,
        image: Image,
        scale: Tensor | float,
        shift: Tensor | float,
    ):
        super().__init__(net, config, plan=plan)
        self.max_steps = 1  # per call; it grows
        self.engine = lanes.Engine(self.net, image, scale=scale, shift=shift, threads=plan.threads)

    def read(self, batches: Batches, epoch: int, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield an epoch's batches from index `first` on in chunks: number of batches, images, labels."""
        due = self.config.checkpoint_steps or len(batches)
        while first < len(batches):
            start = time.monotonic()
            count = min(self.max_steps, len(batches) - first, due - first % due)
            yield count, *batches.stretch(epoch, first, count)
            first += count
            if count == self.max_steps and time.monotonic() - start < CHUNK_SECONDS / 2:
                self.max_steps = min(2 * self.max_steps, CHUNK_STEPS)

    @property
    def predict(self) -> Callable[[Tensor], Tensor]:
        """The function that computes the net's logits, in prediction mode."""
        return self.engine.predict

    def _measure(self, norms: Sequence[Norm], x: Tensor) -> dict[nn.Module, Moments]:
        found = self.engine.measure(x)
        return {norm: Moments(count, mean, count * variance) for norm, (count, mean, variance) in found.items()}

    def take(self, steps: Sequence[Step], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take a step on each of the consecutive batches in x, y; return their losses and numbers of correct images."""
        with record_function("lanes"):  # for the profiler, which otherwise sees only torch's operators
            losses, correct = self.engine.train(
                x,
                y,
                [step.images for step in steps],
                self.optimizer,
                [step.lr for step in steps],
                seeds=[step.seed for step in steps],
                smoothing=self.config.label_smoothing,
            )
        return losses.to(torch.float32), correct


def image_size(train: Batches) -> Image:
    """Return the size C x H x W of the network's input."""
    return (train.preprocess.channels(train.images.shape[1]), *train.preprocess.image_size)


def make_stepper(
    net: nn.Module,
    config: TrainConfig,
    plan: Plan,
    image: Image,
    pixels: tuple[Tensor | float, Tensor | float] = (1 / 255, 0.0),
    world: World = ALONE,
    class_weights: Tensor | None = None,
) -> Stepper:
    """Return the stepper of the plan for images C x H x W; `pixels` are LaneStepper's scale and shift."""
    if plan.engine == "torch":
        return Stepper(net, config, world, class_weights, plan)
    return LaneStepper(net, config, plan, image, *pixels)
