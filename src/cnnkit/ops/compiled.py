"""The C++ of this room, compiled at its first use."""

import ctypes
import functools

from torch import Tensor

from cnnkit.core.compiler import build, texts
from cnnkit.core.errors import CnnkitError

__all__ = ["address", "library"]


@functools.cache
def library() -> ctypes.CDLL | None:
    """Return the compiled code, or None where it cannot be compiled."""
    try:  # with torch's own OpenMP, whose threads would wait beside others
        return ctypes.CDLL(str(build("layers", texts("cnnkit.ops"), ("-fopenmp",))))
    except (CnnkitError, OSError):
        return None


def address(tensor: Tensor | None) -> ctypes.c_void_p:
    """Return where a tensor's numbers lie, for compiled code; without one, nowhere."""
    return ctypes.c_void_p(None if tensor is None else tensor.data_ptr())
