"""The learning-rate range test: one short run in which the rate grows until the loss explodes (Smith 2017)."""

import copy
import math
from collections.abc import Iterator
from itertools import count, pairwise

from torch import Tensor, nn

from cnnkit.core.device import mix_seed
from cnnkit.core.errors import CnnkitError
from cnnkit.data.batches import Batches
from cnnkit.train.config import TrainConfig
from cnnkit.train.step import Step, Stepper

__all__ = ["lr_range_test", "suggest_lr"]

SMOOTHING = 0.9  # decay of the losses' moving average
LAG = 9  # steps that the average lags behind: SMOOTHING / (1 - SMOOTHING)
EXPLODED = 4.0  # times the lowest loss


def lr_range_test(
    net: nn.Module, batches: Batches, config: TrainConfig, lowest: float, highest: float, steps: int
) -> Iterator[tuple[float, float]]:
    """Train a copy of `net` for `steps` steps while the learning rate grows geometrically from `lowest` to `highest`.

    Yield (learning rate, smoothed loss) after each step; stop early when the loss is NaN/Inf or EXPLODED times its
    minimum. Raises CnnkitError if the first loss is NaN/Inf.
    """
    stepper = Stepper(copy.deepcopy(net), config)
    stepper.train()
    average, least = 0.0, math.inf
    for number, (x, y, images) in zip(range(steps), _endless(batches), strict=False):
        lr = lowest * (highest / lowest) ** (number / max(steps - 1, 1))
        loss = stepper(Step(number, lr, mix_seed(config.seed, number), images), x, y)[0].item()
        if not math.isfinite(loss):
            if number == 0:
                raise CnnkitError("the first loss is already NaN/Inf: check the data with `cnnkit data show`")
            return
        average = SMOOTHING * average + (1 - SMOOTHING) * loss
        smooth = average / (1 - SMOOTHING ** (number + 1))
        least = min(least, smooth)
        yield lr, smooth
        if smooth > EXPLODED * least:
            return


def suggest_lr(points: list[tuple[float, float]]) -> float:
    """Return the learning rate at which the loss of a range test falls most steeply before its minimum.

    The smoothed loss lags LAG steps behind, so the rate is that of LAG steps earlier. Raises CnnkitError if the loss
    never falls.
    """
    settled = points[len(points) // 10 :]  # the average of a few losses is noise
    least = min(range(len(settled)), key=lambda index: settled[index][1])
    slopes = [
        ((after - before) / math.log(right / left), left)
        for (left, before), (right, after) in pairwise(settled[: least + 1])
    ]
    if not slopes or min(slopes)[0] >= 0:
        raise CnnkitError("the loss never falls: try other --low and --high, more --steps, or another network")
    rates = [lr for lr, _ in points]
    return rates[max(rates.index(min(slopes)[1]) - LAG, 0)]


def _endless(batches: Batches) -> Iterator[tuple[Tensor, Tensor, int]]:
    for epoch in count(1):
        for (x, y), images in zip(batches.epoch(epoch), batches.sizes, strict=True):
            yield x, y, images
