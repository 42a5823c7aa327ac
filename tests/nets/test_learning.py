"""Each network of the chapter learns: a few hundred steps on real Fashion-MNIST through `cnnkit train`."""

import json
import math
import struct
from pathlib import Path

import pytest

from cnnkit.data import read_idx
from helpers.cli import Cli

FASHION = Path("/usr/share/datasets/fashion-mnist")
STEPS, BATCH = 360, 16
CHANCE = math.log(10)
SETTINGS = {  # pixels, peak learning rate, initial weights
    "lenet": (28, 0.01, "torch"),
    "lenet_bn": (28, 0.01, "torch"),
    "alexnet": (67, 0.0003, "torch"),
    "vgg11": (32, 0.0003, "he"),
    "vgg13": (32, 0.0003, "he"),
    "vgg16": (32, 0.0003, "he"),
    "vgg19": (32, 0.0003, "he"),
    "nin": (99, 0.0005, "he"),
    "googlenet": (32, 0.0005, "he"),
    "resnet18": (32, 0.003, "torch"),
    "resnet34": (32, 0.003, "torch"),
    "densenet": (32, 0.003, "torch"),
}


def first_images(folder: Path, number: int) -> None:
    """Write the first images and labels of each part as IDX files."""
    for part in ("train", "t10k"):
        for kind in ("images-idx3", "labels-idx1"):
            [source] = FASHION.glob(f"{part}-{kind}-ubyte*")
            values = read_idx(source)[:number]
            header = struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape)
            (folder / f"{part}-{kind}-ubyte").write_bytes(header + values.tobytes())


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.skipif(not FASHION.is_dir(), reason="needs Debian's dataset-fashion-mnist")
@pytest.mark.parametrize("name", SETTINGS)
def test_the_loss_falls_well_below_chance(name: str, tmp_path: Path, cli: Cli) -> None:
    first_images(tmp_path, round(STEPS * BATCH / 0.9))
    pixels, lr, init = SETTINGS[name]
    data = ["--data", "fashion-mnist", "--data-dir", tmp_path, "--image-size", pixels]
    result = cli("train", name, *data, "--epochs", 1, "--batch-size", BATCH, "--lr", lr, "--init", init)
    assert result.code == 0, result.err
    [line] = (tmp_path / "runs" / f"{name}-fashion-mnist-1" / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["val_loss"] < 0.6 * CHANCE
