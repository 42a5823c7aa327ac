"""What every benchmark writes: the conditions first, a table, and the raw figures beside it as JSON."""

import json
import math
import os
import platform
import re
import statistics
from datetime import date
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


# what a processor multiplies by, the fastest first, in flags and in file names
INSTRUCTIONS = {"amx_bf16": "amx", "avx512_bf16": "avx512-bf16", "avx512f": "avx512", "avx2": "avx2"}
FOR_BF16 = ("amx", "avx512-bf16")


def hardware() -> str:
    """Return the processor's name, how many of them there are, by what they multiply, and the GPU's name."""
    gpu = f"; {_gpu()}" if _gpu() else ""
    return f"{_about('model name') or platform.machine()}, {os.cpu_count()} cores, {instructions()}{gpu}"


def instructions() -> str:
    """Return what the processor multiplies by."""
    flags = _about("flags").split()
    return next((name for flag, name in INSTRUCTIONS.items() if flag in flags), platform.machine())


def _gpu() -> str:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def _about(key: str) -> str:
    info = Path("/proc/cpuinfo")  # Linux
    lines = info.read_text().splitlines() if info.exists() else []
    return next((line.split(":")[1].strip() for line in lines if line.startswith(key)), "")


def earlier(folder: Path, stem: str) -> dict[str, Any]:
    """Return the raw figures that this month's result file holds so far."""
    path = result_path(folder, stem).with_suffix(".json")
    return json.loads(path.read_text())["figures"] if path.exists() else {}


def geometric_mean(values: list[float]) -> float:
    """Return the mean of ratios."""
    return math.exp(statistics.fmean(map(math.log, values)))


def write(
    folder: Path, stem: str, title: str, work: str, columns: list[str], rows: list[list[str]], figures: dict[str, Any]
) -> None:
    """Write `<stem>_<hardware>_<yyyymm>.md` and .json into `folder`, and print the table."""
    import torch  # here, as Keras' environment has none

    import cnnkit

    conditions = {
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "software": f"cnnkit {cnnkit.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "work": work,
    }
    table = [columns, ["---"] * len(columns), *rows]
    text = [f"# {title}", "", *(f"- {key}: {value}" for key, value in conditions.items()), ""]
    text += ["| " + " | ".join(row) + " |" for row in table]
    folder.mkdir(parents=True, exist_ok=True)
    path = result_path(folder, stem)
    path.with_suffix(".md").write_text("\n".join(text) + "\n")
    path.with_suffix(".json").write_text(json.dumps({"conditions": conditions, "figures": figures}, indent=1) + "\n")
    print("\n".join(text))


def result_path(folder: Path, stem: str) -> Path:
    """Return where this month's results on this hardware belong, without the ending."""
    name = _gpu() or re.sub(r"\(.*?\)|\bCPU\b|\bProcessor\b|@.*", "", f"{_about('model name')} ") + instructions()
    return folder / f"{stem}_{'-'.join(name.lower().split())}_{date.today():%Y%m}"
