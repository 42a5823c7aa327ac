"""`cnnkit evaluate`: metrics of a trained network on its test set."""

from pathlib import Path

from cnnkit.cli.options import Device, Json, MaxPixels, OnBadImage, Trained, Workers
from cnnkit.core.limits import DEFAULT_MAX_PIXELS

__all__ = ["evaluate"]


def evaluate(
    run: Trained,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    on_bad_image: OnBadImage = "error",
    workers: Workers = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Evaluate a trained network on the whole test set: loss, accuracy, metrics of each class, confusion matrix.

    The result on the run's own test images is also written to test.json in the run folder.

    Parameters
    ----------
    data
        Evaluate on another data set with the same classes: on its test split or, if it has no splits, on all images
        that the network was not trained on. Without it, the run's own test images are used.
    data_dir
        Folder of IDX files.
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
        complain(f"skipped: {path}: {reason}")
    if json:
        for remark in found.remarks:
            complain(remark)
        print_json(found.to_dict())
    else:
        page.print(*found.tables(), sep="\n")
