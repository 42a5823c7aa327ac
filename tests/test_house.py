"""The rules of the repository: import layers, lint, types, public names, file lengths and the layout of tests."""

import importlib
import pkgutil
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import cnnkit
from helpers.cli import ROOT

SCRIPTS = Path(sys.executable).parent
TESTS = ROOT / "tests"
FOUND = list(pkgutil.walk_packages(cnnkit.__path__, "cnnkit."))
MODULES = [info.name for info in FOUND if info.name != "cnnkit.__main__"]
PACKAGES = [info.name for info in FOUND if info.ispkg]


@pytest.mark.parametrize(
    "command",
    [["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["layers", "lint", "format", "types"],
)
def test_linters_and_type_checker_pass(command: list[str]) -> None:
    done = subprocess.run(
        [str(SCRIPTS / command[0]), *command[1:]], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", MODULES)
def test_public_names_are_documented_and_listed(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__
    for public in getattr(module, "__all__", []):
        value = getattr(module, public)
        if callable(value) and getattr(value, "__module__", "").startswith("cnnkit"):
            assert value.__doc__, f"{name}.{public}"


@pytest.mark.parametrize(
    "name",
    [f"cnnkit.{room}" for room in ["ops", "metrics", "nets", "data", "train", "anatomy", "deploy", "report"]],
)
def test_rooms_export_what_they_list(name: str) -> None:
    room = importlib.import_module(name)
    assert len(set(room.__all__)) == len(room.__all__)
    assert set(room.__all__) <= set(dir(room))


def test_import_of_cnnkit_does_not_import_torch() -> None:
    code = (
        "import sys, cnnkit, cnnkit.train.config\n"
        "assert 'torch' not in sys.modules\n"
        "cnnkit.create\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(("folder", "most"), [("src", 300), ("tests", 500)])
def test_python_files_are_short(folder: str, most: int) -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path): length for path, length in lengths.items() if length > most} == {}


def test_modules_of_tests_do_not_import_each_other() -> None:
    imported = re.compile(r"^\s*(?:from|import) +(test_|conftest|tests\b)", re.M)  # in code for child processes too
    assert [path.name for path in TESTS.rglob("*.py") if imported.search(path.read_text())] == []


def test_names_of_test_modules_are_unique() -> None:
    names = Counter(path.name for path in TESTS.rglob("test_*.py"))
    assert [name for name, count in names.items() if count > 1] == []


def test_folders_of_tests_mirror_the_rooms() -> None:
    rooms = {name.removeprefix("cnnkit.").replace(".", "/") for name in PACKAGES}
    folders = {path.parent.relative_to(TESTS).as_posix() for path in TESTS.rglob("test_*.py")} - {"."}
    assert folders - rooms == set(), "tests of no room"
    assert {room for room in rooms if "/" in room} - folders == set(), "rooms within rooms without tests"
