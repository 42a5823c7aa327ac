"""`cnnkit evaluate`: a trained network on its whole test set."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cnnkit.core.errors import DataError
from cnnkit.train.record import Run

if TYPE_CHECKING:
    from cnnkit.data import Dataset, ImageSet
    from cnnkit.deploy import Bundle

__all__ = ["evaluate"]


def evaluate(
    run: Path,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    on_bad_image: Literal["error", "skip"] = "error",
    workers: int | None = None,
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
        Another data set of the same classes, or a folder of pictures: its test/ or, without one, all of it. Without
        --data, the test images of what the network was trained on.
    data_dir
        Folder of the data set's IDX files.
    on_bad_image
        What to do about a picture that cannot be read: stop, or leave it out and say so.
    workers
        Threads that decode pictures; without it, one for each processor.
    device
        cpu, cuda, cuda:1, mps, or auto.
    json
        Print JSON.
    """
    from cnnkit.cli.job import batches_of, looking_batch
    from cnnkit.core.device import pick_device
    from cnnkit.deploy import load_bundle
    from cnnkit.train import evaluate as measure

    where = pick_device(device)
    net, bundle = load_bundle(run, where)
    dataset, images = _test_images(bundle, data, data_dir, on_bad_image=on_bad_image, workers=workers)
    if dataset.classes != bundle.classes:
        raise DataError(f"{dataset.name} has the classes {dataset.classes}, the network knows {bundle.classes}")
    if images.images.shape[1] != bundle.in_channels:
        raise DataError(f"{dataset.name} has {images.images.shape[1]} channels, the network takes {bundle.in_channels}")
    metrics = measure(
        net, batches_of(images)(images, looking_batch(max(bundle.image_size)), bundle.preprocess, device=where)
    )
    for path, reason in dataset.skipped:
        print(f"cnnkit: left out: {path}: {reason}", file=sys.stderr)
    report = {
        "net": bundle.net,
        "data": dataset.name,
        "images": metrics.num_images,
        "loss": metrics.loss,
        "accuracy": metrics.accuracy,
        "classes": [{"class": name, **row} for name, row in zip(bundle.classes, metrics.per_class(), strict=True)],
        "confusion": metrics.confusion.tolist(),
    }
    if data is None and (run / "config.toml").is_file():
        Run.open(run).write_json("test.json", report)
    _show(report, json)


def _test_images(
    bundle: "Bundle", data: str | None, data_dir: Path | None, **options: Any
) -> "tuple[Dataset, ImageSet]":
    """Return a data set and its test images; raises DataError if it has none."""
    from cnnkit.data import DATASETS, is_shards, load_dataset, scan_folder

    name, other = data or bundle.data, data is not None
    shards = name not in DATASETS and is_shards(name)
    is_folder = name not in DATASETS and not shards and Path(name).is_dir()
    flat = other and is_folder and scan_folder(Path(name)).flat
    dataset = load_dataset(
        name,
        data_dir or (Path(bundle.data_dir) if bundle.data_dir and not other else None),
        image_size=bundle.image_size,
        channels=bundle.in_channels,
        test_fraction=0.0 if flat else bundle.test_fraction,
        **options,
    )
    whole = flat or (other and shards and dataset.test is None)
    images = dataset.train if whole else dataset.test
    if images is None or not len(images):
        raise DataError(f"{name} has no test images: put some into {name}/test/CLASS/, or name others with --data")
    return dataset, images


def _show(report: dict[str, Any], json: bool) -> None:
    from cnnkit.cli.console import page, print_json, table

    if json:
        print_json(report)
        return
    per_class = table(["class", "precision", "recall", "F1", "images"])
    confusion = table(["true / predicted", *map(str, range(len(report["classes"])))])
    for index, (row, counts) in enumerate(zip(report["classes"], report["confusion"], strict=True)):
        per_class.add_row(
            row["class"], *(f"{row[key]:.3f}" for key in ("precision", "recall", "f1")), f"{row['support']:,}"
        )
        confusion.add_row(f"{index} {row['class']}", *(str(count) if count else "." for count in counts))
    page.print(per_class, confusion)
    page.print(
        f"{report['net']} on the test set of {report['data']}: accuracy {report['accuracy']:.4f}, "
        f"loss {report['loss']:.4f}, {report['images']:,} images",
        markup=False,
    )
