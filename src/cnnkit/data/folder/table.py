"""A table of image files and their labels: a CSV file, a list of pairs, or a pandas frame."""

import codecs
import csv
import io
import logging
import os
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cnnkit.core.errors import DataError, unknown
from cnnkit.core.files import atomic_write, open_file, read_bytes
from cnnkit.core.places import expanded
from cnnkit.core.text import decode, encode, to_csv, whole_number
from cnnkit.data.folder.dataset import ImageFolder, Split, open_folder
from cnnkit.data.folder.layout import class_name
from cnnkit.data.folder.walk import Tree, walk
from cnnkit.data.imageset import Dataset
from cnnkit.data.reading import Reading
from cnnkit.data.split_names import SPLITS, split_of

__all__ = ["is_table", "listing_in", "load_table", "write_table"]

COLUMNS = {  # columns and their common names; the first name that exists is used
    "path": (
        "path",
        "filepath",
        "file_path",
        "filename",
        "file_name",
        "file",
        "image_path",
        "image",
        "img",
        "image_id",
        "id",
    ),
    "label": ("label", "labels", "class", "class_name", "category", "target", "y"),
    "split": ("split", "subset"),
}
DELIMITERS = ",;\t"
LONGEST_HEADER = 1 << 16  # bytes of the first line
FROM_PYTHON = "list"  # the name of a table that is not a file

log = logging.getLogger(__name__)


class _Row(NamedTuple):
    where: str  # for errors: "row 17"
    path: str
    label: str
    split: str | None  # None without such a column


def is_table(data: Any) -> bool:
    """Return whether data is a list of (path, label), or a frame with columns."""

    def is_row(row: Any) -> bool:
        return isinstance(row, list | tuple) and len(row) == 2 and isinstance(row[0], str | os.PathLike)

    return hasattr(data, "columns") or (isinstance(data, list | tuple) and bool(data) and all(map(is_row, data)))


def load_table(data: Any, options: Reading) -> Dataset:
    """Open the images that a table lists, with the columns path and label (the class name).

    COLUMNS has other names of the columns. Paths are relative to the CSV file, or to the current folder; a path may
    lack its suffix, or the folders between the CSV file and the image. An optional column split holds train, val or
    test; without it, a fraction of each class is held out for testing, as of a flat folder. Other columns are ignored.
    Raises DataError, with the row, for a missing column or file, an empty label, and a file that is listed twice, and
    the errors of `open_folder`.
    """
    finder = None
    if isinstance(data, str | Path):
        file = expanded(data)
        root, name, rows = file.parent, file.name, list(_read(file))
        finder = _Finder(root)
    else:
        rows = [row._replace(path=row.path and _absolute(row.path)) for row in _from_python(data)]
        folders = [os.path.dirname(row.path) for row in rows]  # noqa: PTH120  a Path takes longer
        root, name = Path(os.path.commonpath(folders or ["."])), FROM_PYTHON
    if not rows:
        raise DataError(f"{name}: it has no rows")
    folder = _checked(root, name, rows, finder, skip=options.on_bad_image == "skip")
    return open_folder(folder, options, name)


def listing_in(tree: Tree) -> Path | None:
    """Return the CSV file in a folder that lists the labels of its images, if their folders are not classes.

    Raises DataError if there are several.
    """
    holders = {path.rpartition("/")[0] for path in tree.images} - {""}
    if not all("/" not in holder and (len(holders) == 1 or split_of(holder)) for holder in holders):
        return None
    found = [tree.root / name for name in tree.others if "/" not in name and name.lower().endswith(".csv")]
    usable = [path for path in found if {"path", "label"} <= _columns(_header(path)).keys()]
    best = [path for path in usable if split_of(path.stem) == "train"] or usable
    if len(best) > 1:
        commands = " or ".join(f"--data {path}" for path in best)
        raise DataError(f"{tree.root} has several CSV files that list labels; name one of them: {commands}")
    return best[0] if best else None


def write_table(path: Path, data: Any) -> None:
    """Write a list or a frame as a CSV file with absolute paths, from which `load_table` opens the same data set."""
    rows = list(_from_python(data, quiet=True))
    columns = list(COLUMNS)[: 2 if rows[0].split is None else 3]
    cells = ([_absolute(row.path), row.label, row.split or ""][: len(columns)] for row in rows)
    atomic_write(path, encode(to_csv([columns, *cells])))


def _read(path: Path) -> Iterator[_Row]:
    try:
        file = io.StringIO(decode(read_bytes(path).removeprefix(codecs.BOM_UTF8)), newline="")
        header = file.readline()
        delimiter = max(DELIMITERS, key=header.count)
        file.seek(0)
        reader = csv.reader(file, delimiter=delimiter)
        places = _require_columns(str(path), next(reader, []))
        for number, cells in enumerate(reader, start=2):
            if any(cell.strip() for cell in cells):
                row = {name: cells[at].strip() if at < len(cells) else "" for name, at in places.items()}
                yield _Row(f"{path}, row {number}", row["path"], row["label"], row.get("split"))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except csv.Error as error:
        raise DataError(f"{path}: not a CSV file ({error})") from error


def _header(path: Path) -> list[str]:
    """Return the names of the columns of a possible CSV file; none if it cannot be read."""
    try:
        with open_file(path) as file:
            line = decode(file.readline(LONGEST_HEADER).removeprefix(codecs.BOM_UTF8))
        return next(csv.reader([line], delimiter=max(DELIMITERS, key=line.count)), [])
    except (OSError, csv.Error):
        return []


