"""What every benchmark writes: the conditions and the raw figures as JSON, and their table as Markdown."""

import json
import os
import platform
import re
from datetime import date
from pathlib import Path
from typing import Any

from _lib.tables import KINDS, markdown

RESULTS = Path(__file__).parents[1] / "results"
# the instructions a processor multiplies with, the fastest first: the flag, and the name in files
INSTRUCTIONS = {"amx_bf16": "amx", "avx512_bf16": "avx512-bf16", "avx512f": "avx512", "avx2": "avx2"}
FOR_BF16 = ("amx", "avx512-bf16")


def hardware() -> str:
    """Return the processor's name, how many of them there are, their instructions, and the GPU's name."""
    gpu = f"; {_gpu()}" if _gpu() else ""
    return f"{_about('model name') or platform.machine()}, {os.cpu_count()} cores, {instructions()}{gpu}"


def instructions() -> str:
    """Return the widest instructions of the processor."""
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


def write(folder: Path, kind: str, work: str, figures: dict[str, Any]) -> None:
    """Write `<kind>_<hardware>_<yyyymm>.json` into `folder`, and print the table."""
    import torch  # here, as Keras' environment has none

    import cnnkit

    conditions = {
        "date": date.today().isoformat(),
        "hardware": hardware(),
        "software": f"cnnkit {cnnkit.__version__}, torch {torch.__version__}, Python {platform.python_version()}",
        "work": work,
    }
    folder.mkdir(parents=True, exist_ok=True)
    path = result_path(folder, kind).with_suffix(".json")
    path.write_text(json.dumps({"conditions": conditions, "figures": figures}, indent=1) + "\n")
    print(section(path))


def section(path: Path) -> str:
    """Return a results file as Markdown: its name, the conditions, and the table."""
    result = json.loads(path.read_text())
    conditions = [f"- {key}: {value}" for key, value in result["conditions"].items()]
    kind = KINDS[kind_of(path)]
    return "\n".join([f"### {path.stem}", "", *conditions, "", markdown(kind.table(result["figures"]))])


def kind_of(path: Path) -> str:
    """Return the name of a results file's row in KINDS."""
    return path.stem.rsplit("_", 2)[0]


def result_path(folder: Path, stem: str) -> Path:
    """Return where this month's results on this hardware belong, without the ending."""
    name = _gpu() or re.sub(r"\(.*?\)|\bCPU\b|\bProcessor\b|@.*", "", f"{_about('model name')} ") + instructions()
    return folder / f"{stem}_{'-'.join(name.lower().split())}_{date.today():%Y%m}"
