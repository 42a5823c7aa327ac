"""The C++ of this room, compiled at its first use."""

import ctypes
import functools

from torch import Tensor

from cnnkit.core.compiler import load, texts
from cnnkit.core.errors import CnnkitError

__all__ = ["address", "library"]

SYMBOLS = (
    *(f"pool_{way}_{bits}" for way in ("forward", "backward") for bits in (16, 32)),
    *(f"winograd_{kind}" for kind in ("input", "gradient", "output")),
)


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled code, or None where it cannot be compiled."""
    try:  # with torch's own OpenMP, whose threads would wait beside others
        return load("layers", texts("cnnkit.ops"), SYMBOLS, ("-fopenmp",))
    except (CnnkitError, OSError):
        return None


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Return where a tensor's numbers lie, for compiled code; without one, nowhere."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
