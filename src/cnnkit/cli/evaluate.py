"""`cnnkit evaluate`: metrics of a trained network on a split of its data, or on other data."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from cnnkit.cli.options import Device, Json, MaxPixels, OnBadImage, Temperature, Trained, Workers
from cnnkit.core.limits import DEFAULT_MAX_PIXELS

__all__ = ["evaluate"]


def evaluate(
    run: Trained,
    *,
    split: Literal["train", "validation", "test"] = "test",
    data: str | None = None,
    data_dir: Path | None = None,
    allow_class_mismatch: bool = False,
    temperature: Temperature = True,
    csv: Annotated[Path | None, Parameter("--csv")] = None,
    batch_size: int | None = None,
    on_bad_image: OnBadImage = "error",
    workers: Workers = None,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Evaluate a trained network on all images of a split: metrics with 95 % intervals, calibration, confusion matrix.

    The predictions are kept in the run folder (predictions-SPLIT-DIGEST.npz), where `cnnkit report` reads them; the
    metrics on the run's own test images are written to test.json. Started by torchrun, the processes share the work.

    Parameters
    ----------
    split
        Split of the run's own data, or of --data.
    data
        Evaluate on another data set, whose classes are matched by name: on its split or, if it has no splits, on all
        images that the network was not trained on. Without it, the run's own images are used.
    data_dir
        Folder of IDX files.
    allow_class_mismatch
        Skip classes of --data that the network does not know, and accept that it lacks others.
    csv
        Write a CSV file too: file, label, prediction, and the probability of each class.
    batch_size
        Images per batch; the metrics do not depend on it. By default chosen by the image size.
    """
    from cnnkit.cli.console import complain, page, print_json
    from cnnkit.experiment import evaluate as measure
    from cnnkit.train.distributed import join_world

    world = join_world()
    try:
        found = measure(
            run,
            data,
            split=split,
            data_dir=data_dir,
            allow_class_mismatch=allow_class_mismatch,
            temperature=temperature,
            batch_size=batch_size,
            on_bad_image=on_bad_image,
            workers=workers,
            max_pixels=max_pixels,
            device=device,
            world=world,
        )
    finally:
        world.leave()
    if not world.is_main:
        return
    for path, reason in found.skipped:
        complain(f"skipped: {path}: {reason}")
    if csv:
        found.to_csv(csv)
    if json:
        for remark in found.remarks:
            complain(remark)
        print_json(found.to_dict())
    else:
        page.print(*found.tables(), sep="\n")
