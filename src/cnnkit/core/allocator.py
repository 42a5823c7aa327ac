"""A setting of the C library's allocator: keep large blocks instead of returning them to the system."""

import ctypes

__all__ = ["keep_large_blocks"]

# glibc's malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
OPTIONS = {-3: 2**30, -1: 2**31 - 1, -2: 2**28}


def keep_large_blocks() -> bool:
    """Let this process reuse the memory of large tensors; return whether the C library supports it.

    By default glibc maps and unmaps each block of a few MB, and the system zeroes each new page: up to a sixth of a
    training step. The memory is returned only when the process ends. Call this before the first tensor is created.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # another C library, another system
        return False
    accepted = [mallopt(option, value) for option, value in OPTIONS.items()]
    return all(accepted)
