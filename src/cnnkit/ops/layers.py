"""The operators as trainable modules: the chapter's own Conv2D (5.1.2) and BatchNormalization (5.10.2)."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import UninitializedParameter, is_lazy

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import Padding, Pair, count, pair, resolve_padding
from cnnkit.ops.batchnorm import batch_norm
from cnnkit.ops.corr2d import corr2d, corr2d_multi_in, corr2d_multi_in_out
from cnnkit.ops.window import require_rank

__all__ = ["BatchNormalization", "Conv2D", "MultiChannelConv2D", "check_constants"]


class Conv2D(nn.Module):
    """One kernel and one scalar bias over an image of one channel (chapter 5.1.2).

    Takes (H, W), (1, H, W) or (N, 1, H, W) and keeps the rank. `weight` (kh, kw) and `bias` (1,) start normal
    with standard deviation 0.05, as `random_normal` in Keras.
    """

    def __init__(self, kernel_size: Pair, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1):
        super().__init__()
        self.window = _checked(kernel_size, stride, padding, dilation)
        self.weight = nn.Parameter(torch.randn(pair(kernel_size, "kernel_size")) * 0.05)
        self.bias = nn.Parameter(torch.randn(1) * 0.05)

    def forward(self, X: Tensor) -> Tensor:
        """Correlate and add the bias."""
        require_rank(X, "X", 2, 4)
        if X.ndim == 2:
            return corr2d(X, self.weight, **self.window) + self.bias
        return corr2d_multi_in(X, self.weight[None], **self.window).unsqueeze(-3) + self.bias

    def extra_repr(self) -> str:
        """Show the kernel's shape and how it slides."""
        return _repr(self.weight, self.window)


class MultiChannelConv2D(nn.Module):
    """C channels to O channels with O x C kernels and O biases (chapter 5.3); the same function as `nn.Conv2d`.

    Takes (C, H, W) or (N, C, H, W). `weight` (O, C, kh, kw) starts Glorot-uniform and `bias` (O,) zero, as in Keras;
    `bias=False` omits the biases.
    """

    bias: nn.Parameter | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Pair,
        stride: Pair = 1,
        padding: Padding = 0,
        dilation: Pair = 1,
        bias: bool = True,
    ):
        super().__init__()
        for name, channels in {"in_channels": in_channels, "out_channels": out_channels}.items():
            count(channels, name)
        self.window = _checked(kernel_size, stride, padding, dilation)
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels, *pair(kernel_size, "kernel_size")))
        self.register_parameter("bias", nn.Parameter(torch.zeros(out_channels)) if bias else None)
        nn.init.xavier_uniform_(self.weight)

    def forward(self, X: Tensor) -> Tensor:
        """Correlate and add the biases."""
        Y = corr2d_multi_in_out(X, self.weight, **self.window)
        return Y if self.bias is None else Y + self.bias[:, None, None]

    def extra_repr(self) -> str:
        """Show the kernels' shape and how they slide."""
        return _repr(self.weight, self.window)


class BatchNormalization(nn.Module):
    """Batch normalisation of (N, C) or (N, C, H, W) by `cnnkit.ops.batch_norm` (chapter 5.10.2).

    `gamma`, `beta`, `moving_mean` and `moving_variance` are (C,); C is `num_features` or, as in the chapter,
    that of the first input. The chapter's decay is 0.9 and its epsilon 1e-5 (Keras: 0.99 and 1e-3).
    """

    gamma: nn.Parameter
    beta: nn.Parameter
    moving_mean: Tensor
    moving_variance: Tensor

    def __init__(self, decay: float = 0.9, epsilon: float = 1e-5, *, num_features: int | None = None):
        super().__init__()
        check_constants(decay, epsilon)
        self.decay, self.epsilon = decay, epsilon
        for name in ("gamma", "beta"):  # torch's stubs do not declare it a Parameter
            self.register_parameter(name, UninitializedParameter())  # type: ignore[arg-type]
        self.register_buffer("moving_mean", torch.zeros(0))
        self.register_buffer("moving_variance", torch.ones(0))
        if num_features is not None:
            self._build(num_features)

    def forward(self, X: Tensor) -> Tensor:
        """Normalise; in training mode also update the statistics."""
        if is_lazy(self.gamma):
            if X.ndim not in (2, 4):
                raise UsageError(f"X must be (N, C) or (N, C, H, W), not {tuple(X.shape)}")
            self._build(X.shape[1])
        tensors = X, self.gamma, self.beta, self.moving_mean, self.moving_variance
        Y, mean, variance = batch_norm(*tensors, training=self.training, decay=self.decay, epsilon=self.epsilon)
        if self.training:
            self.moving_mean.copy_(mean)
            self.moving_variance.copy_(variance)
        return Y

    def extra_repr(self) -> str:
        """Show the number of features and the two constants."""
        features = "?" if is_lazy(self.gamma) else len(self.gamma)
        return f"{features}, decay={self.decay}, epsilon={self.epsilon}"

    def _build(self, num_features: int) -> None:
        count(num_features, "num_features")
        for parameter, value in ((self.gamma, 1.0), (self.beta, 0.0)):
            parameter.materialize((num_features,))  # type: ignore[attr-defined]  # it is one while lazy
            nn.init.constant_(parameter, value)
        self.moving_mean = torch.zeros_like(self.beta, requires_grad=False)
        self.moving_variance = torch.ones_like(self.beta, requires_grad=False)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *rest: Any) -> None:
        if is_lazy(self.gamma) and f"{prefix}gamma" in state_dict:
            self._build(len(state_dict[f"{prefix}gamma"]))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def check_constants(decay: float, epsilon: float) -> None:
    """Raise UsageError unless these are valid constants of batch normalisation."""
    if isinstance(decay, bool) or not isinstance(decay, int | float) or not 0 <= decay <= 1:
        raise UsageError(f"decay must be between 0 and 1, not {decay!r}")
    if not isinstance(epsilon, int | float) or not epsilon > 0:
        raise UsageError(f"epsilon must be above 0, not {epsilon!r}")


def _checked(kernel_size: Pair, stride: Pair, padding: Padding, dilation: Pair) -> dict[str, Any]:
    """Return how the window slides, or raise UsageError now rather than at the first input."""
    pair(kernel_size, "kernel_size"), pair(stride, "stride"), pair(dilation, "dilation")
    resolve_padding(padding, 1, kernel_size)
    return {"stride": stride, "padding": padding, "dilation": dilation}


def _repr(weight: Tensor, window: dict[str, Any]) -> str:
    return ", ".join([f"{tuple(weight.shape)}", *(f"{name}={value!r}" for name, value in window.items())])
