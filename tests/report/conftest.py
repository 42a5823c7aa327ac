"""Finished runs for the tests of this folder, trained once, and a browser."""

import shutil
from pathlib import Path

import pytest

import cnnkit
from helpers.cli import start
from helpers.fit import QUICK


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


@pytest.fixture(scope="session")
def judged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two evaluated runs on digits, each right on most images; the second is the better one."""
    folder = tmp_path_factory.mktemp("judged")
    for epochs in (1, 2):
        how = QUICK | {"epochs": epochs, "lr": 0.01, "progress": False, "output": folder}
        cnnkit.fit("lenet_bn", data="digits", **how).evaluate(progress=False)
    return folder


@pytest.fixture
def run(judged: Path) -> Path:
    """A copy of the second run, with the first beside it, that a test may break."""
    shutil.copytree(judged, "judged")
    return Path("judged/lenet_bn-digits-2").absolute()
