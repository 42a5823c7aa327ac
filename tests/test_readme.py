"""The commands of the README and the quickstart run, and their Python code returns what its comments say."""

import ast
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import ROOT
from helpers.images import shape_photos

PAGES = {name: (ROOT / name).read_text() for name in ("README.md", "docs/quickstart.md", "docs/guides/python.md")}
COMMANDS = [
    command for name in ("README.md", "docs/quickstart.md") for command in re.findall(r"^\$ (.+)$", PAGES[name], re.M)
]
FASHION = Path("/usr/share/datasets/fashion-mnist")


def python(name: str) -> list[str]:
    """Return the Python programs of a page."""
    return re.findall(r"```python\n(.*?)```", PAGES[name], re.S)


def test_readme_commands_run_in_order(tmp_path: Path) -> None:
    """One session, in a folder with the example files; what both pages show runs once, long runs take one epoch."""
    assert len(COMMANDS) >= 30
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    shape_photos(tmp_path / "photos", 24)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in dict.fromkeys(COMMANDS):
        if command.startswith("make"):
            continue  # below
        if "fashion-mnist" in command:
            if not FASHION.is_dir():
                continue
            command += " --epochs 1 --batch-size 1000"
        elif "from_scratch" in command or " -c " in command:
            command += " --epochs 1"
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        assert done.stdout.strip(), command


def test_make_demo_prints_what_the_readme_says(tmp_path: Path) -> None:
    """The recipe itself, with this environment instead of a new one."""
    here = [f"BIN={Path(sys.executable).parent}", f"RUNS={tmp_path}/runs", "INSTALLED="]
    command = ["make", "--no-print-directory", "demo", *here]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for words in ("epoch 30/30", "accuracy", "precision", "1796-is-8.png", "best weights"):
        assert words in done.stdout, words


def test_make_test_installs_and_runs_the_tests() -> None:
    planned = subprocess.run(["make", "-n", "-B", "test"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(r"pip install .*-c constraints\.txt.*\[dev\]", planned)
    assert re.search(r"-m pytest", planned)


def test_readme_commands_are_valid_shell() -> None:
    assert all(shlex.split(command) for command in COMMANDS)


def test_python_guide_programs_run_in_order(tmp_path: Path) -> None:
    """Each as a separate program, in a folder with photographs."""
    shape_photos(tmp_path / "photos", 24)
    programs = python("docs/guides/python.md")
    assert len(programs) == 4
    for program in programs:
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, (program, done.stderr)
        assert not done.stderr, done.stderr
    assert (tmp_path / "found.csv").read_text().startswith("image,label,score,error,p_")


@pytest.mark.parametrize(
    ("page", "num_shown", "stages"),
    [
        ("README.md", 0, ["stem", "conv2", "conv3", "conv4", "conv5", "pool"]),
        ("docs/quickstart.md", 2, ["conv1", "conv2", "dense"]),
    ],
)
def test_python_examples_match_their_comments(page: str, num_shown: int, stages: list[str]) -> None:
    Path("examples").symlink_to(ROOT / "examples")
    [program] = python(page)
    names: dict[str, object] = {}
    shown = 0
    for line in program.splitlines():
        code, _, comment = line.partition("  # ")
        statement = ast.parse(code).body[:1]
        if comment and isinstance(statement[0], ast.Expr) and not code.startswith("print("):
            value = eval(code, names)
            assert str(value.tolist() if hasattr(value, "tolist") else f"{value:,}") == comment
            shown += 1
        else:
            exec(code, names)
    assert shown == num_shown
    assert [name for name, _ in names["net"][:-1].named_children()] == stages
