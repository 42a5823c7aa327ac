"""CSV files, lists and data frames of image files: their meaning, and errors that name the row."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cnnkit.core.errors import DataError
from cnnkit.data import load_dataset, load_folder
from helpers.cli import Cli, one_line


@pytest.fixture
def folder() -> Path:
    """A flat folder of two classes, ten images each."""
    for label in ("cat", "dog"):
        for number in range(10):
            path = Path("photos", label, f"{number}.png")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((6, 6), 20 * number + (label == "dog"), np.uint8)).save(path)
    return Path("photos")


def rows(folder: Path) -> list[tuple[str, str]]:
    return [(f"{path.parent.name}/{path.name}", path.parent.name) for path in sorted(folder.rglob("*.png"))]


def write(folder: Path, content: str, name: str = "labels.csv") -> Path:
    (folder / name).write_text(content)
    return folder / name


def table(folder: Path) -> str:
    return "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows(folder))


def load(data: Any, **options: Any) -> Any:
    return load_dataset(data, progress=False, **options)


def test_csv_dataset_equals_the_folder_it_lists(folder: Path) -> None:
    expected = load_folder(folder, progress=False)
    for data in (write(folder, table(folder)), str(write(folder, table(folder)))):
        found = load(data)
        assert (found.name, found.classes) == ("labels", ("cat", "dog"))
        for one, other in ((found.train, expected.train), (found.test, expected.test)):
            assert one.names == other.names
            assert one.labels.equal(other.labels)
            assert one.images[:].equal(other.images[:])


def test_lists_and_frames_are_relative_to_the_current_folder(folder: Path) -> None:
    expected = load(write(folder, table(folder)))
    here = [(f"photos/{path}", label) for path, label in rows(folder)]
    for data in (here, [(Path(path), label) for path, label in here], pd.DataFrame(here, columns=["path", "label"])):
        found = load(data)
        assert found.train.images[:].equal(expected.train.images[:])
        assert found.train.names == tuple(str(folder.absolute() / name) for name in expected.train.names)
        assert found.sha256 is None


def test_split_column_is_used_and_others_are_ignored(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    splits = ["train"] * 6 + ["val", "VALID", "test", " test"]
    lines = [f"{label},{splits[i % 10]},x,{path}\n" for i, (path, label) in enumerate(rows(folder))]
    found = load(write(folder, "label,Split,more,path\n" + "".join(lines)))
    assert [len(part) for part in (found.train, found.validation, found.test)] == [12, 4, 4]
    assert caplog.messages == ["photos/labels.csv: columns ignored: more"]
    frame = pd.read_csv(folder / "labels.csv").rename(columns=str.lower).assign(path=lambda f: "photos/" + f.path)
    assert [len(part) for part in (load(frame).train, load(frame).validation, load(frame).test)] == [12, 4, 4]


@pytest.mark.parametrize("delimiter", [";", "\t"])
def test_csv_of_spreadsheets_is_read(folder: Path, delimiter: str) -> None:
    text = "\ufeff" + table(folder).replace(",", delimiter).replace("\n", "\r\n") + "\r\n"
    (folder / "labels.csv").write_bytes(text.encode())
    assert load(folder / "labels.csv").classes == ("cat", "dog")


def test_numeric_labels_are_sorted_by_value(folder: Path) -> None:
    lines = [f"{path},{number % 12}\n" for number, (path, _) in enumerate(rows(folder))]
    assert load(write(folder, "path,label\n" + "".join(lines)), test_fraction=0).classes == tuple(map(str, range(12)))


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "row 1 has no column 'path', only an empty line"),
        ("path,lable,x\ncat/0.png,cat,1\n", "row 1 has no column 'label', only path, lable, x"),
        ("path,label,path\n", "row 1 has the column 'path' twice"),
        ("path,label\n", "it has no rows"),
        ("path,label\ncat/0.png,cat\ncat/1.png,\n", "row 3: the label is empty"),
        ("path,label\ncat/0.png,cat\n,dog\n", "row 3: the path is empty"),
        ("path,label\ncat/0.png\n", "row 2: the label is empty"),
        ("path,label\ncat/0.png,cat\n\ncat/99.png,cat\n", "row 4: cat/99.png: no such file"),
        ("path,label\ncat/0.png,cat\n./cat/0.png,dog\n", "row 3: ./cat/0.png is already listed in row 2"),
        ("path,label,split\ncat/0.png,cat,trian\n", "row 2: unknown split 'trian'; did you mean 'train'"),
        ("path,label,split\ncat/0.png,cat,\n", "row 2: unknown split ''"),
        ("path,label,split\ncat/0.png,cat,test\n", "no row has the split train"),
        ("path,label\ncat/0.png,cat\ncat/1.png,cat\n", "has only one class, 'cat'"),
        ('path,label\n"cat/0.png,cat\n' + "x" * 200_000, "not a CSV file"),
    ],
)
def test_errors_name_their_row(folder: Path, content: str, words: str, cli: Cli) -> None:
    path = write(folder, content)
    one_line(cli("train", "lenet", "--data", path, "--epochs", 1), 3, words)
    assert not Path("runs").exists()


def test_data_frame_errors_name_the_row(folder: Path) -> None:
    here = [(f"photos/{path}", label) for path, label in rows(folder)]
    split = pd.DataFrame(here, columns=["path", "label"]).assign(split=[None] * 10 + ["test"] * 10)
    with pytest.raises(DataError, match="row 0 of the frame: unknown split ''"):
        load(split)
    frame = pd.DataFrame({"path": ["photos/cat/0.png", "photos/cat/1.png"], "label": ["cat", None]})
    with pytest.raises(DataError, match="row 1 of the frame: the label is empty"):
        load(frame)
    with pytest.raises(DataError, match=r"row 1 of the list: .*photos/cat/x\.png: no such file"):
        load([("photos/cat/0.png", "cat"), ("photos/cat/x.png", "cat")])


def test_rows_without_file_may_be_skipped(folder: Path) -> None:
    path = write(folder, table(folder) + "cat/gone.png,cat\n")
    found = load(path, on_bad_image="skip")
    assert [name for name, _ in found.skipped] == ["cat/gone.png"]


def test_missing_file_is_reported(cli: Cli) -> None:
    one_line(cli("train", "lenet", "--data", "labels.csv"), 3, "labels.csv: cannot be read (No such file")


def test_csv_dataset_is_trained_resumed_and_evaluated(folder: Path, cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    write(folder, table(folder))
    flags = ["--epochs", 2, "--batch-size", 4, "--device", "cpu"]
    result = cli("train", "lenet", "--data", "photos/labels.csv", *flags)
    assert result.code == 0, result
    assert "runs/lenet-labels-1" in result.out
    Path("elsewhere").mkdir()
    run = Path("runs/lenet-labels-1").absolute()
    monkeypatch.chdir("elsewhere")
    assert cli("train", "--resume", run, "--epochs", 3).code == 0
    result = cli("evaluate", run)
    assert "accuracy" in result.out
    assert "2 images" in result.out
    result = cli("evaluate", run, "--data", run.parents[1] / "photos" / "labels.csv", "--json")
    assert result.out.count('"support": 1,') + result.out.count('"support": 1\n') == 2
    assert "skipping 18 of 20 images" in result.err
