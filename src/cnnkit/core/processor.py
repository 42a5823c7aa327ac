"""The identity of this machine's processor."""

import os
import platform
from pathlib import Path

__all__ = ["FORCED", "processor", "processor_name"]

VARYING = (
    "processor",
    "cpu MHz",
    "apicid",
    "initial apicid",
    "core id",
    "bogomips",
    "physical id",
    "siblings",
    "microcode",
    "bugs",
)
# variables that keep libraries from using some of its instructions, or select their code paths
FORCED = ("ATEN_CPU_CAPABILITY", "ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS")


def processor() -> str:
    """Return what identifies this machine's processor: its name, caches and instructions."""
    forced = [f"{name}={os.environ[name]}" for name in FORCED if name in os.environ]
    return " ".join(sorted({line for line in _lines() if not line.startswith(VARYING)}) + forced)


def processor_name() -> str:
    """Return the model name of this machine's processor."""
    names = [line.partition(":")[2].strip() for line in _lines() if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()


def _lines() -> list[str]:
    info = Path("/proc/cpuinfo")
    return info.read_text().splitlines() if info.exists() else [platform.processor() or platform.machine()]
