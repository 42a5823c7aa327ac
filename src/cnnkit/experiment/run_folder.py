"""The folder of a run: its settings, metrics, log, split, environment and checkpoints."""

import itertools
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import tomli_w
from filelock import Timeout

from cnnkit.core.errors import CnnkitError, UsageError, reading
from cnnkit.core.files import CannotWrite, append, atomic_write, cannot_write, lock, make_folder, read_bytes, sweep
from cnnkit.core.schema import brief
from cnnkit.core.text import encode, file_name, from_json, from_toml, to_json, without_passwords
from cnnkit.experiment.record import SPLIT

__all__ = ["ENVIRONMENT", "RunFolder", "read_toml"]

ENVIRONMENT, METRICS = "environment.json", "metrics.jsonl"
CHECKPOINTS = r"last(\.(new|[0-9]+))?\.ckpt"
VISIBLE = "[!.]*"  # runs; drafts start with a dot
STALE_SECONDS = 3600  # age of a draft whose process must be gone
BEFORE = {"norm_statistics": "moving"}  # behaviour of earlier versions, which had no such setting


class RunFolder:
    """A run's own folder `<parent>/<stem>-<n>`, which no other run overwrites."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint, self.best, self.config_file = path / "last.ckpt", path / "best", path / "config.toml"
        self.plan = path / "plan.json"

    @classmethod
    @contextmanager
    def drafted(cls, parent: Path, stem: str) -> Iterator[tuple["RunFolder", Path]]:
        """Yield a draft of a new run folder, and the path to which it is renamed after the block.

        A run thus appears only with all that it needs to start. Raises CnnkitError if the folder cannot be created.
        """
        make_folder(parent)
        try:
            draft, path = _free_number(parent, file_name(stem))
            try:
                yield cls(draft), path
                draft.rename(path)
            finally:
                shutil.rmtree(draft, ignore_errors=True)
        except (OSError, CannotWrite) as error:
            reason = error.reason if isinstance(error, CannotWrite) else error.strerror
            raise CnnkitError(
                f"cannot create a run folder in {parent}: {reason}; free some space, or choose another --output"
            ) from (error.__cause__ or error)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run in `path`; raises UsageError if it is not a run folder."""
        run = cls(path)
        if not run.config_file.is_file():
            raise UsageError(f"{path} is not a run folder: it has no config.toml")
        return run

    @classmethod
    def latest(cls, parent: Path) -> "RunFolder":
        """Return the run in `parent` that was trained or started last; raises UsageError if there is none."""
        runs = [cls(path.parent) for path in parent.glob(f"{VISIBLE}/config.toml")]
        if not runs:
            raise UsageError(f"{parent} has no run to resume; pass the run's folder, or --output with its parent")
        return max(runs, key=lambda run: max(_changed(run.checkpoint), _changed(run.path / ENVIRONMENT)))

    @classmethod
    def of_job(cls, parent: Path, job: str) -> "Iterator[RunFolder]":
        """Yield the runs in `parent` that earlier starts of this job created, newest first."""
        for path in sorted(parent.glob(f"{VISIBLE}/{ENVIRONMENT}"), key=_changed, reverse=True):
            run = cls(path.parent)
            with suppress(CnnkitError):  # skip corrupt ones
                if run.read_json(path.name).get("job") == job:
                    yield run

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint, valid or not."""
        return any(re.fullmatch(CHECKPOINTS, path.name) for path in self.path.glob("*.ckpt"))

    @property
    def has_begun(self) -> bool:
        """Whether training has started; False for a run that was stopped before its first checkpoint."""
        return self.has_checkpoint or (self.path / METRICS).exists()

    @property
    def can_go_on(self) -> bool:
        """Whether the run has a checkpoint to resume from, or has not started and has all that it needs to."""
        return self.has_checkpoint or (not self.has_begun and (self.path / SPLIT).exists())

    @contextmanager
    def locked(self, wanted: bool = True) -> Iterator[None]:
        """Lock the run against training by other processes, if `wanted`; raises CnnkitError if it is locked."""
        if not wanted:
            yield
            return
        try:
            with lock(self.path / ".lock", timeout=1):  # `cnnkit runs` holds it for an instant to query it
                for name in {left.name[1:].rsplit(".", 2)[0] for left in self.path.glob(".*.*")}:
                    sweep(self.path / name)  # of a killed process
                yield
        except Timeout as error:
            raise CnnkitError(f"another process is training {self.path}") from error

    def settings(self) -> dict[str, Any]:
        """Return config.toml, with the behaviour of earlier versions as default; raises UsageError if it is corrupt."""
        return BEFORE | read_toml(self.config_file)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write config.toml, without unset settings; only the user can read one that holds the password of a URL."""
        text = tomli_w.dumps({name: v for name, v in settings.items() if v is not None})
        atomic_write(self.config_file, encode(text), 0o666 if without_passwords(text) == text else 0o600)

    def write_environment(self, conditions: Mapping[str, Any], job: str | None) -> None:
        """Write environment.json: the machine and the conditions of the run; `of_job` finds it by its `job`."""
        facts = {
            **conditions,
            "python": platform.python_version(),
            "platform": platform.platform(),
            "command": [without_passwords(word) for word in sys.argv],
        }
        self.write_json(ENVIRONMENT, facts | ({"job": job} if job else {}))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file into the folder, atomically."""
        atomic_write(self.path / name, to_json(content) + "\n")

    def read_json(self, name: str) -> dict[str, Any]:
        """Return the object in a JSON file; raises CnnkitError if it is missing or corrupt."""
        with reading(self.path / name):
            content = from_json(read_bytes(self.path / name))
            if not isinstance(content, dict):
                raise ValueError(f"{brief(content)} is not an object")
            return content

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._append(METRICS, to_json(row, indent=None))

    def drop_metrics_from(self, epoch: int) -> None:
        """Remove the rows of `epoch` and later, which a resumed run repeats."""
        path = self.path / METRICS
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            rows = [row for line in lines if (row := _parse(line)) and row["epoch"] < epoch]
            atomic_write(path, "".join(f"{to_json(row, indent=None)}\n" for row in rows))

    def log(self, lines: Iterable[str]) -> None:
        """Append lines to log.txt."""
        for line in lines:
            self._append("log.txt", line)

    def _append(self, name: str, line: str) -> None:
        try:
            append(self.path / name, f"{line}\n".encode())
        except OSError as error:
            raise cannot_write(self.path / name, error) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a TOML file; raises UsageError if it is missing or malformed."""
    try:
        return from_toml(read_bytes(path))
    except OSError as error:
        raise UsageError(f"{path}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise UsageError(f"{path}: not a TOML file ({error})") from error


def _parse(line: str) -> dict[str, Any] | None:
    """Return the row in a line, or None if a crash or a full disk cut it off."""
    try:
        row = from_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("epoch"), int) else None


def _free_number(parent: Path, name: str) -> tuple[Path, Path]:
    """Create the draft of `name` with the first unused number; raises OSError."""
    for left in parent.glob(f".{name}-*.new"):
        if time.time() - _changed(left) > STALE_SECONDS:  # its process was killed
            shutil.rmtree(left, ignore_errors=True)
    for number in itertools.count(1):
        path = parent / f"{name}-{number}"
        draft = parent / f".{path.name}.new"
        if os.path.lexists(path):
            continue
        with suppress(FileExistsError):
            draft.mkdir()
            if not os.path.lexists(path):  # unless another process has just renamed its draft
                return draft, path
            draft.rmdir()
    raise AssertionError  # there is always another number


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
