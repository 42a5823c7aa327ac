"""The help of the command line: summaries, docstrings and options, without importing torch."""

import importlib
import inspect
import re
import subprocess
import sys

import pytest

from cnnkit.cli.app import VERBS
from helpers.cli import Cli, start

HELP = """
import contextlib, io, sys
from cnnkit.cli.app import VERBS, main

def loaded(*names):
    return [name for name in sys.modules if name.startswith(names)]

def show(*arguments):
    sys.argv = ["cnnkit", *arguments]
    with contextlib.redirect_stdout(io.StringIO()) as output:
        try:
            main()
        except SystemExit as left:
            assert not left.code, arguments
    return output.getvalue()

for arguments in ([], ["--help"], ["--version"], ["data", "--help"]):
    show(*arguments)
modules = ["cnnkit.cli." + verb.replace(" ", "_").replace("-", "_") for verb in VERBS]
assert not loaded(*modules), loaded(*modules)
for verb in VERBS:
    assert show(*verb.split(), "--help") == show("--help", *verb.split()), verb
    assert not loaded("torch", "numpy"), verb
"""


def docstring(verb: str) -> str:
    """The docstring of the verb's function, without the parameters."""
    module = importlib.import_module(f"cnnkit.cli.{re.sub('[ -]', '_', verb)}")
    function = getattr(module, verb.rpartition(" ")[2].replace("-", "_"))
    return inspect.getdoc(function).partition("\nParameters\n---")[0]


def words(text: str) -> str:
    """The words of a text, without Markdown and frames."""
    return " ".join(re.sub(r"[`*│]|^ *[-•] ", "", text, flags=re.M).split())


@pytest.mark.parametrize("verb", VERBS)
def test_help_of_a_verb_is_its_docstring_and_its_options(verb: str, cli: Cli) -> None:
    result = cli(*verb.split(), "--help")
    assert (result.code, result.err) == (0, "")
    assert words(docstring(verb)) in words(result.out)
    usage = result.out.split("\n\n")[0]
    assert usage.strip().startswith(f"Usage: cnnkit {verb} ")
    assert "ARGS" not in usage
    assert "default: None" not in result.out
    assert "Exit codes: 0 success" in result.out


@pytest.mark.parametrize("verb", VERBS)
def test_summary_of_a_verb_is_the_start_of_its_docstring(verb: str) -> None:
    assert words(docstring(verb)).startswith(VERBS[verb].removesuffix("."))


def test_help_lists_the_verbs_with_their_summaries() -> None:
    out, of_data = (start(*arguments, "--help").communicate(timeout=60)[0] for arguments in ([], ["data"]))
    for verb, summary in VERBS.items():
        group, _, name = verb.rpartition(" ")
        assert re.search(rf"^│ {name} +{re.escape(summary)} +│$", of_data if group else out, re.M), verb
    assert re.search(r"^│ --help \(-h\) +Display this message and exit\. +│$", out, re.M)
    assert "130 interrupted" in out


def test_help_imports_no_verb_and_no_torch() -> None:
    done = subprocess.run([sys.executable, "-c", HELP], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_field_docs_are_the_help_texts(cli: Cli) -> None:
    out = words(cli("train", "--help").out)
    for text in (
        "Images per step, summed over all processes",
        "--raw-pixels",
        "[choices: sgd, adam, adamw, rmsprop]",
        "--resume",
        "Train for this many passes over",
    ):
        assert text in out
