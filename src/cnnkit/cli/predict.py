"""`cnnkit predict`: the classes of images."""

from pathlib import Path

from cnnkit.cli.options import Device, Images, Json, MaxPixels, Temperature, Trained, Workers
from cnnkit.cli.paths import given_paths
from cnnkit.core.errors import DataError, UsageError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.text import counted

__all__ = ["predict"]


def predict(
    run: Trained,
    *images: Images,
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

    paths = given_paths(images, "predict")
    if top < 1:
        raise UsageError(f"--top must be at least 1, not {top}")
    model = load(run, device=device)
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
