"""Summaries of the runs in a folder, read from their files without torch."""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from cnnkit.core.errors import CnnkitError, DataError, UsageError, pick
from cnnkit.core.text import printable, without_passwords
from cnnkit.experiment.history import History, read_metrics, require_number
from cnnkit.experiment.run_folder import RunFolder

__all__ = ["SORT_KEYS", "RunSummary", "list_runs", "sort_runs", "summarise"]

State = Literal["done", "running", "stopped", "corrupt"]
LEVELS = 2  # of folders to search: the runs of a sweep are one level deeper
SIGNS = {"config.toml", "metrics.jsonl", "last.ckpt"}  # a folder with any of them is a run, maybe a corrupt one


@dataclass(frozen=True)
class RunSummary:
    """The state and results of a run; missing ones are None."""

    path: Path
    name: str  # the path within the listed folder
    state: State
    started: float  # Unix time, of the oldest file
    problem: str | None = None  # what is corrupt
    net: str | None = None
    data: str | None = None
    epochs: int = 0
    epochs_asked: int | None = None
    seconds: float = 0.0  # of training, over all epochs
    best_epoch: int | None = None
    val_loss: float | None = None
    val_accuracy: float | None = None
    test_accuracy: float | None = None


def list_runs(folder: Path) -> list[RunSummary]:
    """Return the runs in `folder`, up to two levels down and including corrupt ones, in the order of their start.

    Raises UsageError if there is no such folder.
    """
    if not folder.is_dir():
        raise UsageError(f"{folder}: no such folder; cnnkit train creates runs in runs/ or in --output")
    runs = [summarise(path, str(path.relative_to(folder))) for path in _run_folders(folder, LEVELS)]
    return sort_runs(runs, ["started", "run"])


def summarise(path: Path, name: str | None = None) -> RunSummary:
    """Return the summary of the run folder `path`; `problem` says what cannot be read."""
    facts: dict[str, Any] = {}
    problem = None
    state: State = "corrupt"
    try:
        folder = RunFolder.open(path)
        settings = folder.settings()
        facts["net"], facts["data"] = (without_passwords(_word(settings, key)) for key in ("net", "data"))
        facts["epochs_asked"] = asked = int(require_number(settings, "epochs"))
        facts |= _progress(read_metrics(path))
        if (path / "test.json").exists():
            facts["test_accuracy"] = require_number(folder.read_json("test.json"), "accuracy")
        over = facts["epochs"] >= asked or _out_of_patience(facts, settings.get("patience"))
        state = "done" if over else "running" if _is_locked(path) else "stopped"
        if state == "stopped" and not folder.can_go_on:
            raise DataError("no checkpoint: it cannot be resumed")
    except (CnnkitError, OSError) as error:
        problem, state = str(error).removeprefix(printable(f"{path}{os.sep}")), "corrupt"
    return RunSummary(path, path.name if name in (None, ".") else name, state, _started(path), problem, **facts)


# key: value to sort by, and whether the largest comes first
SORT_KEYS: dict[str, tuple[Callable[[RunSummary], Any], bool]] = {
    "run": (lambda run: _natural(run.name), False),
    "net": (lambda run: run.net and _natural(run.net), False),
    "data": (lambda run: run.data and _natural(run.data), False),
    "val": (lambda run: run.val_accuracy, True),
    "test": (lambda run: run.test_accuracy, True),
    "time": (lambda run: run.seconds, False),
    "started": (lambda run: run.started, False),
}


def sort_runs(runs: Sequence[RunSummary], keys: Sequence[str]) -> list[RunSummary]:
    """Return the runs sorted by SORT_KEYS, later keys breaking ties; runs without the value come last.

    Raises UsageError for an unknown key.
    """
    result = list(runs)
    for key in reversed(keys):
        value, largest_first = pick(SORT_KEYS, key, "sort key")
        have = [run for run in result if value(run) is not None]
        lack = [run for run in result if value(run) is None]
        result = sorted(have, key=value, reverse=largest_first) + lack
    return result


def _run_folders(folder: Path, levels: int) -> Iterator[Path]:
    try:
        entries = list(os.scandir(folder))
    except OSError:  # no permission, or deleted
        return
    if SIGNS & {entry.name for entry in entries}:
        yield folder
    elif levels:
        for entry in entries:
            if entry.is_dir() and not entry.name.startswith("."):
                yield from _run_folders(folder / entry.name, levels - 1)


def _progress(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the results in a run's rows."""
    facts = {"epochs": rows[-1]["epoch"] if rows else 0, "seconds": sum(row["seconds"] for row in rows)}
    if best := History(rows).best:
        facts |= {"best_epoch": best["epoch"], "val_loss": best["val_loss"], "val_accuracy": best["val_accuracy"]}
    return facts


def _out_of_patience(facts: dict[str, Any], patience: Any) -> bool:
    if not isinstance(patience, int) or facts.get("val_accuracy") is None:
        return False
    return bool(facts["epochs"] - facts["best_epoch"] >= patience)


def _word(table: Any, key: str) -> str:
    value = table.get(key) if isinstance(table, dict) else None
    if not isinstance(value, str):
        raise DataError(f"{key} is {value!r}, not a string")
    return value


def _is_locked(path: Path) -> bool:
    """Return whether a process holds the run's lock; a lock that cannot be opened counts as free."""
    lock = path / ".lock"
    if not lock.exists():
        return False
    try:
        with FileLock(lock, timeout=0):
            return False
    except Timeout:
        return True
    except OSError:
        return False


def _started(path: Path) -> float:
    """Return the modification time of the oldest file, as some are written only at the start of a run."""
    times = []
    for file in path.iterdir():
        with suppress(FileNotFoundError):  # a checkpoint that is being renamed
            times.append(file.lstat().st_mtime)
    return min(times, default=0.0)


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a sort key that puts lenet-2 before lenet-10.

    >>> sorted(["lenet-10", "lenet-2", "lenet"], key=_natural)
    ['lenet', 'lenet-2', 'lenet-10']
    """
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]
