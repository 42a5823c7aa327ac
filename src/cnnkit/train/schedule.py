"""The learning rate as a function of the step, so that a resumed run needs no memory of it."""

import math

__all__ = ["learning_rate"]

WARM_UP, START = 0.25, 0.04


def learning_rate(schedule: str, peak: float, step: int, total: int) -> float:
    """Return the learning rate of step number `step` (from 0) out of `total`.

    "constant" is `peak`. "one-cycle" rises linearly from START x peak over the first WARM_UP of the steps, then
    falls to zero along a cosine (after Smith and Topin 2018, super-convergence).

    >>> [round(learning_rate("one-cycle", 1.0, step, 8), 2) for step in range(8)]
    [0.04, 0.52, 1.0, 0.93, 0.75, 0.5, 0.25, 0.07]
    """
    if schedule == "constant":
        return peak
    warm_up = WARM_UP * total
    if step < warm_up:
        return peak * (START + (1 - START) * step / warm_up)
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warm_up) / (total - warm_up)))
