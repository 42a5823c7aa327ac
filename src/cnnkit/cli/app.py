"""The table of verbs, and the entry point that turns errors into one line and an exit code."""

import io
import logging
import os
import sys
import warnings
from contextlib import suppress
from itertools import pairwise
from typing import NoReturn

from cyclopts import App, CycloptsError, Parameter
from pydantic import ValidationError

from cnnkit import __version__
from cnnkit.core.errors import CnnkitError
from cnnkit.core.text import printable

__all__ = ["main"]

VERBS = {  # each summary is the start of the docstring that `cnnkit VERB --help` shows
    "train": "Train a network on images.",
    "recipes": "Print the training recipes.",
    "evaluate": "Evaluate a trained network.",
    "calibrate": "Fit the temperature of a trained network.",
    "report": "Write a report on a run as one HTML page.",
    "predict": "Predict the classes of images.",
    "explain": "Show which pixels of an image a prediction depends on.",
    "data check": "Find problems in a folder of images.",
    "data pack": "Pack a folder of images into tar shards.",
    "data show": "Preview the training images of each class.",
    "lr-find": "Find a learning rate with a short run.",
    "bench": "Benchmark training and prediction on this machine.",
    "sweep": "Search for the best settings.",
    "runs": "Compare the runs in a folder.",
    "plot": "Plot the training curves of one or more runs.",
    "nets": "List the networks.",
    "anatomy": "Show a network's shapes, parameters, MACs and receptive fields.",
    "draw": "Draw a network as an SVG diagram.",
    "features": "Show a network's feature maps for an image.",
    "filters": "Show the filters of a convolution.",
    "filter": "Apply a kernel to an image.",
}
ARGUMENTS = {  # where cyclopts' usage line would show [ARGS]
    "train": "[NET]",
    "recipes": "[NAME]",
    "predict": "RUN IMAGE...",
    "explain": "RUN IMAGE...",
    "lr-find": "[NET]",
    "bench": "[NET]",
    "sweep": "--config FILE --trials N [NET]",
    "runs": "[FOLDER]",
    "plot": "RUN...",
    "nets": "[PATTERN]",
}
EPILOGUE = "Exit codes: 0 success, 1 runtime error, 2 wrong usage, 3 data missing or corrupt, 130 interrupted."


app = App(
    name="cnnkit",
    version=__version__,
    help="The classic convolutional networks as one kit.",
    help_epilogue=EPILOGUE,
    help_format="markdown",
    default_parameter=Parameter(
        consume_multiple=True,
        negative_iterable=(),
        show_default=lambda it: None if it is None or it is False or it in ((), {}) else str(it),
    ),
)
data = App(name="data", help="Check, preview and pack image data sets.")
app.command(data)
for verb, text in VERBS.items():
    group, _, name = verb.rpartition(" ")
    module, function = (words.replace(" ", "_").replace("-", "_") for words in (verb, name))
    usage = f"Usage: cnnkit {verb} [OPTIONS] {ARGUMENTS[verb]}" if verb in ARGUMENTS else None
    (data if group else app).command(f"cnnkit.cli.{module}:{function}", name=name, help=text, usage=usage)


def main() -> NoReturn:
    """Run the command line and exit with its code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # like standard error, so that no file name raises
    warnings.filterwarnings("ignore", module="PIL")  # cnnkit reports problems of an image itself
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if logging.lastResort:  # the handler while no run logs
        logging.lastResort.setFormatter(_OneLine())
    try:
        arguments = _name_the_run(sys.argv[1:])
        _use_docstring(arguments)
        app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CnnkitError as error:
        _leave(str(error), error.exit_code)
    except CycloptsError as error:
        _leave(_usage(error), 2)
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        _drop_output()
    except OSError as error:
        _drop_output()
        _leave(f"{error.filename}: {error.strerror}" if error.filename else str(error), 1)
    except Exception as error:  # a bug
        from cnnkit.cli.unexpected import describe, wants_traceback

        if wants_traceback():
            raise
        _leave(describe(error), 1)
    _end(0)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _use_docstring(arguments: list[str]) -> None:
    """Replace the summary of the verb that is called, whose module is imported now, by its docstring."""
    _, (_, *called), _ = app.parse_commands([word for word in arguments if not word.startswith("-")])
    for verb in called:
        if verb.default_command:
            verb.help = verb.default_command.__doc__


def _name_the_run(arguments: list[str]) -> list[str]:
    """Replace a bare --resume with --resume latest."""
    named = []
    for argument, following in pairwise([*arguments, "--"]):
        named += [argument, "latest"] if argument == "--resume" and following.startswith("-") else [argument]
    return named


def _usage(error: CycloptsError) -> str:
    if isinstance(error.__cause__, ValidationError):
        from cnnkit.experiment.config import RunConfig
        from cnnkit.train.config import explain

        return str(explain(error.__cause__, RunConfig))
    return " ".join(str(error).split())


def _drop_output() -> None:
    """Redirect buffered output to null, so that flushing it at exit does not fail again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, code: int) -> NoReturn:
    from cnnkit.cli.console import complain

    complain(message)
    _end(code)


def _end(code: int) -> NoReturn:
    """Exit; under torchrun without Python's shutdown, which Gloo's threads may abort after all is saved."""
    if "TORCHELASTIC_RUN_ID" in os.environ:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
