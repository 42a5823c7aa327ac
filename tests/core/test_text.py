"""Text of others, such as names of classes, files and runs: shown safely everywhere, and kept exactly in files."""

import csv
import io
import json
import logging
import os
import re
import subprocess
import sys
import tomllib
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from rich.cells import cell_len
from rich.progress import MofNCompleteColumn

import cnnkit
from cnnkit.core.console import PatientConsole, aligned, as_text, progress_bar, table
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.progress import Counter
from cnnkit.core.text import (
    decode,
    encode,
    file_name,
    from_json,
    from_toml,
    html,
    markdown,
    printable,
    shell,
    to_csv,
    to_json,
)
from cnnkit.deploy import Predictions
from cnnkit.figures import Panel, Plot, Series, stack_sheets, text_plot
from cnnkit.figures.html import html_table
from helpers.cli import ROOT, Cli, one_line

AWKWARD = (  # names of classes and of files, as bytes
    b"[bold]cat",
    b"[",
    b"a\x1b[31mred",
    b"x\ry",
    b"tab\tname",
    b"new\nline",
    b"bell\x07",
    "\u202eabc".encode(),
    "zero\u200bwidth".encode(),
    b"<b>&\"'",
    b"caf\xe9",
    "caf\u00e9".encode(),
    "\u732b\u732b".encode(),
    b"=1+1",
    b"$x$",
    b"_under_",
    b"back\\slash",
)
ROOT_NAME = b"data \x1b[2J[red]\xe9\n"
OUTPUT = "runs \x1b[1m[]\udcff"
NAMES = st.binary(min_size=1, max_size=12).map(os.fsdecode)
TEXTS = st.text(st.characters(), max_size=12) | NAMES
ASCII_LOCALE = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": "ascii"}


def clean(text: str) -> None:
    """Assert that a terminal is told nothing but text."""
    assert all(line.isprintable() for line in text.split("\n")), ascii(text)


def images(count: int = 3) -> str:
    """Make a folder of training and test images, whose classes and files have awkward names, and return its path."""
    draw, root = np.random.default_rng(0), os.fsdecode(ROOT_NAME)
    for split, number in (("train", count), ("test", 1)):
        for name in map(os.fsdecode, AWKWARD):
            folder = Path(root, split, name)
            try:
                folder.mkdir(parents=True)
            except OSError:
                pytest.skip("this file system takes no such names")
            for index in range(number):
                pixels = draw.integers(0, 256, (28, 28), np.uint8)
                Image.fromarray(pixels).save(folder / f"{name} {index}.png")
    return root


def only(folder: str) -> Path:
    (run,) = Path(folder).iterdir()
    return run


# what is shown


@given(TEXTS)
def test_what_is_shown_is_one_line_that_only_prints(text: str) -> None:
    shown = printable(text)
    assert shown.isprintable()
    shown.encode()
    assert printable(shown) == shown
    assert shown == text or not text.isprintable()


def test_a_byte_is_told_from_a_character() -> None:
    assert printable("caf\udce9") == r"caf\xe9"
    assert printable("caf\x85") == r"caf\u0085"
    assert printable("caf\u00e9 \u732b") == "caf\u00e9 \u732b"
    assert printable("\x1b\r\n\t\x07\x7f\u202e\u2028\U000e0001\ud800") == (
        r"\x1b\r\n\t\x07\x7f\u202e\u2028\U000e0001\ud800"
    )


@given(TEXTS.filter(lambda text: "\0" not in text))
def test_a_shell_reads_the_word_that_was_meant(text: str) -> None:
    try:
        meant = os.fsencode(text)
    except UnicodeEncodeError:
        return
    read = subprocess.run(["bash", "-c", f"printf %s {shell(text)}"], capture_output=True, env={"LC_ALL": "C.UTF-8"})
    assert read.stdout == meant, (text, shell(text))


@given(TEXTS)
def test_html_is_text_and_nothing_else(text: str) -> None:
    seen: list[str] = []
    parser = HTMLParser()
    parser.handle_data = seen.append  # type: ignore[method-assign]
    parser.handle_starttag = lambda tag, attributes: pytest.fail(tag)  # type: ignore[method-assign]
    parser.feed(html(text))
    parser.close()
    assert "".join(seen) == printable(text)


