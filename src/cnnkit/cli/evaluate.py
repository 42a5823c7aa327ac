"""`cnnkit evaluate`: a trained network on its whole test set."""

from pathlib import Path
from typing import Literal

from cnnkit.core.limits import DEFAULT_MAX_PIXELS

__all__ = ["evaluate"]


def evaluate(
    run: Path,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    workers: int | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Measure a trained network on the whole test set: loss, accuracy, each class, confusion matrix.

    Of a run's own data, its folder keeps the figures as test.json.

    Parameters
    ----------
    run
        A run folder, or a bundle such as its best/.
    data
        Another data set of the same classes, a folder of images or a CSV file: its test part or, without one, all of
        it, but for images that the network was trained on. Without --data, the run's own test images.
    data_dir
        Folder of the data set's IDX files.
    on_bad_image
        What to do about an image that cannot be read: stop, or leave it out and say so.
    workers
        Threads that decode images; without it, one for each processor.
    max_pixels
        The most pixels that an image may be decoded to; a larger one cannot be read.
    device
        cpu, cuda, cuda:1, mps, or auto.
    json
        Print JSON.
    """
    from cnnkit.cli.console import complain, page, print_json
    from cnnkit.experiment import evaluate as measure

    found = measure(
        run,
        data,
        data_dir=data_dir,
        on_bad_image=on_bad_image,
        workers=workers,
        max_pixels=max_pixels,
        device=device,
    )
    for path, reason in found.skipped:
        complain(f"left out: {path}: {reason}")
    if json:
        for remark in found.remarks:
            complain(remark)
        print_json(found.to_dict())
    else:
        page.print(*found.tables(), sep="\n")
