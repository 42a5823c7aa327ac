"""Fixtures and hooks of all tests: one thread, fixed seeds, no network, and the command line in this process."""

import sys
from collections.abc import Generator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, settings

from cnnkit.cli import app
from helpers.cli import Cli, Result

BUSY = [HealthCheck.too_slow]  # depends on the machine, not on the test
settings.register_profile("cnnkit", deadline=None, derandomize=True, max_examples=60, suppress_health_check=BUSY)
settings.load_profile("cnnkit")

collect_ignore_glob = ["*/conftest.py", "helpers/*"]  # they have no doctests, and conftest.py is no unique name


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest, so that two workers end together."""
    items.sort(key=lambda item: "test_the_readmes_commands" not in item.nodeid)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let reports of names that are not UTF-8 pass from one process to another."""
    report = yield
    report.sections = [(title, text.encode("utf-8", "backslashreplace").decode()) for title, text in report.sections]
    return report


@pytest.fixture(autouse=True)
def _alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Run each test in its own folder and cache, with the same random numbers; downloads fail."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("CNNKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("CNNKIT_DATA", raising=False)
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    monkeypatch.setenv("no_proxy", "127.0.0.1,localhost")
    torch.set_num_threads(1)
    torch.manual_seed(0)


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run the command line in this process."""

    def run(*arguments: object) -> Result:
        monkeypatch.setattr(sys, "argv", ["cnnkit", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            app.main()
        captured = capsys.readouterr()
        return Result(int(left.value.code or 0), captured.out, captured.err)

    return run
