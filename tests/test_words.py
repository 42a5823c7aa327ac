"""Words that the code and the documents avoid, each with the word to use."""

import re
from pathlib import Path

import pytest

from helpers.cli import ROOT

WORDS = {  # regular expressions of whole words, in upper or lower case; a space is any space, also of a comment
    r"anew": "again, from scratch, rebuilt",
    r"at hand": "available, found",
    r"by hand|by_hand": "from scratch; of a measurement: with a one-off script",
    r"(is|are|was|were) called like": "matches",
    r"damaged?": "corrupt",
    r"(?<!standard\s)deviation": "standard deviation, std",
    r"for ever": "forever",
    r"for good": "permanently",
    r"(gives?|gave|giving) way": "fall back",
    r"hits": "correct",
    r"kernels' gradients?": "weight gradient",
    r"look(s|ed|ing)? for in": "search in",
    r"marr(y|ies|ied)": "build",
    r"most_(?!common)\w+": "max_...",
    r"no number": "NaN/Inf",
    r"obey(s|ed)?": "apply, follow",
    r"(of )?one's own": "custom, your own",
    r"padding_sides|four sides": "pads",
    r"pictures?": "image; of what a person looks at: figure, sheet, diagram",
    r"to the bit": "bit-exact, bit for bit",
    r"trainings": "training runs",
    r"whoever": "anyone who",
}
ALLOWED = {  # lines that may have such a word
    "src/cnnkit/nets/blocks.py": r'"by_hand"',  # what bundles of version 0.1 say
    "src/cnnkit/ops/__init__.py": r"by_hand",  # the alias of from_scratch
    "src/cnnkit/data/split_names.py": r"set sets data|training trainings",  # names of folders
    "CHANGELOG.md": r"`by_hand`|`pictures`|`damaged`",
    "docs/benchmarks.md": r"norm by_hand",  # a command that was run when this was the name
}
SUFFIXES = (".py", ".pyi", ".cpp", ".hpp", ".in")
SOURCES = [path for path in (ROOT / "src").rglob("*") if path.suffix in SUFFIXES]
PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
PAGES += [path for folder in ("benchmarks", "tools") for path in (ROOT / folder).rglob("*.py")]


def uses(paths: list[Path], word: str) -> list[str]:
    """Return where the word is used: file, line and text."""
    pattern = re.compile(r"(?<!\w)(" + word.replace(" ", r"[\s#]+") + r")(?!\w)", re.I)
    found = []
    for path in sorted(paths):
        name, text = path.relative_to(ROOT).as_posix(), path.read_text()
        for match in pattern.finditer(text):
            number = text.count("\n", 0, match.start())
            line = text.splitlines()[number].strip()
            if not re.search(ALLOWED.get(name, "$^"), line):
                found.append(f"{name}:{number + 1}: {line}")
    return found


@pytest.mark.parametrize("word", WORDS)
def test_documents_and_scripts_avoid_it(word: str) -> None:
    assert not uses(PAGES, word), f"use: {WORDS[word]}"


@pytest.mark.parametrize("word", WORDS)
def test_the_code_avoids_it(word: str) -> None:
    assert not uses(SOURCES, word), f"use: {WORDS[word]}"


def test_a_word_is_found_over_the_end_of_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("test_words.ROOT", tmp_path)
    page = tmp_path / "page.py"
    page.write_text("# it gives\n# way for good\n")
    assert uses([page], r"(gives?|gave|giving) way") == ["page.py:1: # it gives"]
    assert uses([page], "for good") == ["page.py:2: # way for good"]
