"""The documents: links and anchors work; layers, figures and tables agree with the code and the results."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from helpers.cli import ROOT

PAGES = [ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY", "CHANGELOG")]
PAGES += sorted((ROOT / "docs").rglob("*.md"))
RESULTS = ROOT / "benchmarks" / "results"


def headings(page: Path) -> list[str]:
    text = re.sub(r"^```.*?^```", "", page.read_text(), flags=re.M | re.S)
    return re.findall(r"^#+ (.+)$", text, re.M)


def anchor(heading: str) -> str:
    """Return the name that GitHub gives a heading."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_to_files_and_headings(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text()):
        path, _, name = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        if name:
            assert name in map(anchor, headings(target)), link


def test_every_page_is_in_the_index() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    for page in (ROOT / "docs").rglob("*.md"):
        name = page.relative_to(ROOT / "docs").as_posix()
        assert name == "index.md" or f"]({name})" in text, name


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150


def test_the_tree_of_packages_is_complete() -> None:
    [tree] = re.findall(r"```text\n(src/.*?)```", (ROOT / "docs" / "internals" / "architecture.md").read_text(), re.S)
    shown = {line.split()[0] for line in tree.splitlines()[1:] if re.match(r" {2}\w+/", line)}
    packages = {
        f"{path.name}/" for path in (ROOT / "src/cnnkit").iterdir() if path.is_dir() and path.name != "__pycache__"
    }
    assert shown == packages


def test_the_layers_are_those_of_pyproject() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    [layers] = [row["layers"] for row in contracts if row["name"].startswith("layers")]
    [block] = re.findall(r"```text\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.S)
    assert block.splitlines() == [layer.replace("cnnkit.", "") for layer in layers]


def tables(results: Path, page: Path) -> str:
    """Return the page of benchmarks as it is generated from the results."""
    command = [sys.executable, ROOT / "benchmarks" / "tables.py", "--results", results, "--output", page]
    subprocess.run(command, check=True)
    return page.read_text()


def test_the_benchmarks_page_is_generated_from_the_results(tmp_path: Path) -> None:
    assert tables(RESULTS, tmp_path / "page.md") == (ROOT / "docs" / "benchmarks.md").read_text()


def test_every_results_file_is_on_the_benchmarks_page() -> None:
    assert {path.stem for path in RESULTS.glob("*.json")} <= set(headings(ROOT / "docs" / "benchmarks.md"))


def test_a_changed_result_changes_the_benchmarks_page(tmp_path: Path) -> None:
    results = tmp_path / "results"
    results.mkdir()
    for path in RESULTS.iterdir():
        (results / path.name).write_bytes(path.read_bytes())
    [path] = results.glob("chapter_*.json")
    changed = json.loads(path.read_text())
    changed["figures"]["lenet"]["accuracy"] = 0.9999
    path.write_text(json.dumps(changed))
    assert tables(results, tmp_path / "page.md") != (ROOT / "docs" / "benchmarks.md").read_text()


def numbers(text: str) -> list[str]:
    return re.findall(r"(?<![\w.,])\d+(?:[.,]\d+)*", text)


FIGURES = re.findall(r"^\|(.+)\|(.+)\| \[\w+\]\(docs/benchmarks\.md#(.+)\) \|$", (ROOT / "README.md").read_text(), re.M)


@pytest.mark.parametrize(("what", "figures", "name"), FIGURES, ids=[row[0].strip() for row in FIGURES])
def test_the_readmes_figures_are_in_one_line_of_their_table(what: str, figures: str, name: str) -> None:
    text = (ROOT / "docs" / "benchmarks.md").read_text()
    table = text.partition(f"### {name}\n")[2].partition("\n#")[0]
    lines = [numbers(line) for line in table.splitlines() if line.startswith("|")]
    assert any(set(numbers(figures)) <= set(line) for line in lines), (what, numbers(figures))


def test_the_readme_has_figures() -> None:
    assert len(FIGURES) >= 5
