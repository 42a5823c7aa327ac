"""Optional packages: imported where they are used, and named with their extra when they are missing."""

import sys
from pathlib import Path

import pytest

from cnnkit.core.errors import CnnkitError
from cnnkit.core.extras import require
from cnnkit.figures import Panel, Plot, Series, text_plot
from cnnkit.train.tensorboard import TensorBoard

PANEL = Panel("Loss", "epoch", "nats", [Series("training", [1, 2], [2.0, 1.0])])


def test_installed_package_is_returned() -> None:
    assert require("json", "report") is sys.modules["json"]
    assert require("xml.dom.minidom", "report") is sys.modules["xml.dom.minidom"]


@pytest.mark.parametrize("name", ["no_such_package", "no_such_package.inside.it"])
def test_missing_package_is_named_with_its_extra(name: str) -> None:
    with pytest.raises(CnnkitError) as caught:
        require(name, "report")
    assert str(caught.value) == 'this needs the package no_such_package: pip install "cnnkit[report]"'
    assert caught.value.exit_code == 1


def test_missing_package_without_extra_is_named_alone() -> None:
    with pytest.raises(CnnkitError, match=r"this needs the package no_such_package: pip install no_such_package$"):
        require("no_such_package", None)


@pytest.mark.parametrize(
    ("module", "package", "extra", "use"),
    [
        ("matplotlib.figure", "matplotlib", "report", lambda: Plot([PANEL])),
        ("plotext", "plotext", "report", lambda: text_plot(PANEL)),
        ("tensorboard", "tensorboard", "track", lambda: TensorBoard(Path("events"))),
    ],
)
def test_missing_package_error_names_its_extra_in_each_command(
    monkeypatch: pytest.MonkeyPatch, module: str, package: str, extra: str, use: object
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(CnnkitError, match=rf'the package {package}: pip install "cnnkit\[{extra}\]"'):
        use()
    assert not list(Path().iterdir())
