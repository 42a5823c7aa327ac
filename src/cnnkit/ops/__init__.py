"""The operators of chapter 5.1-5.4 and 5.10 from scratch: for tensors of any dtype and device, differentiable.

All are built on the sliding window (`windows`). Integer input is computed in integers, exactly. The functions specify
the fast layers of `torch.nn` and do not replace them; `from_scratch` rebuilds a whole network from them. `tune` and
`compile_pooling` do the opposite: the same layers, faster.
"""

import warnings
from typing import Any

from cnnkit.ops.batchnorm import batch_norm
from cnnkit.ops.corr2d import conv2d, corr2d, corr2d_1x1, corr2d_multi_in, corr2d_multi_in_out
from cnnkit.ops.dropout import Dropout
from cnnkit.ops.filters import KERNELS, filter_image, parse_kernel
from cnnkit.ops.from_scratch import from_scratch
from cnnkit.ops.layers import BatchNormalization, Conv2D, MultiChannelConv2D
from cnnkit.ops.learn import LearnedKernel, detect_edges, learn_kernel
from cnnkit.ops.max_pool import CompiledMaxPool2d, compile_pooling
from cnnkit.ops.pool2d import adaptive_avg_pool2d, pool2d
from cnnkit.ops.pooling import AdaptiveAvgPool2D, Pool2D
from cnnkit.ops.same import CeilMaxPool2d, SameConv2d, SameMaxPool2d
from cnnkit.ops.tuned import TunedConv2d, tune
from cnnkit.ops.window import pad, windows

__all__ = [
    "KERNELS",
    "AdaptiveAvgPool2D",
    "BatchNormalization",
    "CeilMaxPool2d",
    "CompiledMaxPool2d",
    "Conv2D",
    "Dropout",
    "LearnedKernel",
    "MultiChannelConv2D",
    "Pool2D",
    "SameConv2d",
    "SameMaxPool2d",
    "TunedConv2d",
    "adaptive_avg_pool2d",
    "batch_norm",
    "compile_pooling",
    "conv2d",
    "corr2d",
    "corr2d_1x1",
    "corr2d_multi_in",
    "corr2d_multi_in_out",
    "detect_edges",
    "filter_image",
    "from_scratch",
    "learn_kernel",
    "pad",
    "parse_kernel",
    "pool2d",
    "tune",
    "windows",
]


def __getattr__(name: str) -> Any:
    if name == "by_hand":
        warnings.warn("cnnkit.ops.by_hand is now cnnkit.ops.from_scratch", DeprecationWarning, stacklevel=2)
        return from_scratch
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