def test_markdown_means_nothing_but_its_letters() -> None:
    assert markdown("lenet_bn, 1 x 28") == "lenet_bn, 1 x 28"
    assert markdown("_a_ *b* [c](d) <e> `f` |") == r"\_a\_ \*b\* \[c\](d) \<e\> \`f\` \|"


@given(TEXTS)
def test_a_table_shows_what_is_in_a_cell(text: str) -> None:
    listing = table(["name", "n"])
    listing.add_row(f"|{text}|", "1")
    shown = as_text(listing)
    clean(shown)
    assert f"|{printable(text)}|" in shown


def test_a_console_shows_text_as_it_is_whatever_the_encoding() -> None:
    for encoding, cafe in (("utf-8", "caf\u00e9"), ("ascii", r"caf\xe9")):
        raw = io.BytesIO()
        console = PatientConsole(file=io.TextIOWrapper(raw, encoding), force_terminal=True, width=80)
        console.say("[bold]x[/bold] [/] :smile: 12 \x1b[31m caf\u00e9")
        console.file.flush()
        assert raw.getvalue().decode(encoding) == f"[bold]x[/bold] [/] :smile: 12 \\x1b[31m {cafe}\n"


def test_a_bar_shows_its_title_as_it_is() -> None:
    console = PatientConsole(file=io.StringIO(), force_terminal=True, color_system=None, width=100)
    with progress_bar(console, MofNCompleteColumn()) as bar:
        bar.add_task("looking at [bold]x[/] \x1b[31m\n", total=3)
    assert r"looking at [bold]x[/] \x1b[31m\n" in console.file.getvalue()  # type: ignore[attr-defined]


def test_a_counter_without_a_terminal_shows_its_title_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cnnkit.core.progress.PLAIN_SECONDS", -1)
    with Counter("looking at [/]\x1b[31m", 2, shown=True) as counter:
        counter.advance(1)
    assert capsys.readouterr().err == "looking at [/]\\x1b[31m: 1 of 2\n"


def test_lines_are_aligned_by_what_a_terminal_shows() -> None:
    lines = aligned([("a", "one"), ("\u732b\u732b", "two"), ("\x1b", "three")])
    assert {cell_len(line.rpartition("  ")[0]) for line in lines} == {4}
    assert lines[2] == r"\x1b  three"


def test_an_error_is_one_line(cli: Cli) -> None:
    assert str(DataError("no [/]\x1b[31m\n\udce9")) == r"no [/]\x1b[31m\n\xe9"
    one_line(cli("evaluate", "no\x1b[31m\n\udce9"), 2, r"no\x1b[31m\n\xe9: no such folder")
    one_line(cli("train", "lenet", "--data", "no\x1b[/]\n"), 3, r"no\x1b[/]\n")
    one_line(cli("train", "lenet", "--lr", "\x1b[31m"), 2, r"\x1b[31m")
    one_line(cli("train", "lenet", "--\x1b[31m", "1"), 2, r"\x1b[31m")
    one_line(cli("runs", "no\u202e"), 2, r"no\u202e")


def test_a_warning_that_no_run_logs_is_one_line(cli: Cli) -> None:
    cli("recipes")
    assert logging.lastResort
    line = logging.lastResort.format(logging.makeLogRecord({"msg": "%s: ignored", "args": ("\x1b[31m\n",)}))
    assert line == r"\x1b[31m\n: ignored"


def test_figures_are_drawn_with_any_name(tmp_path: Path) -> None:
    names = [os.fsdecode(name) for name in AWKWARD]
    panel = Panel("a\x1b\udce9", "x", "y", [Series(name, [1, 2], [1, 2], colour=i) for i, name in enumerate(names)])
    clean(text_plot(panel))
    Plot([panel], "t\x1b\udce9$").save(tmp_path / "plot.svg")
    drawn = [part.text for part in ElementTree.parse(tmp_path / "plot.svg").iter() if part.tag.endswith("text")]
    assert {printable(name) for name in names} <= set(drawn)
    assert r"t\x1b\xe9$" in drawn
    sheet = torch.zeros(1, 8, 8, dtype=torch.uint8)
    assert stack_sheets(dict.fromkeys(names, sheet)).shape[1] > 8 * len(names)


