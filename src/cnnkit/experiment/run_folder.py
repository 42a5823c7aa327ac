"""The folder of a run: what was asked, what happened, and on which machine."""

import json
import platform
import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock, Timeout

from cnnkit import __version__
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import atomic_write, make_folder, read_bytes
from cnnkit.core.text import encode, file_name, from_json, from_toml, to_json, without_passwords

__all__ = ["RunFolder", "read_toml"]

BEFORE = {"norm_statistics": "moving"}  # settings that earlier versions did not write down, and what they did


class RunFolder:
    """A folder `<parent>/<stem>-<n>` of its own for each run; nothing in it is ever overwritten by another."""

    def __init__(self, path: Path):
        self.path = path
        self.checkpoint, self.best, self.config_file = path / "last.ckpt", path / "best", path / "config.toml"
        self.plan = path / "plan.json"

    @classmethod
    def create(cls, parent: Path, stem: str, job: str | None = None) -> "RunFolder":
        """Make the next free folder and write environment.json; raises CnnkitError if it cannot.

        `job` is what `RunFolder.of_job` finds it by.
        """
        make_folder(parent)
        number = 1
        while True:
            path = parent / f"{file_name(stem)}-{number}"
            try:
                path.mkdir()
                break
            except FileExistsError:
                number += 1
            except OSError as error:
                raise CnnkitError(
                    f"cannot make a run folder in {parent}: {error.strerror}; choose another with --output"
                ) from error
        run = cls(path)
        run.write_json("environment.json", _environment() | ({"job": job} if job else {}))
        return run

    @classmethod
    def open(cls, path: Path) -> "RunFolder":
        """Return the run in `path`; raises UsageError if it is none."""
        run = cls(path)
        if not run.config_file.is_file():
            raise UsageError(f"{path} is not a run folder: it has no config.toml")
        return run

    @classmethod
    def latest(cls, parent: Path) -> "RunFolder":
        """Return the run in `parent` that was trained last; raises UsageError if there is none."""
        checkpoints = sorted(parent.glob("*/last.ckpt"), key=lambda path: path.stat().st_mtime)
        if not checkpoints:
            raise UsageError(f"{parent} has no run to resume; name one, or its folder with --output")
        return cls.open(checkpoints[-1].parent)

    @classmethod
    def of_job(cls, parent: Path, job: str) -> "Iterator[RunFolder]":
        """Yield the runs in `parent` that earlier starts of this job have begun, the newest first."""
        begun = [path for path in parent.glob("*/environment.json") if path.with_name("last.ckpt").exists()]
        for path in sorted(begun, key=lambda path: path.stat().st_mtime, reverse=True):
            run = cls(path.parent)
            if run.read_json(path.name).get("job") == job:
                yield run

    @contextmanager
    def locked(self, wanted: bool = True) -> Iterator[None]:
        """Keep other processes from training this run, if `wanted`; raises CnnkitError if one does already."""
        if not wanted:
            yield
            return
        try:
            with FileLock(self.path / ".lock", timeout=1):  # one that only looks holds it for an instant
                self._sweep()
                yield
        except Timeout as error:
            raise CnnkitError(f"another process is training {self.path}") from error

    def _sweep(self) -> None:
        """Remove what a killed process was writing."""
        for file in self.path.glob(f".{self.checkpoint.stem}.*.tmp"):
            file.unlink()
        for folder in self.path.glob(f".{self.best.name}.*.new"):
            shutil.rmtree(folder)

    def settings(self) -> dict[str, Any]:
        """Return config.toml, and what was so before it was a setting; raises UsageError if it is damaged."""
        return BEFORE | read_toml(self.config_file)

    def write_settings(self, settings: dict[str, Any]) -> None:
        """Write config.toml, without what is not set."""
        text = tomli_w.dumps({name: v for name, v in settings.items() if v is not None})
        atomic_write(self.config_file, encode(text))

    def write_json(self, name: str, content: Any) -> None:
        """Write a JSON file into the folder, atomically."""
        atomic_write(self.path / name, to_json(content) + "\n")

    def read_json(self, name: str) -> Any:
        """Return what `write_json` wrote; raises CnnkitError if it is missing or damaged."""
        try:
            return from_json(read_bytes(self.path / name))
        except (OSError, ValueError) as error:
            raise CnnkitError(f"{self.path / name}: cannot be read ({error})") from error

    def add_metrics(self, row: dict[str, Any]) -> None:
        """Append a row to metrics.jsonl."""
        self._append("metrics.jsonl", json.dumps(row))

    def drop_metrics_from(self, epoch: int) -> None:
        """Forget the rows of `epoch` and later, which a resumed run is about to repeat."""
        path = self.path / "metrics.jsonl"
        if path.exists():
            lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
            rows = [row for line in lines if (row := _parse(line)) and row["epoch"] < epoch]
            atomic_write(path, "".join(f"{json.dumps(row)}\n" for row in rows))

    def log(self, lines: Iterable[str]) -> None:
        """Append lines to log.txt."""
        for line in lines:
            self._append("log.txt", line)

    def _append(self, name: str, line: str) -> None:
        try:
            with (self.path / name).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
        except OSError as error:
            raise CnnkitError(f"cannot write {self.path / name}: {error.strerror}; make room") from error


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
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("epoch"), int) else None


def _environment() -> dict[str, Any]:
    import torch

    return {
        "cnnkit": __version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": platform.processor() or platform.machine(),
        "threads": torch.get_num_threads(),
        "command": [without_passwords(word) for word in sys.argv],
    }
