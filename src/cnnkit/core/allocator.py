"""The C library's allocator, told to keep large blocks instead of giving them back to the system."""

import ctypes

__all__ = ["keep_large_blocks"]

# glibc's malloc.h: M_MMAP_THRESHOLD, M_TRIM_THRESHOLD, M_TOP_PAD
OPTIONS = {-3: 2**30, -1: 2**31 - 1, -2: 2**28}


def keep_large_blocks() -> bool:
    """Let this process reuse the memory of large tensors; return whether the C library can.

    glibc maps and unmaps a block of a few MB each time, and the system fills each new page with zeros: up to a sixth
    of a training step. The memory comes back at the process' end only. To be called before the first tensor is made.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, TypeError, OSError):  # another C library, another system
        return False
    taken = [mallopt(option, value) for option, value in OPTIONS.items()]
    return all(taken)