def test_html_tables_escape_cells_and_columns() -> None:
    page = html_table(["<i>", "n"], [["<script>\x1b\udce9", 1]])
    assert "&lt;i&gt;" in page
    assert r"&lt;script&gt;\x1b\xe9" in page


def test_only_the_choke_points_know_rich_markup() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        if path.name != "console.py" or path.parent.name != "core":
            assert not re.search(r"rich\.(console|markup|text)|from html import", path.read_text()) or (
                path.name == "text.py"
            ), path


# what is kept


@given(st.recursive(TEXTS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3)))
def test_json_is_utf8_and_comes_back(value: object) -> None:
    for ascii_alone in (False, True):
        text = to_json(value, ascii=ascii_alone)
        clean(text.replace("\x7f", ""))
        assert from_json(text.encode()) == value
        assert json.loads(text) == value


@given(st.lists(st.lists(NAMES.filter(lambda name: "\0" not in name), min_size=2, max_size=3), max_size=4))
def test_csv_comes_back(rows: list[list[str]]) -> None:
    text = io.StringIO(decode(encode(to_csv(rows))), newline="")
    assert list(csv.reader(text)) == rows


def test_a_csv_ends_its_lines_as_ever() -> None:
    assert to_csv([["a", "b,c"], ["=1", 2]]) == 'a,"b,c"\n=1,2\n'


def test_a_file_name_is_easy_to_type() -> None:
    assert file_name("a\x1b[31m\udce9\n \u732b") == "a_[31m__ \u732b"


# the verbs


def test_every_verb_takes_and_shows_any_name(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    root, classes = images(), {os.fsdecode(name) for name in AWKWARD}

    def run(*arguments: object, code: int = 0) -> str:
        result = cli(*arguments)
        assert result.code == code, result
        clean(result.out)
        clean(result.err)
        return result.out

    said = run("train", "lenet_bn", "--data", root, "--epochs", 1, "--output", OUTPUT, "--on-bad-image", "skip")
    folder = only(OUTPUT)
    assert folder.name.isprintable()
    assert f"next: cnnkit evaluate {shell(folder)}" in said
    clean((folder / "log.txt").read_text())
    assert json.loads((folder / "best/config.json").read_text())["classes"] == sorted(classes)
    assert os.fsencode(tomllib.loads(os.fsdecode((folder / "config.toml").read_bytes()))["data"]).endswith(ROOT_NAME)
    assert {name.rpartition("/")[0] for name in json.loads((folder / "split.json").read_text())["test"]} == {
        f"test/{name}" for name in classes
    }
    run("train", "--resume", folder, "--epochs", 2)
    run("train", "lenet_bn", "-c", folder / "config.toml", "--output", OUTPUT, "--epochs", 1)
    shown = run("evaluate", folder)
    assert all(f" {printable(name)} " in shown for name in classes)
    assert {row["class"] for row in json.loads(run("evaluate", folder, "--json"))["classes"]} == classes
    assert json.loads((folder / "test.json").read_text())["images"] == len(AWKWARD)

    run("predict", folder, root)
    found = json.loads(run("predict", folder, root, "--json"))
    assert len(found) == 4 * len(AWKWARD)
    assert all(Path(row["image"]).is_file() for row in found)
    run("predict", folder, root, "--output", "found \udce9.csv")
    with Path("found \udce9.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert {name.removeprefix("p_") for name in header[4:]} == classes
    assert all(Path(row[0]).is_file() for row in rows)
    Path("no\x1b[2J\udce9.png").write_text("no image")
    run("predict", folder, "no\x1b[2J\udce9.png", "missing[/].png", code=3)
    Path("plain").symlink_to(root)
    paths = [row["image"].replace(root, "plain") for row in found]
    listed = "\n".join(path for path in paths if "\n" not in path)  # a line each
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(os.fsencode(listed)), "ascii"))
    assert len(json.loads(run("predict", folder, "-", "--json"))) == 4 * (len(AWKWARD) - 1)

    assert "fit for training" in run("data", "check", root)
    Path(root, "train", "caf\udce9", "empty\x1b\udce9.png").touch()
    run("data", "check", root, code=3)
    run("data", "check", root, "--quarantine", "away \udce9\x1b")
    (entry,) = json.loads(Path("away \udce9\x1b/quarantine.json").read_text())
    assert entry["what"] == "train/caf\udce9/empty\x1b\udce9.png"
    json.loads(run("data", "check", root, "--json"))
    run("data", "show", root)
    run("data", "show", root, "--augment", "flip", "--output", "show\udce9.png")
    run("data", "pack", root, "packed \udce9\x1b")
    run("train", "lenet_bn", "--data", "packed \udce9\x1b", "--image-size", 28, "--epochs", 1, "--output", "from-tar")
    assert {row["class"] for row in json.loads(run("evaluate", only("from-tar"), "--json"))["classes"]} == classes

    run("runs", OUTPUT)
    assert len(json.loads(run("runs", OUTPUT, "--json"))) == 2
    other = Path(OUTPUT, "_x$\x1b\udce9[]")
    folder.rename(other)
    run("runs", OUTPUT)
    run("plot", other, only("from-tar"), "--output", "curves\udce9.svg")
    for verb in ("anatomy", "draw", "filters"):
        run(verb, other)
    run("anatomy", other, "--markdown")
    assert json.loads(run("anatomy", other, "--json"))["net"] == str(other)
    run("features", other, Path(root, "test", "caf\udce9", "caf\udce9 0.png"))
    run("filter", Path(root, "test", "new\nline", "new\nline 0.png"), "--kernel", "blur")
    run("lr-find", "lenet", "--data", root, "--on-bad-image", "skip", "--steps", 3)


