"""The folder of a run: what was asked, what happened, and on which machine."""

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

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import CannotWrite, append, atomic_write, cannot_write, lock, make_folder, read_bytes, sweep
from cnnkit.core.schema import brief
from cnnkit.core.text import encode, file_name, from_json, from_toml, to_json, without_passwords
from cnnkit.experiment.record import SPLIT

__all__ = ["ENVIRONMENT", "RunFolder", "read_toml"]

ENVIRONMENT, METRICS = "environment.json", "metrics.jsonl"
CHECKPOINTS = r"last(\.(new|[0-9]+))?\.ckpt"
SEEN = "[!.]*"  # runs; those with a dot are drafts
LEFT_SECONDS = 3600  # a draft as old as this has nobody who fills it
BEFORE = {"norm_statistics": "moving"}  # settings that earlier versions did not write down, and what they did


class RunFolder:
    """A folder `<parent>/<stem>-<n>` of its own for each run; nothing in it is ever overwritten by another."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint, self.best, self.config_file = path / "last.ckpt", path / "best", path / "config.toml"
        self.plan = path / "plan.json"

    @classmethod
    @contextmanager
    def drafted(cls, parent: Path, stem: str) -> Iterator[tuple["RunFolder", Path]]:
        """Yield the draft of a new run folder, and the path that it takes when the block has filled it.

        So a run is seen when it has all that it needs to begin, and not before. Raises CnnkitError if the folder cannot
        be made.
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
                f"cannot make a run folder in {parent}: {reason}; make room, or choose another with --output"
            ) from (error.__cause__ or error)

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run in `path`; raises UsageError if it is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise UsageError(f"{path} is not a run folder: it has no config.toml")
        return run

    @classmethod
    def latest(cls, parent: Path) -> "RunFolder":
        """Return the run in `parent` that was trained last, or begun; raises UsageError if there is none."""
        runs = [cls(path.parent) for path in parent.glob(f"{SEEN}/config.toml")]
        if not runs:
            raise UsageError(f"{parent} has no run to resume; name one, or its folder with --output")
        return max(runs, key=lambda run: max(_changed(run.checkpoint), _changed(run.path / ENVIRONMENT)))

    @classmethod
    def of_job(cls, parent: Path, job: str) -> "Iterator[RunFolder]":
        """Yield the runs in `parent` that earlier starts of this job have begun, the newest first."""
        for path in sorted(parent.glob(f"{SEEN}/{ENVIRONMENT}"), key=_changed, reverse=True):
            run = cls(path.parent)
            with suppress(CnnkitError):  # one that is corrupt is not found
                if run.read_json(path.name).get("job") == job:
                    yield run

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is one, whole or not."""
        return any(re.fullmatch(CHECKPOINTS, path.name) for path in self.path.glob("*.ckpt"))

    @property
    def has_begun(self) -> bool:
        """Whether it has been trained; a run that was stopped before its first checkpoint has not."""
        return self.has_checkpoint or (self.path / METRICS).exists()

    @property
    def can_go_on(self) -> bool:
        """Whether it has a checkpoint to go on from, or all that it needs to begin."""
        return self.has_checkpoint or (not self.has_begun and (self.path / SPLIT).exists())

    @contextmanager
    def locked(self, wanted: bool = True) -> Iterator[None]:
        """Keep other processes from training this run, if `wanted`; raises CnnkitError if one does already."""
        if not wanted:
            yield
            return
        try:
            with lock(self.path / ".lock", timeout=1):  # one that only looks holds it for an instant
                self._sweep()
                yield
        except Timeout as error:
            raise CnnkitError(f"another process is training {self.path}") from error

    def _sweep(self) -> None:
        """Remove what a killed process was writing."""
        names = {left.name[1:].rsplit(".", 2)[0] for left in self.path.glob(".*.*")}
        for name in names:
            sweep(self.path / name)

    def settings(self) -> dict[str, Any]:
        """Return config.toml, and what was so before it was a setting; raises UsageError if it is damaged."""
        return BEFORE | read_toml(self.config_file)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write config.toml, without what is not set."""
        text = tomli_w.dumps({name: v for name, v in settings.items() if v is not None})
        atomic_write(self.config_file, encode(text))

    def write_environment(self, conditions: Mapping[str, Any], job: str | None) -> None:
        """Write environment.json: where and under which conditions the run began; `of_job` finds it by its `job`."""
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
        """Return the object that `write_json` wrote; raises CnnkitError if it is missing or corrupt."""
        try:
            content = from_json(read_bytes(self.path / name))
            if not isinstance(content, dict):
                raise ValueError(f"{brief(content)} is no object")
            return content
        except OSError as error:
            raise CnnkitError(f"{self.path / name}: cannot be read ({error.strerror})") from error
        except ValueError as error:
            raise CnnkitError(f"{self.path / name}: corrupt ({error})") from error

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._append(METRICS, to_json(row, indent=None))

    def drop_metrics_from(self, epoch: int) -> None:
        """Forget the rows of `epoch` and later, which a resumed run is about to repeat."""
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
    """Return the row in a line, or None for one that a crash or a full disk tore."""
    try:
        row = from_json(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("epoch"), int) else None


def _free_number(parent: Path, name: str) -> tuple[Path, Path]:
    """Make the draft of `name` with the first number that no run has; raises OSError."""
    for left in parent.glob(f".{name}-*.new"):
        if time.time() - _changed(left) > LEFT_SECONDS:  # its process was killed
            shutil.rmtree(left, ignore_errors=True)
    for number in itertools.count(1):
        path = parent / f"{name}-{number}"
        draft = parent / f".{path.name}.new"
        if os.path.lexists(path):
            continue
        with suppress(FileExistsError):
            draft.mkdir()
            if not os.path.lexists(path):  # another process has not just finished it
                return draft, path
            draft.rmdir()
    raise AssertionError  # there is always another number


def _changed(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