def _from_python(data: Any, quiet: bool = False) -> Iterator[_Row]:
    """Yield the rows of a frame, or of a list."""
    if not hasattr(data, "columns"):
        for number, (path, label) in enumerate(data):
            yield _Row(f"row {number} of the list", _text(path), _text(label), None)
        return
    places = _require_columns("the frame", data.columns, quiet)
    columns = {name: list(data[data.columns[at]]) for name, at in places.items()}
    splits: Iterable[Any] = columns.get("split") or [None] * len(columns["path"])
    for number, (path, label, split) in enumerate(zip(columns["path"], columns["label"], splits, strict=True)):
        where = f"row {number} of the frame"
        yield _Row(where, _text(path), _text(label), _text(split) if "split" in columns else None)


def _text(value: Any) -> str:
    """Return a cell's text; "" for a missing value, which is NaN or NA in pandas."""
    value = value.item() if hasattr(value, "item") else value
    missing = value is None or type(value).__name__ in ("NAType", "NaTType") or value != value
    return "" if missing else str(value).strip()


def _columns(header: Iterable[Any]) -> dict[str, int]:
    """Return the index of each of COLUMNS that a header has."""
    names = [str(name).strip().lower() for name in header]
    found = {column: next((name for name in known if name in names), None) for column, known in COLUMNS.items()}
    if found["label"] is None and found["path"] and len(names) == 2:  # by any name
        found["label"] = next(name for name in names if name != found["path"])
    return {column: names.index(name) for column, name in found.items() if name is not None}


def _require_columns(where: str, header: Iterable[Any], quiet: bool = False) -> dict[str, int]:
    """Return the index of each column; raises DataError if path or label is missing, or a column is repeated."""
    names = [str(name).strip().lower() for name in header]
    places = _columns(names)
    for name in ("path", "label"):
        if name not in places:
            raise DataError(f"{where}: row 1 has no column {name!r}, only {', '.join(names) or 'an empty line'}")
    if twice := sorted(names[at] for at in places.values() if names.count(names[at]) > 1):
        raise DataError(f"{where}: row 1 has the column {twice[0]!r} twice")
    if not quiet and (ignored := [name for at, name in enumerate(names) if at not in places.values()]):
        log.warning("%s: columns ignored: %s", where, ", ".join(ignored))
    return places


class _Finder:
    """A search for images by the end of their path below a folder, which is scanned at the first use."""

    def __init__(self, root: Path):
        self.root = root
        self.by_name: dict[str, list[str]] | None = None

    def find(self, where: str, path: str) -> str | None:
        """Return the image whose path, with or without suffix, ends in `path`; raises DataError for several."""
        if self.by_name is None:
            self.by_name = defaultdict(list)
            for image in walk(self.root).images:
                name = image.rpartition("/")[2]
                for key in {name, name.rpartition(".")[0]}:
                    self.by_name[key].append(image)
        fitting = [
            image
            for image in self.by_name.get(path.rpartition("/")[2], ())
            if f"/{image}".endswith(f"/{path}") or f"/{image.rpartition('.')[0]}".endswith(f"/{path}")
        ]
        if len(fitting) > 1:
            raise DataError(f"{where}: {path} is ambiguous: {' or '.join(sorted(fitting)[:2])}; write more of its path")
        return fitting[0] if fitting else None


def _checked(root: Path, name: str, rows: list[_Row], finder: _Finder | None, skip: bool) -> ImageFolder:
    """Return the rows as an ImageFolder; raises DataError for the first invalid row."""
    seen: dict[str, str] = {}
    splits: dict[str, list[tuple[str, str]]] = {}
    for row in rows:
        if not row.path or not row.label:
            raise DataError(f"{row.where}: the {'label' if row.path else 'path'} is empty")
        path = os.path.normpath(row.path)
        if not os.path.isfile(os.path.join(root, path)):  # noqa: PTH113, PTH118  Paths take longer
            found = finder.find(row.where, path) if finder else None
            if not found and not skip:
                raise DataError(f"{row.where}: {row.path}: no such file; skip such rows with --on-bad-image skip")
            path = found or path
        if path in seen:
            raise DataError(f"{row.where}: {row.path} is already listed in {seen[path].rpartition(', ')[2]}")
        seen[path] = row.where
        split = "train" if row.split is None else split_of(row.split)
        if split not in SPLITS:
            raise DataError(f"{row.where}: {unknown('split', row.split or '', ('train', 'val', 'test'))}")
        splits.setdefault(split, []).append((path, class_name(row.label)))
    if "train" not in splits:
        raise DataError(f"{root / name}: no row has the split train")
    classes = tuple(sorted({label for own in splits.values() for _, label in own}, key=_by_number))
    numbers = {label: number for number, label in enumerate(classes)}
    found_splits: dict[str, Split] = {
        split: Split(*zip(*((path, numbers[label]) for path, label in sorted(splits[split])), strict=True))
        for split in SPLITS
        if split in splits
    }
    return ImageFolder(root, classes, found_splits)


def _absolute(path: str) -> str:
    return os.path.abspath(os.path.expanduser(path))  # noqa: PTH100, PTH111  resolve() would follow links


def _by_number(label: str) -> tuple[int, int, str]:
    """Return a sort key that puts numbers in numerical order, before words."""
    number = whole_number(label)
    return (1, 0, label) if number is None else (0, number, label)
