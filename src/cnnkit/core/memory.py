"""Free memory, and errors that mean out of memory."""

from pathlib import Path

import torch

__all__ = ["free_bytes", "is_about_memory"]

UNKNOWN = 2**63 - 1  # bytes, where the system does not say


def free_bytes(device: torch.device) -> int:
    """Return the free memory of a device in bytes; on the CPU, within the limit of a container."""
    if device.type == "cuda":
        return int(torch.cuda.mem_get_info(device)[0])
    free = [UNKNOWN]
    if (meminfo := Path("/proc/meminfo")).exists():  # Linux; includes what caches would release
        rows = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = [1024 * int(rows["MemAvailable"].split()[0])]
    limit, used, parts = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current", "stat"))  # a container's
    if limit.exists() and used.exists() and parts.exists() and (most := limit.read_text().strip()).isdecimal():
        cached = dict(line.split() for line in parts.read_text().splitlines()).get("inactive_file", 0)
        free.append(int(most) - int(used.read_text()) + int(cached))
    return min(free)


def is_about_memory(error: BaseException) -> bool:
    """Return whether an error of Python or torch means out of memory."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or any(
        words in str(error) for words in ("can't allocate memory", "out of memory")
    )
