"""The C++ code of this package, compiled at its first use."""

import ctypes
import functools

from torch import Tensor

from cnnkit.core.compiler import load, texts
from cnnkit.core.errors import CnnkitError

__all__ = ["address", "library"]

SYMBOLS = (
    *(f"pool_{name}_{bits}" for name in ("forward", "backward") for bits in (16, 32)),
    *(f"winograd_{name}" for name in ("input", "gradient", "output")),
)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled library, or None where it cannot be compiled."""
    try:  # OpenMP is torch's, whose threads would wait on the cores of another pool
        return load("layers", texts("cnnkit.ops"), SYMBOLS, ("-fopenmp",))
    except (CnnkitError, OSError):
        return None


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Return a tensor's data pointer for compiled code; without a tensor, null."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
