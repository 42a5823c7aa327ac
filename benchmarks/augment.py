"""Images per second of augmentation on the batch: cnnkit, kornia, and Pillow image by image, in turn in one run.

    python benchmarks/augment.py

Batches of 128 random images, grey of 28 x 28 and colour of 224 x 224, from bytes to bytes; kornia gets and gives
floats, and their conversion does not count. Pillow's loop ends with the stacked batch. One process, one thread, and the
processor's time, so that other work on the machine does not count. kornia's TrivialAugment draws one operation for
the whole batch, and its RandomResizedCrop does not antialias; cnnkit draws for each image, and antialiases.
Results go to benchmarks/results/ as JSON.
"""

import argparse
import random
import time
from collections.abc import Callable
from pathlib import Path

import kornia.augmentation as K
import numpy as np
import torch
from _lib.report import RESULTS, write
from _lib.work import AUGMENT_BATCH as BATCH
from PIL import Image
from torch import Tensor, nn

from cnnkit.data.augment.batch import Augment

PADDING = 4
SHAPES = {"28 x 28 x 1": (28, 28, 1), "224 x 224 x 3": (224, 224, 3)}
COLOURS = ("jitter", "trivial")  # kornia changes the hue and saturation of colour images only


def pillow(image: Image.Image) -> Image.Image:
    """Flip and crop one image."""
    if random.random() < 0.5:
        image = image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    left, top = (random.randint(-PADDING, PADDING) for _ in range(2))
    return image.crop((left, top, left + image.width, top + image.height))


def work(size: tuple[int, int]) -> dict[str, tuple[list[str], nn.Module, Callable[[Image.Image], Image.Image] | None]]:
    """Return what is measured: cnnkit's names, kornia's module, and Pillow's function for one image."""
    return {
        "flip, crop:4": (
            ["flip", "crop:4"],
            nn.Sequential(K.RandomHorizontalFlip(), K.RandomCrop(size, padding=PADDING)),
            pillow,
        ),
        "rrc": (["rrc"], K.RandomResizedCrop(size), None),
        "jitter": (["jitter"], K.ColorJitter(0.4, 0.4, 0.4, 0.1), None),
        "trivial": (["trivial"], K.auto.TrivialAugment(), None),
    }


def seconds(function: Callable[[], object]) -> float:
    """Return the processor's time that a call takes."""
    start = time.process_time()
    function()
    return time.process_time() - start


def contestants(
    images: Tensor, names: list[str], module: nn.Module, one: Callable[[Image.Image], Image.Image] | None
) -> dict[str, Callable[[], object]]:
    """Return what augments this batch, by contestant."""
    augment, floats = Augment(names, (images.shape[2], images.shape[3])), images / 255
    arrays = [array.squeeze() for array in images.permute(0, 2, 3, 1).numpy()]
    ways: dict[str, Callable[[], object]] = {
        "cnnkit": lambda: augment(images, torch.rand(BATCH, augment.numbers)),
        "kornia": lambda: module(floats),
    }
    if one:
        ways["Pillow"] = lambda: torch.from_numpy(np.stack([np.asarray(one(Image.fromarray(a))) for a in arrays]))
    return ways


def main() -> None:
    """Let the contestants work in turn and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    torch.set_num_threads(1)

    figures = {}
    for shape, (height, width, channels) in SHAPES.items():
        images = torch.randint(0, 256, (BATCH, height, width, channels), dtype=torch.uint8).permute(0, 3, 1, 2)
        for title, job in work((height, width)).items():
            if title in COLOURS and channels == 1:
                continue
            ways = contestants(images, *job)
            found: dict[str, list[float]] = {name: [] for name in ways}
            for round_ in range(options.rounds + 1):
                for name, way in ways.items():
                    elapsed = seconds(way)
                    if round_:  # the first warms up
                        found[name].append(elapsed)
            figures[f"{title} at {shape}"] = found
    write(
        options.output,
        "augment",
        f"batches of {BATCH}, one thread, {options.rounds} rounds in turn, medians of the processor's time; "
        "kornia from floats to floats, the others from bytes to bytes; kornia's trivial is one operation for the batch",
        figures,
    )


if __name__ == "__main__":
    main()