def test_a_csv_file_may_list_any_name(cli: Cli) -> None:
    root = images()
    rows = [["path", "label", "no\x1b"]]
    for name in map(os.fsdecode, AWKWARD):
        label = f"[/{name}]".replace("\n", " ")
        rows += [[f"{root}/train/{name}/{name} {index}.png", label, ""] for index in range(3)]
    Path("list \udce9.csv").write_bytes(encode(to_csv(rows)))
    result = cli("train", "lenet", "--data", "list \udce9.csv", "--epochs", 1, "--test", 0.4)
    assert result.code == 0, result
    clean(result.out + result.err)
    run = only("runs")
    shown = cli("evaluate", run)
    assert shown.code == 0, shown
    clean(shown.out + shown.err)
    assert all(f" {printable(row[1])} " in shown.out for row in rows[1:])
    assert cli("train", "--resume", run, "--epochs", 2).code == 0


def test_sweep_takes_a_file_of_any_name(cli: Cli) -> None:
    pytest.importorskip("optuna")
    name = "sweep [bold]\x1b\udce9"
    Path(f"{name}.toml").write_text("epochs = 1\n[space]\nlr = [0.01, 0.02]\n")
    result = cli("sweep", "lenet", "-c", f"{name}.toml", "--trials", 2)
    assert result.code == 0, result
    clean(result.out + result.err)
    again = result.out.rpartition("cnnkit train -c ")[2].strip()
    word = subprocess.run(["bash", "-c", f"printf %s {again}"], capture_output=True).stdout
    assert Path(os.fsdecode(word)).is_file()


def test_tensorboard_says_that_it_cannot_write_to_a_path(cli: Cli) -> None:
    pytest.importorskip("tensorboard")
    assert cli("train", "lenet", "--epochs", 1, "--tensorboard", "--output", "tb \x1b[31m").code == 0
    one_line(cli("train", "lenet", "--epochs", 1, "--tensorboard", "--output", "\udce9"), 2, r"TensorBoard", r"\xe9")


