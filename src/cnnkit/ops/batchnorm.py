"""Batch normalisation from its formulas (chapter 5.10.1-5.10.2; Ioffe and Szegedy 2015, algorithms 1 and 2)."""

from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.ops.window import wide

__all__ = ["batch_norm"]


def batch_norm(
    X: Tensor,
    gamma: Tensor,
    beta: Tensor,
    moving_mean: Tensor,
    moving_variance: Tensor,
    *,
    training: bool,
    decay: float = 0.9,
    epsilon: float = 1e-5,
) -> tuple[Tensor, Tensor, Tensor]:
    """Normalise each feature of X (N, C) or each channel of X (N, C, H, W), scale by gamma and shift by beta.

    The other four tensors are (C,). Training uses the batch's own mean and (biased) variance and returns the
    moving statistics as decay * moving + (1 - decay) * batch; prediction uses the moving ones and returns them
    unchanged. `decay` is 1 - torch's momentum; torch updates with the *unbiased* variance instead.
    Returns (Y, moving_mean, moving_variance). Raises UsageError for other ranks, differing channels, and a
    training batch with a single value per channel.
    """
    if X.ndim not in (2, 4):
        raise UsageError(f"X must be (N, C) or (N, C, H, W), not {tuple(X.shape)}")
    for name, value in {
        "gamma": gamma, "beta": beta, "moving_mean": moving_mean, "moving_variance": moving_variance
    }.items():  # fmt: skip
        if value.shape != X.shape[1:2]:
            raise UsageError(f"{name} must be ({X.shape[1]},) for X {tuple(X.shape)}, not {tuple(value.shape)}")
    values = X.to(wide(X.dtype))
    over = (0,) if X.ndim == 2 else (0, 2, 3)

    def broadcast(values: Tensor) -> Tensor:  # (C,) to the rank of X
        return values if X.ndim == 2 else values[:, None, None]

    if training:
        if X.numel() == X.shape[1]:
            raise UsageError(f"a training batch needs more than one value per channel, not X {tuple(X.shape)}")
        mean = values.mean(over)
        variance = ((values - broadcast(mean)) ** 2).mean(over)
        moving_mean = decay * moving_mean + (1 - decay) * mean.detach()
        moving_variance = decay * moving_variance + (1 - decay) * variance.detach()
    else:
        mean, variance = moving_mean, moving_variance
    normal = (values - broadcast(mean)) / broadcast(variance + epsilon).sqrt()
    return (broadcast(gamma) * normal + broadcast(beta)).to(X.dtype), moving_mean, moving_variance
