"""The verbs and what leads out of them: one error line and the documented exit code."""

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

VERBS = {
    "train": "Train a network and keep the best of it.",
    "recipes": "Print the recipes for training.",
    "evaluate": "Measure a trained network on its whole test set.",
    "predict": "Classify images: files, folders, globs.",
    "data check": "Find what is wrong in a folder of images.",
    "data pack": "Pack a folder of images into tar shards.",
    "data show": "Show the images as the network sees them.",
    "lr-find": "Find a learning rate by trying them all in one short run.",
    "bench": "Measure how fast a network trains and predicts here.",
    "sweep": "Search for the best settings.",
    "runs": "Compare runs in a table.",
    "plot": "Draw the curves of runs.",
    "nets": "List the networks of the zoo.",
    "anatomy": "Show a network's shapes, parameters, MACs and receptive fields.",
    "draw": "Draw a network as an SVG diagram.",
    "features": "Show the feature maps of an image, stage by stage.",
    "filters": "Show the filters of a convolution.",
    "filter": "Slide a kernel over an image and write the feature map.",
}
EPILOGUE = "Exit codes: 0 done, 1 failed while running, 2 wrong usage, 3 data missing or corrupt, 130 interrupted."

app = App(
    name="cnnkit",
    version=__version__,
    help="The classic convolutional networks as one kit.",
    help_epilogue=EPILOGUE,
    help_format="markdown",
    default_parameter=Parameter(consume_multiple=True),  # --augment flip crop
)
data = App(name="data", help="Check, show and pack your own images.")
app.command(data)
for verb, text in VERBS.items():
    group, _, name = verb.rpartition(" ")
    module, function = (words.replace(" ", "_").replace("-", "_") for words in (verb, name))
    (data if group else app).command(f"cnnkit.cli.{module}:{function}", name=name, help=text)


def main() -> NoReturn:
    """Run the command line and leave with its exit code."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # as standard error is: no name ends a verb
    warnings.filterwarnings("ignore", module="PIL")  # what is wrong with an image is told in its own line
    logging.getLogger("PIL").setLevel(logging.CRITICAL)
    if logging.lastResort:  # prints what is logged while no run keeps a log
        logging.lastResort.setFormatter(_OneLine())
    try:
        app(_name_the_run(sys.argv[1:]), exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
    except CnnkitError as error:
        _leave(str(error), error.exit_code)
    except CycloptsError as error:
        _leave(_usage(error), 2)
    except BrokenPipeError:  # the reader, such as `head`, has seen enough
        _drop_output()
    except OSError as error:
        _drop_output()
        _leave(f"cannot go on: {error.filename}: {error.strerror}" if error.filename else f"cannot go on: {error}", 1)
    except Exception as error:  # of ours
        from cnnkit.cli.unexpected import describe, wants_traceback

        if wants_traceback():
            raise
        _leave(describe(error), 1)
    _end(0)


class _OneLine(logging.Formatter):
    def formatMessage(self, record: logging.LogRecord) -> str:
        return printable(super().formatMessage(record))


def _name_the_run(arguments: list[str]) -> list[str]:
    """Let --resume alone mean the latest run."""
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
    """Let what is still in the buffer go nowhere, so that leaving does not fail on it again."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _leave(message: str, code: int) -> NoReturn:
    from cnnkit.cli.console import complain

    complain(message)
    _end(code)


def _end(code: int) -> NoReturn:
    """End the process; one of several at once.

    torch's DistributedDataParallel leaves Gloo's threads behind even when it is gone, and they may abort Python's
    orderly end, after all is done and saved.
    """
    if "TORCHELASTIC_RUN_ID" in os.environ:
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError):
                stream.flush()
        os._exit(code)
    sys.exit(code)
