"""Folders of small images, loaded and compared with their files."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from cnnkit.data import Dataset, load_folder, read_image
from helpers.images import noise_photos, save_noise

SIZE = (8, 8)
DECODERS = ("decode_image", "decode_with_thumb", "thumbnail")

picture = partial(save_noise, size=SIZE, mode="L")


def flat(root: str = "photos", count: int = 10, classes: tuple[str, ...] = ("cat", "dog"), **how: object) -> Path:
    return noise_photos(root, count, classes, **({"size": SIZE, "mode": "L"} | how))


def load(root: Path | str, **how: object) -> Dataset:
    return load_folder(Path(root), **({"workers": 2, "progress": False} | how))


def contents(root: Path, data: Dataset) -> None:
    """Assert that each image of the sets is what its file holds."""
    for part in (data.train, data.validation, data.test):
        if part is not None:
            images = part.images[torch.arange(len(part))]
            assert images.shape == (len(part), *part.images.shape[1:]) == tuple(part.images.shape)
            assert images.permute(0, 2, 3, 1).is_contiguous(), "channels last"
            assert len(part.names) == len(part) == len(images)
            for image, name, label in zip(images, part.names, part.labels.tolist(), strict=True):
                assert image.equal(read_image(root / name, image.shape[0], tuple(image.shape[1:]))), name
                assert data.classes[label] in name.split("/")


def counting(function: Callable[..., Any], seen: list[bytes]) -> Callable[..., Any]:
    def decode(content: bytes, *arguments: object, **options: object) -> Any:
        seen.append(content)
        return function(content, *arguments, **options)

    return decode


def place() -> Path:
    (found,) = Path("cache/images").glob("photos-*")
    return found
