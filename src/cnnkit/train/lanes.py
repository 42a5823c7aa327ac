"""Steps in lanes: when a training can be computed there, and the stepper that does."""

import time
from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor, nn
from torch.profiler import record_function

from cnnkit.data.batches import Batches
from cnnkit.lanes import Engine, obstacle
from cnnkit.train.autotune.plan import Plan
from cnnkit.train.config import TrainConfig
from cnnkit.train.distributed import ALONE, World
from cnnkit.train.norms import Moments, Norm
from cnnkit.train.step import Step, Stepper

__all__ = ["LaneStepper", "hindrance", "image_size", "make_stepper"]

STRETCH_SECONDS, STRETCH_STEPS = 0.05, 512  # of steps that are taken at once

Image = tuple[int, int, int]  # C, H, W


def hindrance(net: nn.Module, image: Image, config: TrainConfig, train: Batches | None = None) -> str | None:
    """Return why `net` cannot be trained in lanes, on images C x H x W under these settings, or None if it can."""
    settings = {
        "precision": config.precision in ("bf16", "fp16"),
        "optimizer": config.optimizer == "rmsprop",
        "accumulate": config.accumulate > 1,
        "class_weights": config.class_weights != "none",
    }
    settings |= {name: bool(getattr(config, name)) for name in ("clip", "compile", "cutmix", "ema", "freeze", "mixup")}
    settings["skip_nan"] = config.skip_nan > 0
    if asked := [name for name, other in settings.items() if other]:
        return f"lanes have no {', '.join(asked)}"
    if next(net.parameters()).device.type != "cpu":
        return "lanes compute on the CPU"
    if train and train.world > 1:
        return "lanes compute in one process"
    if train and not train.in_memory:
        return "lanes take images that are in memory, not such that are read while training"
    return obstacle(net, image)


class LaneStepper(Stepper):
    """A stepper that takes many steps at once, for a twentieth of a second, on images of a size C x H x W.

    Pixels of uint8 images are multiplied by `scale`, and `shift` is added; floats are taken as they are.
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
        self.most = 1  # steps at once; it grows
        self.engine = Engine(self.net, image, scale=scale, shift=shift, threads=plan.threads)

    def read(self, batches: Batches, epoch: int, first: int) -> Iterator[tuple[int, Tensor, Tensor]]:
        """Yield an epoch's batches from number `first` on: how many are taken at once, their images and labels."""
        due = self.config.checkpoint_steps or len(batches)
        while first < len(batches):
            start = time.monotonic()
            count = min(self.most, len(batches) - first, due - first % due)
            yield count, *batches.stretch(epoch, first, count)
            first += count
            if count == self.most and time.monotonic() - start < STRETCH_SECONDS / 2:
                self.most = min(2 * self.most, STRETCH_STEPS)

    @property
    def predict(self) -> Callable[[Tensor], Tensor]:
        """What computes the net's logits, in prediction mode."""
        return self.engine.predict

    def _measure(self, norms: Sequence[Norm], x: Tensor) -> dict[nn.Module, Moments]:
        found = self.engine.measure(x)
        return {norm: Moments(count, mean, count * variance) for norm, (count, mean, variance) in found.items()}

    def take(self, steps: Sequence[Step], x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Take steps on the batches that follow one another in x, y; return each one's loss and correct images."""
        with record_function("lanes"):  # for the profiler, which sees torch's operators
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
    """Return the size C x H x W of the images that the network is given."""
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
    """Return what takes steps on images C x H x W by the plan; `pixels` are LaneStepper's scale and shift."""
    if plan.engine == "torch":
        return Stepper(net, config, world, class_weights, plan)
    return LaneStepper(net, config, plan, image, *pixels)
