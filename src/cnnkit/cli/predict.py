"""`cnnkit predict`: the classes of images."""

import os
import sys
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cnnkit.cli.options import Device, Json, MaxPixels, Temperature, Trained, Workers
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.text import counted

__all__ = ["predict"]


def predict(
    run: Trained,
    *images: Annotated[str, Parameter(allow_leading_hyphen=True)],
    top: int = 3,
    temperature: Temperature = True,
    output: Path | None = None,
    batch_size: int | None = None,
    workers: Workers = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Predict the classes of images and print the most likely ones with their probabilities.

    Unreadable images are reported and the others still predicted; the exit code is then 3.

    Parameters
    ----------
    images
        Image files of any size and mode, folders (searched recursively), globs such as `photos/*/*.jpg`, or - to read
        paths from standard input, one per line.
    top
        Number of classes to print per image.
    output
        Write a CSV file instead: image, label, score, error, and the probability of each class.
    batch_size
        Images per batch; by default 32.
    """
    from cnnkit.cli.console import complain, console, print_json
    from cnnkit.core.console import aligned
    from cnnkit.deploy import load

    if not images:
        raise UsageError("no image given; write cnnkit predict RUN IMAGE...")
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    model = load(run, device=device)
    if not (paths := _paths(images)):
        raise UsageError("standard input has no paths")
    found = model.predict(paths, batch_size=batch_size, workers=workers, max_pixels=max_pixels, temperature=temperature)
    for name, reason in found.errors.items():
        complain(f"{name}: {reason}")
    answers = zip(found.names, found.to_list(top), strict=True)
    if output:
        found.to_csv(output)
        console.say(f"{output}: {counted(len(found), 'image')}")
    elif json:
        rows = [
            {"image": name, "predictions": [{"class": one["label"], "probability": one["score"]} for one in best]}
            for name, best in answers
        ]
        print_json(rows + [{"image": name, "error": f"{name}: {reason}"} for name, reason in found.errors.items()])
    else:
        words = ((name, "   ".join(f"{one['label']} {one['score']:.1%}" for one in best)) for name, best in answers)
        for line in aligned(words):
            console.say(line)
    if found.errors:
        raise DataError(
            f"{len(found.errors):,} of {counted(len(found) + len(found.errors), 'image')} could not be read"
        )


def _paths(given: tuple[str, ...]) -> list[str]:
    """Return the paths: existing names as they are, "-" replaced by the lines of standard input, globs expanded."""
    import glob

    paths: list[str] = []
    for word in given:
        if word.startswith("-") and word != "-" and not Path(word).exists():
            raise UsageError(f"unknown option {word}; `cnnkit predict --help` lists them")
        if word == "-":
            lines = os.fsdecode(sys.stdin.buffer.read()).split("\n")
            paths += [line.removesuffix("\r") for line in lines if line.strip()]
        elif glob.has_magic(word) and not Path(word).exists():
            paths += sorted(glob.glob(word, recursive=True)) or [word]  # noqa: PTH207  absolute ones too
        else:
            paths.append(word)
    return paths
