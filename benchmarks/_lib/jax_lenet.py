"""LeNet in JAX, a training step compiled as one function: a contestant of `lanes.py`."""

import time
from typing import Any

from _lib.peers import arrays
from _lib.turns import Turn
from _lib.work import LR, Work

CONVOLUTIONS, DENSE = ((1, 6), (6, 16)), ((256, 120), (120, 84), (84, 10))
EPSILON = 1e-5


def jax(work: Work, turn: Turn) -> None:
    """One permutation per epoch; the compiled step gathers its batch, and weights and momentum are donated to it."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax import lax

    normalised = work.net == "lenet_bn"
    random = np.random.default_rng(0)

    def layer(shape: tuple[int, ...], fan_in: int, width: int, last: bool) -> dict[str, Any]:
        weights = {"w": jnp.asarray(random.uniform(-1, 1, shape) / fan_in**0.5, jnp.float32), "b": jnp.zeros(width)}
        return weights | ({"scale": jnp.ones(width), "shift": jnp.zeros(width)} if normalised and not last else {})

    weights = [layer((5, 5, few, many), 25 * few, many, False) for few, many in CONVOLUTIONS]
    weights += [layer((few, many), few, many, many == 10) for few, many in DENSE]

    def normalise(x: Any, own: dict[str, Any]) -> Any:
        if not normalised:
            return x
        axes = tuple(range(x.ndim - 1))
        mean, variance = x.mean(axes), x.var(axes)
        return (x - mean) * lax.rsqrt(variance + EPSILON) * own["scale"] + own["shift"]

    def loss_of(weights: list[Any], x: Any, y: Any) -> tuple[Any, Any]:
        for own in weights[:2]:
            x = lax.conv_general_dilated(x, own["w"], (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            x = jax.nn.sigmoid(normalise(x + own["b"], own))
            x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = x.reshape(len(x), -1)
        for own in weights[2:4]:
            x = jax.nn.sigmoid(normalise(x @ own["w"] + own["b"], own))
        logits = x @ weights[4]["w"] + weights[4]["b"]
        losses = -jnp.take_along_axis(jax.nn.log_softmax(logits), y[:, None], 1)
        return losses.mean(), (logits.argmax(1) == y).sum()

    def step(weights: list[Any], momentum: list[Any], sums: Any, x: Any, y: Any, rows: Any) -> tuple[Any, ...]:
        (loss, correct), slopes = jax.value_and_grad(loss_of, has_aux=True)(weights, x[rows], y[rows])
        momentum = jax.tree.map(lambda old, slope: 0.9 * old + slope, momentum, slopes)
        weights = jax.tree.map(lambda old, move: old - LR * move, weights, momentum)
        return weights, momentum, (sums[0] + loss, sums[1] + correct)

    compiled = jax.jit(step, donate_argnums=(0, 1))
    x, y = (jnp.asarray(values) for values in arrays(work))
    x, momentum = x[..., None], jax.tree.map(jnp.zeros_like, weights)
    while True:
        start = time.perf_counter()
        sums = (jnp.zeros(()), jnp.zeros((), jnp.int32))
        order = random.permutation(work.images)
        for first in range(0, work.images, work.batch):
            rows = order[first : first + work.batch]
            weights, momentum, sums = compiled(weights, momentum, sums, x, y, rows)
        jax.block_until_ready((weights, sums))
        turn(f"JAX {jax.__version__}, jitted step", time.perf_counter() - start)
