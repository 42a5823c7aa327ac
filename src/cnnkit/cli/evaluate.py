"""`cnnkit evaluate`: a trained network on its whole test set."""

from pathlib import Path
from typing import TYPE_CHECKING

from cnnkit.core.errors import DataError

if TYPE_CHECKING:
    from cnnkit.train.evaluate import Metrics

__all__ = ["evaluate"]


def evaluate(
    run: Path,
    *,
    data: str | None = None,
    data_dir: Path | None = None,
    device: str = "auto",
    json: bool = False,
) -> None:
    """Measure a trained network on the whole test set: loss, accuracy, each class, confusion matrix.

    Parameters
    ----------
    run
        A run folder, or a bundle such as its best/.
    data
        Another data set of the same classes; without it, the one the network was trained on.
    data_dir
        Folder of the data set's IDX files.
    device
        cpu, cuda, cuda:1, mps, or auto.
    json
        Print JSON.
    """
    from cnnkit.core.device import pick_device
    from cnnkit.data import Batches, load_dataset
    from cnnkit.deploy import load_bundle
    from cnnkit.train import evaluate as measure

    where = pick_device(device)
    net, bundle = load_bundle(run, where)
    if data_dir is None and data is None and bundle.data_dir:
        data_dir = Path(bundle.data_dir)
    dataset = load_dataset(data or bundle.data, data_dir)
    if dataset.classes != bundle.classes:
        raise DataError(f"{dataset.name} has the classes {dataset.classes}, the network knows {bundle.classes}")
    if dataset.test.images.shape[1] != bundle.in_channels:
        raise DataError(
            f"{dataset.name} has {dataset.test.images.shape[1]} channels, the network takes {bundle.in_channels}"
        )
    metrics = measure(net, Batches(dataset.test, 500, bundle.preprocess, device=where))
    _report(metrics, bundle.net, dataset.name, dataset.classes, json)


def _report(metrics: "Metrics", net: str, data: str, classes: tuple[str, ...], json: bool) -> None:
    from cnnkit.cli.console import page, print_json, table

    rows = metrics.per_class()
    if json:
        print_json(
            {
                "net": net,
                "data": data,
                "images": metrics.num_images,
                "loss": metrics.loss,
                "accuracy": metrics.accuracy,
                "classes": [{"class": name, **row} for name, row in zip(classes, rows, strict=True)],
                "confusion": metrics.confusion.tolist(),
            }
        )
        return
    per_class = table(["class", "precision", "recall", "F1", "images"])
    for name, row in zip(classes, rows, strict=True):
        numbers = (f"{row[key]:.3f}" for key in ("precision", "recall", "f1"))
        per_class.add_row(name, *numbers, f"{row['support']:,}")
    confusion = table(["true / predicted", *map(str, range(len(classes)))])
    for index, (name, counts) in enumerate(zip(classes, metrics.confusion.tolist(), strict=True)):
        confusion.add_row(f"{index} {name}", *(str(count) if count else "." for count in counts))
    page.print(per_class, confusion)
    page.print(
        f"{net} on the test set of {data}: accuracy {metrics.accuracy:.4f}, loss {metrics.loss:.4f}, "
        f"{metrics.num_images:,} images"
    )
