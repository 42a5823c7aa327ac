"""Folders with problems, and what the check finds in them."""

import os
from collections import defaultdict
from pathlib import Path

import numpy as np
from PIL import Image

from cnnkit.data.check.run import Diagnosis, diagnose
from helpers.images import smooth_image

DRAW = np.random.default_rng(0)


def noise(height: int = 20, width: int = 30) -> np.ndarray:
    return DRAW.integers(0, 256, (height, width, 3), np.uint8)


def save(path: str | Path, pixels: np.ndarray | Image.Image | None = None, **how: object) -> Path:
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = pixels if isinstance(pixels, Image.Image) else Image.fromarray(noise() if pixels is None else pixels)
    picture.save(path, **how)
    return path


def folders(root: str = "data", splits: tuple[str, ...] = ("train", "test"), count: int = 3) -> Path:
    for split in splits:
        for name in ("cat", "dog"):
            for number in range(count):
                save(Path(root, split, name, f"{number}.png"))
    return Path(root)


def found(root: Path | str, **how: object) -> dict[str, list[tuple[str, ...]]]:
    """The kinds of what the doctor finds, and the files of each."""
    result = defaultdict(list)
    for finding in look(root, **how).findings:
        result[finding.kind].append(finding.paths)
    return dict(result)


def look(root: Path | str, **how: object) -> Diagnosis:
    return diagnose(Path(root), **({"workers": 2, "progress": False} | how))


def spoil(root: Path) -> None:
    """Put a bad file of each kind into a folder."""
    cut = save("cut.jpg", smooth_image(1)).read_bytes()
    (root / "train/cat/empty.jpg").touch()
    (root / "train/cat/text.png").write_text("no picture")
    (root / "train/dog/cut.jpg").write_bytes(cut[: len(cut) // 2])
    (root / "train/dog/dangling.jpg").symlink_to("nowhere.jpg")
    os.mkfifo(root / "train/dog/pipe.png")
    (root / "test/dog/damaged.png").write_bytes(damaged())


def damaged() -> bytes:
    content = bytearray(save("whole.png", noise(64, 64)).read_bytes())
    content[600:700] = bytes(100)
    return bytes(content)