def test_python_takes_and_shows_any_name() -> None:
    root, classes = images(), {os.fsdecode(name) for name in AWKWARD}
    run = cnnkit.fit("lenet", root, epochs=1, output=OUTPUT, progress=False)
    found = run.evaluate(progress=False)
    model = cnnkit.load(run)
    predicted = model.predict(f"{root}/test", progress=False)
    for shown in (run, found, run.history, model, predicted):
        clean(repr(shown))
    for page in (run._repr_html_(), found._repr_html_()):
        page.encode()
        assert "\x1b" not in page
        assert "<b>&" not in page
    assert set(model.classes) == classes
    assert all(Path(name).is_file() for name in predicted.names)
    assert len(cnnkit.fit(resume=run, epochs=2, progress=False).history) == 2
    rows = [(f"{root}/test/{name}/{name} 0.png", name) for name in classes]
    rows += [(f"{root}/train/{name}/{name} {index}.png", name) for name in classes for index in range(3)]
    listed = cnnkit.fit("lenet", rows, epochs=1, test=0.3, output="listed", progress=False)
    assert cnnkit.evaluate(listed.path, progress=False).num_images == listed.evaluate(progress=False).num_images


def test_predictions_of_nothing_are_told() -> None:
    assert repr(Predictions(("a",), (), torch.empty(0, 1), {"x\x1b": "no"})) == r"x\x1b: no"


IN_ASCII = """
import os, sys
import cnnkit
from cnnkit.cli import app

def run(*words):
    sys.argv = ["cnnkit", *words]
    try:
        app.main()
    except SystemExit as left:
        sys.stdout.flush()
        assert not left.code, words

root, other, classes = (os.fsdecode(bytes.fromhex(word)) for word in sys.argv[1:])
print(cnnkit.evaluate(other))
classes = classes.split("\\0")
output = os.fsdecode(b"ascii \\xe9")
run("train", "lenet", "--data", root, "--epochs", "1", "--output", output)
folder = os.path.join(output, *os.listdir(output))
run("train", "--resume", folder, "--epochs", "2")
run("evaluate", folder)
run("evaluate", other, "--json")  # of a run that was made in a UTF-8 locale
run("predict", folder, root)
run("predict", folder, root, "--json")
run("predict", folder, root, "--output", os.fsdecode(b"found \\xe9.csv"))
run("data", "check", root)
run("data", "check", root, "--json")
run("data", "show", root)
run("data", "pack", root, os.fsdecode(b"packed \\xe9"))
run("runs", output)
run("plot", folder)
fitted = cnnkit.fit("lenet", root, epochs=1, output="python")
print(fitted, fitted.history, fitted.evaluate(), cnnkit.load(fitted), cnnkit.load(fitted).predict(root), sep="\\n")
rows = [(f"{root}/{split}/{name}/{name} 0.png", name) for name in classes for split in ("train", "test")]
fitted = cnnkit.fit("lenet", rows, epochs=1, test=0.5, validation=0, output="python")
cnnkit.evaluate(fitted.path)
"""


def test_a_locale_without_utf8_takes_any_name_and_shows_it_in_ascii() -> None:
    root = images()
    made = cnnkit.fit("lenet", root, epochs=1, output="utf8", progress=False)
    words = [os.fsencode(word).hex() for word in (root, str(made.path), "\0".join(map(os.fsdecode, AWKWARD)))]
    done = subprocess.run(
        [sys.executable, "-c", IN_ASCII, *words], env=os.environ | ASCII_LOCALE, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    for stream in (done.stdout, done.stderr):
        clean(stream.decode("ascii"))
    assert tuple(json.loads((only("ascii \udce9") / "best/config.json").read_bytes())["classes"]) == tuple(
        sorted(made.model.classes, key=os.fsencode)
    )
    with Path("found \udce9.csv").open(newline="", encoding="utf-8", errors="surrogateescape") as file:
        header, *rows = csv.reader(file)
    assert {name.removeprefix("p_") for name in header[4:]} == set(made.model.classes)
    assert all(Path(row[0]).is_file() for row in rows)


def test_weights_of_any_path_load() -> None:
    run = cnnkit.fit("lenet", "digits", epochs=1, output="\udce9", progress=False)
    assert cnnkit.load(run.path).net
    with pytest.raises(UsageError, match=r"no\\xe9"):
        cnnkit.load("no\udce9")


def test_settings_may_begin_with_a_byte_order_mark() -> None:
    assert from_toml(b"\xef\xbb\xbfepochs = 3\n") == {"epochs": 3}
