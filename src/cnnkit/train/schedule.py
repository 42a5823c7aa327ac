"""The learning rate as a function of the step alone, so that a checkpoint needs no state of it."""

import math
from collections.abc import Callable

from cnnkit.train.config import TrainConfig

__all__ = ["learning_rate"]

ONE_CYCLE, START = 0.25, 0.04  # warm-up's fraction of a one-cycle run; the fraction of the peak that it starts from

# fraction of the peak, given the settings, the epoch (fractional) and the progress (0 to 1) since the warm-up
SHAPES: dict[str, Callable[[TrainConfig, float, float], float]] = {
    "constant": lambda config, epoch, progress: 1.0,
    "cosine": lambda config, epoch, progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "one-cycle": lambda config, epoch, progress: 0.5 * (1 + math.cos(math.pi * progress)),
    "poly": lambda config, epoch, progress: (1 - progress) ** config.lr_power,
    "step": lambda config, epoch, progress: config.lr_gamma ** (int(epoch) // config.lr_step),
}


def learning_rate(config: TrainConfig, step: int, steps: int) -> float:
    """Return the learning rate of step number `step` (from 0), with `steps` per epoch.

    It rises linearly from START x peak during the warm-up and then follows `config.schedule`: "one-cycle" (after Smith
    and Topin 2018, super-convergence) is "cosine" (Loshchilov and Hutter 2017, one period) with a quarter of the run as
    warm-up.

    >>> config = TrainConfig(epochs=2, lr=1.0)
    >>> [round(learning_rate(config, step, 4), 2) for step in range(8)]
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    total = steps * config.epochs
    default = ONE_CYCLE * config.epochs if config.schedule == "one-cycle" else 0.0
    warm_up = steps * min(default if config.warm_up is None else config.warm_up, config.epochs)
    if step < warm_up:
        return config.lr * (START + (1 - START) * step / warm_up)
    progress = (step - warm_up) / max(total - warm_up, 1)
    return config.lr * SHAPES[config.schedule](config, step / steps, progress)
