"""Every command in the README runs, and the file tree that it shows is the one that is there."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from helpers.cli import ROOT
from helpers.images import shape_photos

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^\$ (.+)$", README, re.M)
FASHION = Path("/usr/share/datasets/fashion-mnist")


def test_the_readmes_commands_run_in_order(tmp_path: Path) -> None:
    """One session, top to bottom, in a folder with the README's example files; long trainings for one epoch."""
    assert len(COMMANDS) >= 8
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    shape_photos(tmp_path / "photos", 24)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for command in COMMANDS:
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


def test_make_demo_does_what_the_readme_says(tmp_path: Path) -> None:
    """The recipe itself, with this environment in the place of a new one."""
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


def test_the_file_tree_is_true() -> None:
    [tree] = re.findall(r"```text\n(src/.*?)```", README, re.S)
    shown = {line.split()[0] for line in tree.splitlines() if line.startswith((" ", "src"))}
    for path in (ROOT / "src/cnnkit").iterdir():
        if path.is_dir() and path.name != "__pycache__":
            assert f"{path.name}/" in shown, path.name


@pytest.mark.parametrize("link", re.findall(r"\]\((?!http)([^)#]+)\)", README))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()


def test_every_command_is_split_by_a_shell() -> None:
    assert all(shlex.split(command) for command in COMMANDS)


def test_the_scripts_for_python_run_in_order(tmp_path: Path) -> None:
    """Each as a program of its own, in a folder with photographs."""
    shape_photos(tmp_path / "photos", 24)
    scripts = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "python.md").read_text(), re.S)
    assert len(scripts) == 4
    for script in scripts:
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path)
        assert done.returncode == 0, (script, done.stderr)
        assert not done.stderr, done.stderr
    assert (tmp_path / "found.csv").read_text().startswith("image,label,score,error,p_")


def test_the_python_example_says_what_it_gives() -> None:
    Path("examples").symlink_to(ROOT / "examples")
    [code] = re.findall(r"```python\n(.*?)```", README, re.S)
    names: dict[str, object] = {}
    for line in code.splitlines():
        if re.match(r"[a-z.]+\(|.*\.macs", line):
            expression, _, shown = line.partition("  # ")
            value = eval(expression, names)
            assert str(value.tolist() if hasattr(value, "tolist") else f"{value:,}") == shown
        else:
            exec(line, names)
    assert [name for name, _ in names["features"].named_children()] == ["conv1", "conv2", "dense"]
