"""`cnnkit data check`: the doctor of folders of pictures."""

from collections import Counter
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Any

from cnnkit.core.errors import DataError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.text import shell

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
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> None:
    """Look for what is wrong in a folder of pictures; the exit code is 3 if a training would be harmed.

    Each picture is decoded, and compared with all others. Harm are pictures that cannot be read, the same picture in
    several splits, classes without pictures and folders that are no data set; all else is a warning or a note.

    Parameters
    ----------
    path
        The folder: PATH/train/CLASS/..., with validation (val, valid) and test beside train, or PATH/CLASS/...
    json
        Print JSON, with all files.
    quarantine
        Move the harmful files into this folder, which lists them in quarantine.json; nothing is deleted. Of a picture
        in several splits, the copies that are trained on go.
    workers
        Threads that decode; without it, one for each processor.
    max_pixels
        The most pixels that an image may be decoded to; a larger one cannot be read.
    """
    from cnnkit.cli.console import console, print_json
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
    """Return in one line whether a training would be harmed, by what, and what to do."""
    root = diagnosis.root
    if not left:
        warnings = sum(finding.about.severity == "warning" for finding in diagnosis.findings)
        return f"{root}: fit for training{f' (warnings: {warnings:,})' if warnings else ''}"
    counts = Counter(finding.about.text for finding in left)
    what = ", ".join(f"{text} ({count:,})" for text, count in counts.items())
    movable = can_move and any(finding.culprits for finding in left)
    remedy = f"; move them away with: cnnkit data check {shell(root)} --quarantine DIR" if movable else ""
    return f"{root}: a training would be harmed: {what}{remedy}"


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
    from cnnkit.cli.console import console, page, table

    seen = diagnosis.statistics
    size = f"{seen['bytes']['sum'] / 1e6:,.1f} MB"
    console.say(f"{diagnosis.root}: {diagnosis.files:,} files, {seen['pictures']:,} pictures that can be read, {size}")
    if seen["pictures"]:
        page.print(_classes(seen["classes"]), _sizes(seen))
        named = (f"{name} {count:,}" for key in ("formats", "modes") for name, count in seen[key].items())
        turned = f"   turned upright by EXIF {seen['turned']:,}" if seen["turned"] else ""
        console.say(f"{'   '.join(named)}{turned}")
    kinds = [list(findings) for _, findings in groupby(diagnosis.findings, lambda finding: finding.kind)]
    summary = table(["", "found", "what to do", "cases", "files"], text=3)
    for findings in kinds:
        severity, text, remedy = findings[0].about
        files = sum(len(finding.paths) for finding in findings)
        summary.add_row(severity, text, remedy, f"{len(findings):,}", f"{files:,}")
    if kinds:
        page.print(summary)
    for findings in kinds:
        console.say(f"{findings[0].about.text}:")
        for finding in findings[:LISTED]:
            console.say(f"  {_line(finding)}")
        if len(findings) > LISTED:
            console.say(f"  and {len(findings) - LISTED:,} more")
        console.print()


def _line(finding: "Finding") -> str:
    more = len(finding.paths) - NAMED
    files = "  ".join([*finding.paths[:NAMED], *([f"and {more:,} more"] if more > 0 else [])])
    return f"{files}  ({finding.detail})" if files and finding.detail else files or finding.detail


def _classes(classes: dict[str, dict[str, int]]) -> "Table":
    """Return how many pictures each class has in each split; of many classes, the largest and the smallest."""
    from cnnkit.cli.console import table

    rows = [(name, [*counts.values()]) for name, counts in classes.items()]
    result = table(["class", *next(iter(classes.values()))])
    if len(rows) > CLASSES:
        rows.sort(key=lambda row: -row[1][0])
        between = f"... {len(rows) - CLASSES:,} classes between them ..."
        rows = [*rows[: CLASSES // 2], (between, []), *rows[-CLASSES // 2 :]]
    for name, numbers in rows:
        result.add_row(name, *(f"{number:,}" for number in numbers))
    return result


def _sizes(seen: dict[str, Any]) -> "Table":
    from cnnkit.cli.console import table

    result = table(["", "smallest", "median", "largest"])
    for name in ("width", "height", "bytes"):
        result.add_row(name, *(f"{value:,.0f}" for value in list(seen[name].values())[:3]))
    result.add_row("width / height", *(f"{value:.2f}" for value in seen["aspect"].values()))
    return result
