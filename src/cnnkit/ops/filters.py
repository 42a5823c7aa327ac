"""Classic kernels by name, and their response to a whole image."""

import json
from collections.abc import Iterator

import torch
from torch import Tensor

from cnnkit.core.errors import UsageError, pick
from cnnkit.core.schema import brief
from cnnkit.core.shape import Padding, Pair, output_size, pair
from cnnkit.ops.corr2d import corr2d
from cnnkit.ops.window import pad, require_rank

__all__ = ["KERNELS", "filter_image", "parse_kernel"]

STRIP = 1 << 24  # products in memory at once

KERNELS: dict[str, list[list[float]]] = {
    "blur": [[1 / 16, 2 / 16, 1 / 16], [2 / 16, 4 / 16, 2 / 16], [1 / 16, 2 / 16, 1 / 16]],
    "edge": [[-1, -1, -1], [-1, 8, -1], [-1, -1, -1]],
    "sharpen": [[0, -1, 0], [-1, 5, -1], [0, -1, 0]],
    "sobel-x": [[-1, 0, 1], [-2, 0, 2], [-1, 0, 1]],
    "sobel-y": [[-1, -2, -1], [0, 0, 0], [1, 2, 1]],
}


def parse_kernel(text: str) -> Tensor:
    """Return the float kernel named `text` in KERNELS, or parse it from rows: "[[1, -1]]".

    Raises UsageError for an unknown name, rows of different lengths, or values that are not finite numbers.
    """
    if not text.lstrip().startswith("["):
        return torch.tensor(pick(KERNELS, text, "kernel"), dtype=torch.float32)
    try:
        kernel = torch.tensor(json.loads(text), dtype=torch.float32)
    except (ValueError, TypeError, RecursionError, OverflowError, RuntimeError) as error:
        raise UsageError(f"kernel {brief(text)} must be rows of numbers of equal length: write [[1, -1]]") from error
    if kernel.ndim != 2 or not kernel.numel() or not kernel.isfinite().all():
        raise UsageError(f"kernel {brief(text)} must be rows of finite numbers, at least one: write [[1, -1]]")
    return kernel


def filter_image(image: Tensor, K: Tensor, stride: Pair = 1, padding: Padding = "valid") -> Tensor:
    """Correlate each channel of a uint8 image (C, H, W) with K (kh, kw); returns a uint8 image (C, h, w).

    A kernel whose weights sum to zero responds to changes, with a sign: the result is the magnitude, the strongest
    as white. The response of any other kernel is a brightness and is clipped to 0-255.
    """
    require_rank(image, "image", 3, 3)
    response = torch.stack([torch.cat([*_strips(channel, K, stride, padding)]) for channel in image])
    if abs(K.sum().item()) < 1e-6 * K.abs().sum().item():
        response = response.abs()
        response *= 255 / response.max().clamp(min=1e-12)
    return response.round().clamp(0, 255).to(torch.uint8)


def _strips(channel: Tensor, K: Tensor, stride: Pair, padding: Padding) -> Iterator[Tensor]:
    """Correlate in strips of rows, so that the windows of a large photo are never all in memory."""
    (kh, kw), (step, _) = (K.shape[0], K.shape[1]), pair(stride, "stride")
    X = pad(channel, padding, (kh, kw), stride)
    height, width = output_size((X.shape[0], X.shape[1]), (kh, kw), stride)
    rows = max(1, STRIP // (width * kh * kw))
    for top in range(0, height, rows):
        bottom = min(top + rows, height)
        yield corr2d(X[top * step : (bottom - 1) * step + kh].float(), K, stride)
