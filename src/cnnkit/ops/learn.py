"""Edges by a chosen kernel (chapter 5.1.3), and the same kernel learned from data (5.1.4)."""

from dataclasses import dataclass

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import Pair, by, count, output_size, pair
from cnnkit.ops.corr2d import corr2d
from cnnkit.ops.window import require_rank

__all__ = ["LearnedKernel", "detect_edges", "learn_kernel"]


def detect_edges(X: Tensor) -> Tensor:
    """Return X[i, j] - X[i, j + 1] for an image X (H, W): 1 and -1 where white meets black, 0 elsewhere.

    The chapter's kernel [[1, -1]] detects vertical edges; returns (H, W - 1).
    """
    return corr2d(X, torch.tensor([[1, -1]], device=X.device))


@dataclass(frozen=True)
class LearnedKernel:
    """A kernel (kh, kw) and the summed squared error at each step, before the step was taken."""

    kernel: Tensor
    losses: list[float]


def learn_kernel(
    X: Tensor,
    Y: Tensor,
    kernel_size: Pair,
    *,
    lr: float = 0.03,
    steps: int = 10,
    start: Tensor | None = None,
    seed: int = 0,
) -> LearnedKernel:
    """Find by gradient descent the kernel that turns X (H, W) into Y (h, w) (chapter 5.1.4).

    The loss is the squared error, summed over Y; each step moves the kernel by lr times its gradient. `start`
    is the initial kernel; without it, standard normal values drawn with `seed`. Raises UsageError if Y does not have
    the shape that such a kernel produces, or if the descent diverges.
    """
    require_rank(X, "X", 2, 2)
    kernel_size, steps = pair(kernel_size, "kernel_size"), count(steps, "steps")
    expected = output_size((X.shape[0], X.shape[1]), kernel_size)
    if Y.shape != expected:
        raise UsageError(f"Y must be {by(*expected)} for this X and kernel size, not {by(*Y.shape)}")
    if start is None:
        start = torch.randn(kernel_size, generator=torch.Generator().manual_seed(seed))
    elif start.shape != kernel_size:
        raise UsageError(f"start must be {by(*kernel_size)}, not {by(*start.shape)}")
    dtype = X.dtype if X.is_floating_point() else torch.get_default_dtype()
    K = start.to(X.device, dtype, copy=True).requires_grad_()
    losses = []
    for step in range(steps):
        loss = ((corr2d(X.to(dtype), K) - Y) ** 2).sum()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, K)
        K = (K - lr * gradient).detach().requires_grad_()
        if not (loss.isfinite() and K.isfinite().all()):
            raise UsageError(f"the descent diverges at step {step}: lr={lr} is too large for this image")
    return LearnedKernel(K.detach(), losses)
