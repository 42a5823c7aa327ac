"""Two finished runs for the tests of this folder, trained once."""

import shutil
from pathlib import Path

import pytest

from helpers.cli import start


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two finished runs, the second without validation, and when they were begun."""
    folder = tmp_path_factory.mktemp("trained")
    for more in (["--lr", 0.003], ["--validation", 0]):
        process = start("train", "lenet", "--epochs", 3, "--batch-size", 256, *more, cwd=folder)
        out, err = process.communicate()
        assert process.returncode == 0, out + err
    return folder / "runs"


@pytest.fixture
def runs(trained: Path) -> Path:
    """A copy of them that a test may break."""
    shutil.copytree(trained, "runs")
    return Path("runs")
