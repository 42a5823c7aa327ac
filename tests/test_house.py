"""The house: floors, lint, types, public names, and nothing that should not be in a repository."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import cnnkit
from conftest import ROOT

SCRIPTS = Path(sys.executable).parent
MODULES = [info.name for info in pkgutil.walk_packages(cnnkit.__path__, "cnnkit.") if info.name != "cnnkit.__main__"]


@pytest.mark.parametrize(
    "command",
    [["lint-imports"], ["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]],
    ids=["floors", "lint", "format", "types"],
)
def test_tools_are_content(command: list[str]) -> None:
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
    ["cnnkit.ops", "cnnkit.nets", "cnnkit.data", "cnnkit.train", "cnnkit.anatomy", "cnnkit.deploy", "cnnkit.report"],
)
def test_a_room_offers_what_it_lists(name: str) -> None:
    room = importlib.import_module(name)
    assert len(set(room.__all__)) == len(room.__all__)
    assert set(room.__all__) <= set(dir(room))


def test_importing_cnnkit_is_light() -> None:
    code = (
        "import sys, cnnkit, cnnkit.train.config\n"
        "assert 'torch' not in sys.modules\n"
        "cnnkit.create\n"
        "assert 'torch' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_files_stay_readable() -> None:
    for path in (ROOT / "src").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path
