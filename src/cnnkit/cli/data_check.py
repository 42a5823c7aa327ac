"""`cnnkit data check`: find problems in a folder of images."""

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.cli.console import console, page, print_json, table
from cnnkit.cli.options import MaxPixels, Workers
from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.text import counted, shell, some

if TYPE_CHECKING:
    from rich.table import Table

    from cnnkit.data.check.findings import Finding
    from cnnkit.data.check.run import Diagnosis

__all__ = ["check"]

LISTED, NAMED = 10, 3  # findings of a kind; files in a finding
CLASSES = 20  # in a table


def check(
    path: Path,
    *,
    json: bool = False,
    quarantine: Path | None = None,
    workers: Workers = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Find problems in a folder of images, which may make it unfit for training.

    Each image is decoded, and compared with all others. Unreadable images, the same image in several splits, classes
    without images and an invalid layout make the data unfit: the exit code is then 3. All other findings are warnings
    or notes.

    Parameters
    ----------
    path
        The folder: PATH/train/CLASS/..., with validation (val, valid) and test beside train, or PATH/CLASS/...
    json
        Print JSON with all files.
    quarantine
        Move the harmful files into this folder, listed in its quarantine.json; nothing is deleted. Of an image in
        several splits, the training copies are moved.
    """
    from cnnkit.data.check.quarantine import check_quarantine
    from cnnkit.data.check.quarantine import quarantine as move
    from cnnkit.data.check.run import diagnose

    if quarantine:
        check_quarantine(path, quarantine)
    diagnosis = diagnose(path, workers, max_pixels=max_pixels)
    moved, failed = move(diagnosis, quarantine) if quarantine else ({}, {})
    left = [each for each in diagnosis.findings if each.harms and not set(each.culprits or ".") <= moved.keys()]
    verdict = _verdict(diagnosis, left, can_move=not quarantine)
    if json:
        print_json(_content(diagnosis) | {"moved": moved, "not_moved": failed, "verdict": verdict})
    else:
        _report(diagnosis)
        for source, place in moved.items():
            console.say(f"moved {source} to {quarantine}/{place}")
        for source, reason in failed.items():
            console.say(f"not moved: {source}: {reason}")
    if left:
        raise DataError(verdict)
    if not json:
        console.say(verdict)


def _verdict(diagnosis: "Diagnosis", left: "list[Finding]", can_move: bool) -> str:
    """Return a line that says whether the data are fit for training, the problems, and the remedy."""
    root = diagnosis.root
    if not left:
        warnings = sum(finding.about.severity == "warning" for finding in diagnosis.findings)
        return f"{root}: fit for training{f' (warnings: {warnings:,})' if warnings else ''}"
    counts = Counter(finding.about.text for finding in left)
    what = ", ".join(f"{text} ({count:,})" for text, count in counts.items())
    movable = can_move and any(finding.culprits for finding in left)
    remedy = f"; move them away with: cnnkit data check {shell(root)} --quarantine DIR" if movable else ""
    return f"{root}: unfit for training: {what}{remedy}"


def _content(diagnosis: "Diagnosis") -> dict[str, Any]:
    return {
        "data": str(diagnosis.root),
        "files": diagnosis.files,
        "harms": diagnosis.harms,
        "findings": [
            {"kind": finding.kind, **finding.about._asdict(), "detail": finding.detail}
            | {"paths": finding.paths, "culprits": finding.culprits}
            for finding in diagnosis.findings
        ],
        "statistics": diagnosis.statistics,
    }


def _report(diagnosis: "Diagnosis") -> None:
    seen = diagnosis.statistics
    size = f"{seen['bytes']['sum'] / 1e6:,.1f} MB"
    readable = counted(seen["images"], "readable image")
    console.say(f"{diagnosis.root}: {counted(diagnosis.files, 'file')}, {readable}, {size}")
    if seen["images"]:
        page.print(_classes(seen["classes"]), _sizes(seen))
        named = (f"{name} {count:,}" for key in ("formats", "modes") for name, count in seen[key].items())
        turned = f"   turned upright by EXIF {seen['turned']:,}" if seen["turned"] else ""
        console.say(f"formats and modes: {'   '.join(named)}{turned}")
    kinds = [list(findings) for _, findings in groupby(diagnosis.findings, lambda finding: finding.kind)]
    if kinds:
        rows = (
            [*findings[0].about, f"{len(findings):,}", f"{sum(len(finding.paths) for finding in findings):,}"]
            for findings in kinds
        )
        page.print(table(["", "found", "what to do", "groups", "files"], rows, text=3))
    for findings in kinds:
        console.say(f"{findings[0].about.text}:")
        for finding in findings[:LISTED]:
            console.say(f"  {_line(finding)}")
        if len(findings) > LISTED:
            console.say(f"  and {len(findings) - LISTED:,} more")
        console.print()


def _line(finding: "Finding") -> str:
    files = some(finding.paths, NAMED)
    return f"{files} ({finding.detail})" if files and finding.detail else files or finding.detail


def _classes(classes: dict[str, dict[str, int]]) -> "Table":
    """Return the number of images of each class in each split; of many classes, the largest and the smallest."""
    rows = [(name, [*counts.values()]) for name, counts in classes.items()]
    if len(rows) > CLASSES:
        rows.sort(key=lambda row: -row[1][0])
        between = f"... {len(rows) - CLASSES:,} classes in between ..."
        rows = [*rows[: CLASSES // 2], (between, []), *rows[-CLASSES // 2 :]]
    cells = ([name, *(f"{number:,}" for number in numbers)] for name, numbers in rows)
    return table(["class", *next(iter(classes.values()))], cells)


def _sizes(seen: dict[str, Any]) -> "Table":
    rows = [
        [name, *(f"{value:,.0f}" for value in list(seen[name].values())[:3])] for name in ("width", "height", "bytes")
    ]
    rows.append(["width / height", *(f"{value:.2f}" for value in seen["aspect"].values())])
    return table(["", "smallest", "median", "largest"], rows)
