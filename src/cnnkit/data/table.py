"""A table of image files and their labels: a CSV file, a list of pairs, or a pandas frame."""

import codecs
import csv
import io
import logging
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cnnkit.core.errors import DataError, unknown
from cnnkit.core.files import atomic_write
from cnnkit.core.text import decode, encode, to_csv
from cnnkit.data.folder import SPLITS, ImageFolder, Split, open_folder
from cnnkit.data.imageset import Dataset
from cnnkit.data.reading import Reading

__all__ = ["is_table", "load_table", "write_table"]

COLUMNS = ("path", "label", "split")  # the last one may be missing
DELIMITERS = ",;\t"
HANDED_IN = "list"  # the name of what is not in a file

log = logging.getLogger(__name__)


class _Row(NamedTuple):
    where: str  # for errors: "row 17"
    path: str
    label: str
    split: str | None  # None where no row says


def is_table(data: Any) -> bool:
    """Say whether this is a list of (path, label), or a frame with columns."""
    if hasattr(data, "columns"):
        return True
    return (
        isinstance(data, list | tuple)
        and bool(data)
        and all(
            isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str | os.PathLike) for row in data
        )
    )


def load_table(data: Any, options: Reading) -> Dataset:
    """Open the images that a table lists: a path in the column path, the name of a class in label.

    Paths are relative to the CSV file, or to the current folder. A column split says train, val or test for each;
    without it a share of each class is set aside for testing, as of a flat folder. Further columns are ignored. Raises
    DataError, with the row, for a column or a file that is missing, a label that is empty, a file that is listed twice,
    and those of `open_folder`.
    """
    if isinstance(data, str | Path):
        file = Path(data).expanduser()
        root, name, rows = file.parent, file.name, list(_read(file))
    else:
        rows = [row._replace(path=row.path and _absolute(row.path)) for row in _handed_in(data)]
        root, name = Path(os.path.commonpath([os.path.dirname(row.path) for row in rows] or ["."])), HANDED_IN  # noqa: PTH120
    if not rows:
        raise DataError(f"{name}: there is no row in it")
    folder = _checked(root, name, rows, skip=options.on_bad_image == "skip")
    return open_folder(folder, options, name)


def write_table(path: Path, data: Any) -> None:
    """Write a list or a frame as a CSV file that `load_table` opens to the same data set, with absolute paths."""
    rows = list(_handed_in(data, told=True))
    columns = COLUMNS[: 2 if rows[0].split is None else 3]
    cells = ([_absolute(row.path), row.label, row.split or ""][: len(columns)] for row in rows)
    atomic_write(path, encode(to_csv([columns, *cells])))


def _read(path: Path) -> Iterator[_Row]:
    try:
        file = io.StringIO(decode(path.read_bytes().removeprefix(codecs.BOM_UTF8)), newline="")
        header = file.readline()
        delimiter = max(DELIMITERS, key=header.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        names = [name.strip().lower() for name in next(reader, [])]
        has_split = _check_columns(str(path), names)
        for number, cells in enumerate(reader, start=2):
            if any(cell.strip() for cell in cells):
                row = dict(zip(names, (cell.strip() for cell in cells), strict=False))
                split = row.get("split", "") if has_split else None
                yield _Row(f"{path}, row {number}", row.get("path", ""), row.get("label", ""), split)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error


def _handed_in(data: Any, told: bool = False) -> Iterator[_Row]:
    """Yield the rows of a frame, or of a list."""
    if not hasattr(data, "columns"):
        for number, (path, label) in enumerate(data):
            yield _Row(f"row {number} of the list", _text(path), _text(label), None)
        return
    names = [str(name).strip().lower() for name in data.columns]
    has_split = _check_columns("the frame", names, told)
    columns = {name: list(data[own]) for name, own in zip(names, data.columns, strict=True) if name in COLUMNS}
    splits: Iterable[Any] = columns["split"] if has_split else [None] * len(columns["path"])
    for number, (path, label, split) in enumerate(zip(columns["path"], columns["label"], splits, strict=True)):
        where = f"row {number} of the frame"
        yield _Row(where, _text(path), _text(label), _text(split) if has_split else None)


def _text(value: Any) -> str:
    """Return a cell's text; "" where there is none, which pandas calls NaN or NA."""
    value = value.item() if hasattr(value, "item") else value
    missing = value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
    return "" if missing else str(value).strip()


def _check_columns(where: str, names: list[str], told: bool = False) -> bool:
    """Return whether there is a column split; raises DataError if path or label is missing."""
    for name in COLUMNS[:2]:
        if name not in names:
            raise DataError(f"{where}: row 1 names no column {name!r}, but {', '.join(names) or 'nothing'}")
    if twice := sorted({name for name in COLUMNS if names.count(name) > 1}):
        raise DataError(f"{where}: row 1 names the column {twice[0]!r} twice")
    if not told and (ignored := [name for name in names if name not in COLUMNS]):
        log.warning("%s: columns ignored: %s", where, ", ".join(ignored))
    return COLUMNS[2] in names


def _checked(root: Path, name: str, rows: list[_Row], skip: bool) -> ImageFolder:
    """Return the rows as if they had been found in folders; raises DataError for the first that cannot be used."""
    seen: dict[str, str] = {}
    splits: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if not row.path or not row.label:
            raise DataError(f"{row.where}: the {'label' if row.path else 'path'} is empty")
        path = os.path.normpath(row.path)
        if path in seen:
            raise DataError(f"{row.where}: {row.path} is listed in {seen[path].rpartition(', ')[2]} already")
        seen[path] = row.where
        if not skip and not os.path.isfile(os.path.join(root, path)):  # noqa: PTH113, PTH118  Paths take longer
            raise DataError(f"{row.where}: {row.path}: no such file; leave such rows out with on_bad_image skip")
        split = "train" if row.split is None else SPLITS.get(row.split.lower())
        if split is None:
            raise DataError(f"{row.where}: {unknown('split', row.split, ('train', 'val', 'test'))}")
        splits.setdefault(split, []).append((path, row.label))
    if "train" not in splits:
        raise DataError(f"{root / name}: no row is of the split train")
    classes = tuple(sorted({row.label for row in rows}, key=_by_number))
    numbers = {label: number for number, label in enumerate(classes)}
    order = [split for split in ("train", "validation", "test") if split in splits]
    found: dict[str, Split] = {
        split: Split(*zip(*((path, numbers[label]) for path, label in sorted(splits[split])), strict=True))
        for split in order
    }
    return ImageFolder(root, classes, found, flat=rows[0].split is None)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  resolve() would follow links


def _by_number(label: str) -> tuple[int, int, str]:
    """Sort labels that are numbers by their size, and before words."""
    return (0, int(label), label) if label.isdecimal() else (1, 0, label)
