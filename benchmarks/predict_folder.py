"""A folder of photographs through a trained network: `Classifier.predict` against usual code with torch.

    python benchmarks/predict_folder.py [--photos DIR]

Without --photos, JPEGs of smooth noise are generated. All are resized to the same longer side and written again, so
that decoding costs the same for all. The contestants work in turn in one process, forth and back, after a round that
does not count; the files are in the system's page cache. "loop" reads, pads and stacks the images of a batch one after
the other and runs the network, as Ultralytics' `predict` does for a folder; "DataLoader" lets two processes do so.
Results go to benchmarks/results/ as JSON.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _lib.report import RESULTS, write
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import cnnkit
from cnnkit.core.allocator import keep_large_blocks
from cnnkit.deploy import Bundle, Classifier

CASES = (
    ("lenet_bn", 64, 256, 2000),
    ("resnet18", 96, 256, 2000),
    ("resnet18", 96, 1600, 500),
    ("resnet18", 224, 256, 500),
)
BATCH = 32


def write_photos(source: Path | None, folder: Path, side: int, count: int) -> None:
    """Write so many JPEGs whose longer side has `side` pixels, of the photographs in `source` or of smooth noise."""
    known = (
        sorted(path for path in source.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png")) if source else []
    )
    draw = np.random.default_rng(0)
    folder.mkdir(parents=True)
    for number in range(count):
        if known:
            image = Image.open(known[number % len(known)]).convert("RGB")
        else:
            image = Image.fromarray(draw.integers(0, 256, (12, 16, 3), np.uint8))
        scale = side / max(image.size)
        size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
        image.resize(size, Image.Resampling.BICUBIC).save(folder / f"{number:05}.jpg", quality=90)


def classifier(name: str, pixels: int) -> Classifier:
    """Return a network with random weights, as if it had been trained on such photographs."""
    torch.manual_seed(0)
    net = cnnkit.create(name, in_channels=3, num_classes=10, image_size=pixels).eval()
    card = Bundle(
        net=name, arguments={}, in_channels=3, image_size=(pixels, pixels), classes=tuple("abcdefghij"),
        mean=(0.5,), std=(0.25,), data="photos", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    return Classifier(net.to(memory_format=torch.channels_last), card)


def read(path: Path, pixels: int) -> Tensor:
    """Return an image padded to a square, the usual code."""
    with Image.open(path) as image:
        padded = ImageOps.pad(image.convert("RGB"), (pixels, pixels), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(padded)).permute(2, 0, 1).float().div(255).sub(0.5).div(0.25)


class Photos(Dataset):
    """The usual data set."""

    def __init__(self, folder: Path, pixels: int):
        self.files, self.pixels = sorted(folder.glob("*.jpg")), pixels

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> Tensor:
        return read(self.files[row], self.pixels)


def plain_loop(net: torch.nn.Module, batches: Iterator[Tensor]) -> Tensor:
    """Return the probabilities for batches of images."""
    with torch.inference_mode():
        return torch.cat([net(x.contiguous(memory_format=torch.channels_last)).softmax(1) for x in batches])


def contestants(model: Classifier, folder: Path, pixels: int) -> dict[str, Callable[[], Tensor]]:
    """Return the functions that predict the folder, by contestant."""
    files = sorted(folder.glob("*.jpg"))
    groups = [files[start : start + BATCH] for start in range(0, len(files), BATCH)]
    return {
        "cnnkit": lambda: model.predict(folder, progress=False).probabilities,
        "loop": lambda: plain_loop(model.net, (torch.stack([read(path, pixels) for path in some]) for some in groups)),
        "DataLoader": lambda: plain_loop(model.net, iter(DataLoader(Photos(folder, pixels), BATCH, num_workers=2))),
    }


def main() -> None:
    """Measure one case after the other and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--photos", type=Path, help="a folder of photographs; without it, they are generated")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    keep_large_blocks()
    figures: dict[str, Any] = {}
    for name, pixels, side, count in CASES:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary) / "photos"
            write_photos(options.photos, folder, side, count)
            runs = contestants(classifier(name, pixels), folder, pixels)
            seconds: dict[str, list[float]] = {who: [] for who in runs}
            order: list[tuple[str, Any]] = list(runs.items())
            for round_ in range(options.rounds + 1):
                for who, run in reversed(order) if round_ % 2 else order:
                    start = time.perf_counter()
                    assert len(run()) == count
                    elapsed = time.perf_counter() - start
                    if round_:
                        seconds[who].append(elapsed)
                    print(
                        f"{name} at {pixels}, {side} px: round {round_} {who} {count / elapsed:,.0f} images/s",
                        flush=True,
                    )
        title = f"{name} at {pixels}, {count:,} JPEGs of {side} pixels"
        figures[title] = {who: [round(value, 3) for value in found] for who, found in seconds.items()}
    kind = "photographs" if options.photos else "JPEGs of smooth noise"
    write(
        options.output,
        "predict_folder",
        f"{kind}; images per second, medians of {options.rounds} rounds in turn, batches of {BATCH}, "
        f"{os.cpu_count()} processors; the ratios are medians of each round's",
        figures,
    )


if __name__ == "__main__":
    main()
