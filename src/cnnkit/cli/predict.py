"""`cnnkit predict`: what is in pictures."""

import sys
from pathlib import Path
from typing import Any

from cnnkit.core.errors import DataError

__all__ = ["predict"]


def predict(run: Path, *images: Path, top: int = 3, device: str = "auto", json: bool = False) -> None:
    """Say what is in pictures: the likeliest classes with their probabilities.

    A picture that cannot be read is reported and the others still answered; the exit code is then 3.

    Parameters
    ----------
    run
        A run folder, or a bundle such as its best/.
    images
        Picture files of any size and mode.
    top
        How many classes to name.
    device
        cpu, cuda, cuda:1, mps, or auto.
    json
        Print JSON.
    """
    from cnnkit.cli.console import console, print_json
    from cnnkit.core.device import pick_device
    from cnnkit.core.errors import UsageError
    from cnnkit.data import read_image
    from cnnkit.deploy import load_bundle
    from cnnkit.deploy import predict as answer

    if not images:
        raise UsageError("which pictures? write cnnkit predict RUN PICTURE...")
    net, bundle = load_bundle(run, pick_device(device))
    rows: list[dict[str, Any]] = []
    failed = 0
    width = max(len(str(path)) for path in images)
    for path in images:
        try:
            picture = read_image(path, bundle.in_channels)
        except DataError as error:
            failed += 1
            rows.append({"image": str(path), "error": str(error)})
            print(f"cnnkit: {error}", file=sys.stderr)
            continue
        [prediction] = answer(net, bundle, [picture], top)
        pairs = [*zip(prediction.classes, prediction.probabilities, strict=True)]
        rows.append({"image": str(path), "predictions": [{"class": name, "probability": p} for name, p in pairs]})
        if not json:
            line = "   ".join(f"{name} {probability:.1%}" for name, probability in pairs)
            console.print(f"{path!s:{width}}  {line}", markup=False, soft_wrap=True)
    if json:
        print_json(rows)
    if failed:
        raise DataError(f"{failed} of {len(images)} pictures could not be read")
