"""Random images and numbers for augmentations."""

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cnnkit.data.augment.batch import Augment

SIZE = (12, 10)


def pictures(number: int, channels: int, height: int = 11, width: int = 14, seed: int = 0) -> Tensor:
    """Random pictures, channels-last, some of little contrast."""
    draw = torch.Generator().manual_seed(seed)
    low, high = torch.rand(2, number, 1, 1, 1, generator=draw).sort(0).values
    pixels = torch.rand(number, height, width, channels, generator=draw)
    return (256 * (low + (high - low) * pixels)).byte().permute(0, 3, 1, 2)


def uniform(rows: int, columns: int, seed: int = 1) -> Tensor:
    return torch.rand(rows, columns, generator=torch.Generator().manual_seed(seed))


def augmented(entry: str, images: Tensor, seed: int = 1) -> Tensor:
    augment = Augment([entry], tuple(images.shape[-2:]))
    return augment(images, uniform(len(images), augment.numbers, seed))


def pillow(image: Tensor) -> Image.Image:
    return Image.fromarray(np.ascontiguousarray(image.permute(1, 2, 0).numpy().squeeze(2 if len(image) == 1 else ())))


def tensor(picture: Image.Image) -> Tensor:
    array = np.array(picture)
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)


def read_like_a_photo(height: int, width: int) -> Tensor:
    """Smooth colours with some noise, 1 x 3 x height x width."""
    rough = torch.rand(1, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    smooth = F.interpolate(rough, (height, width), mode="bicubic", align_corners=False).clamp(0.02, 0.98)
    return (255 * smooth).byte()
