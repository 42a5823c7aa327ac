"""A folder of small images: seconds to the first batch, images decoded per second, memory over an epoch.

    python benchmarks/data_loading.py

Fashion-MNIST's training images are written as 10 x 6,000 PNGs. Decoding is measured against torch's `DataLoader` with
the usual data set on Pillow, in turn, with one and two threads or worker processes, after a round that does not count.
Each time to the first batch is measured in a new process, without its imports; the files are in the system's page
cache, and torch computes with one thread. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from _lib.report import RESULTS, write

BATCH = 256
CONTESTANTS = ("cnnkit", "DataLoader")


def write_images(data_dir: Path, folder: Path) -> int:
    """Write the training images as class/number.png and return how many there are."""
    from PIL import Image

    from cnnkit.data import load_dataset

    train = load_dataset("fashion-mnist", data_dir).train
    for label in range(10):
        (folder / str(label)).mkdir(parents=True)
    for number, (image, label) in enumerate(zip(train.images, train.labels.tolist(), strict=True)):
        Image.fromarray(image[0].numpy()).save(folder / str(label) / f"{number:05}.png")
    return len(train)


def loader(folder: Path, workers: int) -> Any:
    """Return the DataLoader as usually written: Pillow opens, torch collates."""
    import numpy as np
    import torch
    from PIL import Image
    from torch.utils.data import DataLoader, Dataset

    class Images(Dataset):
        def __init__(self) -> None:
            classes = sorted(path for path in folder.iterdir() if path.is_dir())
            self.files = [(path, label) for label, name in enumerate(classes) for path in sorted(name.glob("*.png"))]

        def __len__(self) -> int:
            return len(self.files)

        def __getitem__(self, row: int) -> tuple[torch.Tensor, int]:
            path, label = self.files[row]
            with Image.open(path) as image:
                pixels = np.array(image.convert("L"))
            return torch.from_numpy(pixels)[None], label

    return DataLoader(Images(), batch_size=BATCH, num_workers=workers)


def streamed(folder: Path, workers: int) -> Any:
    """Return the folder as images that are decoded at each access."""
    from cnnkit.data import load_folder

    return load_folder(folder, budget=0, workers=workers, test_fraction=0, progress=False).train


def decode(contestant: str, source: Any) -> float:
    """Decode all images, batch by batch, and return the images per second."""
    start, count = time.perf_counter(), 0
    if contestant == "cnnkit":
        for first in range(0, len(source), BATCH):
            rows = slice(first, first + BATCH)
            images, _ = source.images[rows], source.labels[rows]
            count += len(images)
    else:
        for images, _ in source:
            count += len(images)
    return count / (time.perf_counter() - start)


def first_batch(contestant: str, folder: Path) -> None:
    """Print the seconds to the first batch as floats."""
    import torch

    from cnnkit.data import Batches, Preprocess, load_folder

    start = time.perf_counter()
    if contestant == "cnnkit":
        next(Batches(load_folder(folder, progress=False).train, BATCH, Preprocess((28, 28)), seed=0).epoch(1))
    else:
        next(iter(loader(folder, 2)))[0].to(torch.float32).div_(255)
    print(json.dumps(time.perf_counter() - start))


def epochs(folder: Path) -> None:
    """Print images per second from the cache, and the anonymous memory before and after ten epochs."""
    from cnnkit.data import Batches, Preprocess, load_folder

    batches = Batches(load_folder(folder, progress=False).train, BATCH, Preprocess((28, 28)), seed=0)
    for _ in batches.epoch(1):
        pass
    before, speeds = resident(), []
    for epoch in range(2, 12):
        start = time.perf_counter()
        for _ in batches.epoch(epoch):
            pass
        speeds.append(round(batches.num_images / (time.perf_counter() - start)))
    print(json.dumps({"images_per_second": speeds, "megabytes": [before, resident()]}))


def resident() -> float:
    """Return the megabytes of anonymous memory."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon"))
    return round(int(line.split()[1]) / 1024, 1)


TASKS: dict[str, Callable[[Path], None]] = {
    "cnnkit": lambda folder: first_batch("cnnkit", folder),
    "DataLoader": lambda folder: first_batch("DataLoader", folder),
    "epochs": epochs,
}


def main() -> None:
    """Measure one after the other and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--data-dir", type=Path, default=Path("/usr/share/datasets/fashion-mnist"))
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--task", nargs=2, metavar=("TASK", "FOLDER"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.task:
        TASKS[options.task[0]](Path(options.task[1]))
        return

    with tempfile.TemporaryDirectory() as temporary:
        os.environ |= {"CNNKIT_CACHE": str(Path(temporary) / "cache"), "OMP_NUM_THREADS": "1"}
        folder = Path(temporary) / "fashion"
        count = write_images(options.data_dir, folder)

        def task(name: str) -> Any:
            command = [sys.executable, __file__, "--task", name, str(folder)]
            return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)

        first: dict[str, list[float]] = {"cold": [], "warm": [], "DataLoader": []}
        for _ in range(options.rounds):
            subprocess.run(["rm", "-rf", os.environ["CNNKIT_CACHE"]], check=True)
            for name, who in (("cold", "cnnkit"), ("warm", "cnnkit"), ("DataLoader", "DataLoader")):
                first[name].append(round(task(who), 3))
        cached = task("epochs")

        speeds: dict[str, list[float]] = {f"{who} {workers}": [] for workers in (1, 2) for who in CONTESTANTS}
        sources = {}
        for workers in (1, 2):
            sources[f"cnnkit {workers}"] = streamed(folder, workers)
            sources[f"DataLoader {workers}"] = loader(folder, workers)
        for round_ in range(options.rounds + 1):
            for name, source in sources.items():
                speed = decode(name.split()[0], source)
                if round_:
                    speeds[name].append(round(speed))
                print(f"round {round_} {name} {speed:,.0f} images/s", flush=True)

    work = f"{count:,} PNGs in 10 folders, batch {BATCH}, medians of {options.rounds} rounds in turn"
    figures = {"first_batch_seconds": first, "decoded_per_second": speeds, "cached": cached}
    write(options.output, "data_loading", work, figures)


if __name__ == "__main__":
    main()
