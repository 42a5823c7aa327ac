"""Small data sets in IDX files."""

import struct
from pathlib import Path

import numpy as np

from cnnkit.data.datasets import FILES


def write_set(folder: Path, train: int = 6, test: int = 4, **replaced: np.ndarray | bytes) -> Path:
    """Write a small data set as IDX files; `replaced` gives other content for a file, by its first two words."""
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray | bytes] = {}
    for part, count in {"train": train, "t10k": test}.items():
        arrays[f"{part}_images"] = np.arange(count * 4, dtype=np.uint8).reshape(count, 2, 2)
        arrays[f"{part}_labels"] = np.arange(count, dtype=np.uint8) % 10
    for file, array in zip(FILES, (arrays | replaced).values(), strict=True):
        if isinstance(array, np.ndarray):
            array = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()
        (folder / file).write_bytes(array)
    return folder
