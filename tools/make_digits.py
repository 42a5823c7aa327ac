"""Write the digits that ship with cnnkit, and the example images, from scikit-learn's copy of the UCI set.

    pip install scikit-learn && python tools/make_digits.py

The 1,797 images keep their order. They come writer after writer, so the last 360 are a test set by other
writers than most of the training images. Intensities 0-16 become 0-255.
"""

import gzip
import struct
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

ROOT = Path(__file__).resolve().parents[1]
TEST, EXAMPLES = 360, 5


def write_idx(path: Path, array: np.ndarray) -> None:
    """Write a uint8 array as a gzip-compressed IDX file, the same bytes every time."""
    header = struct.pack(f">HBB{array.ndim}I", 0, 0x08, array.ndim, *array.shape)
    path.write_bytes(gzip.compress(header + array.tobytes(), mtime=0))


def main() -> None:
    """Write the four IDX files and the example images."""
    digits = load_digits()
    images = np.round(digits.images * 255 / 16).astype(np.uint8)
    labels = digits.target.astype(np.uint8)
    folder = ROOT / "src/cnnkit/data/digits"
    for part, rows in {"train": slice(None, -TEST), "t10k": slice(-TEST, None)}.items():
        write_idx(folder / f"{part}-images-idx3-ubyte.gz", images[rows])
        write_idx(folder / f"{part}-labels-idx1-ubyte.gz", labels[rows])
    for index in range(len(images) - EXAMPLES, len(images)):
        Image.fromarray(images[index]).save(ROOT / f"examples/digits/{index}-is-{labels[index]}.png")


if __name__ == "__main__":
    main()
