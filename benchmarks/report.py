"""What every benchmark writes: the conditions first, a table, and the raw figures beside it as JSON."""

import json
import math
import os
import platform
import statistics
from datetime import date
from importlib import metadata
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def processor() -> str:
    """Return the processor's name and how many of them there are."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    name = next(line.split(":")[1].strip() for line in lines if "model name" in line)
    return f"{name}, {os.cpu_count()} cores"


def earlier(folder: Path, stem: str) -> dict[str, Any]:
    """Return the raw figures that this month's result file holds so far."""
    path = _path(folder, stem).with_suffix(".json")
    return json.loads(path.read_text())["figures"] if path.exists() else {}


def geometric_mean(values: list[float]) -> float:
    """Return the mean of ratios."""
    return math.exp(statistics.fmean(map(math.log, values)))


def write(
    folder: Path, stem: str, title: str, work: str, columns: list[str], rows: list[list[str]], figures: dict[str, Any]
) -> None:
    """Write `<stem>_cpu_<yyyymm>.md` and .json into `folder`, and print the table."""
    conditions = {
        "date": date.today().isoformat(),
        "hardware": processor(),
        "software": f"cnnkit {metadata.version('cnnkit')}, torch {metadata.version('torch')}, "
        f"Python {platform.python_version()}",
        "work": work,
    }
    table = [columns, ["---"] * len(columns), *rows]
    text = [f"# {title}", "", *(f"- {key}: {value}" for key, value in conditions.items()), ""]
    text += ["| " + " | ".join(row) + " |" for row in table]
    folder.mkdir(parents=True, exist_ok=True)
    path = _path(folder, stem)
    path.with_suffix(".md").write_text("\n".join(text) + "\n")
    path.with_suffix(".json").write_text(json.dumps({"conditions": conditions, "figures": figures}, indent=1) + "\n")
    print("\n".join(text))


def _path(folder: Path, stem: str) -> Path:
    return folder / f"{stem}_cpu_{date.today():%Y%m}"
