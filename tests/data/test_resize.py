"""Resizing against its definition, in every dtype and memory format, and cropping of very long images."""

import math
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import pad
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from cnnkit.core.resize import resize, resize_part
from cnnkit.data import Augment, Preprocess, resize_and_crop, resize_with_pad
from cnnkit.deploy import Bundle, Classifier
from cnnkit.figures import contact_sheet


def weight(pixel: int, place: int, pixels: int, size: int) -> float:
    """What an old pixel weighs in a new one: a triangle around its centre, a pixel of the coarser grid to each side."""
    step = pixels / size
    return max(0.0, 1 - abs(pixel + 0.5 - (place + 0.5) * step) / max(step, 1.0))


def defined(images: Tensor, size: tuple[int, int]) -> Tensor:
    """The definition, in float64."""
    result = images.double()
    for axis, new in ((-2, size[0]), (-1, size[1])):
        old = images.shape[axis]
        rows = [[weight(pixel, place, old, new) for pixel in range(old)] for place in range(new)]
        matrix = torch.tensor([[value / math.fsum(row) for value in row] for row in rows], dtype=torch.float64)
        result = torch.tensordot(result, matrix, ([axis], [1])).movedim(-1, axis)
    return result


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "permuted": lambda x: x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2),
    "a part": lambda x: pad(x, (1, 2, 3, 1))[..., 3:-1, 1:-2],
}
CLOSE = {torch.uint8: 1.0, torch.float32: 0.01, torch.float64: 0.01}  # of 255; torch's own weights are float32


@pytest.mark.parametrize("dtype", CLOSE)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_resize_matches_its_definition(layout: str, dtype: torch.dtype) -> None:
    for count, channels in ((1, 1), (2, 1), (1, 3), (2, 4)):
        for height, width, *size in product((1, 2, 20), (1, 2, 3, 20), (1, 2, 5, 33), (1, 2, 9)):
            images = torch.randint(0, 256, (count, channels, height, width), dtype=torch.uint8)
            found = resize(LAYOUTS[layout](images.to(dtype)), tuple(size))
            assert found.dtype == dtype
            difference = (found.double() - defined(images, tuple(size))).abs().max()
            assert difference <= CLOSE[dtype] + 0.01, (count, channels, height, width, size)


@pytest.mark.parametrize("dtype", CLOSE)
def test_resized_part_equals_part_of_resized_whole(dtype: torch.dtype) -> None:
    images = torch.randint(0, 256, (2, 3, 31, 17)).to(dtype)
    for size in ((5, 9), (40, 50), (31, 17), (1, 1)):
        for rows, columns in (((0, 1), (0, size[1])), ((size[0] // 2, size[0]), (size[1] // 3, size[1] // 3 + 1))):
            part = defined(images, size)[..., slice(*rows), slice(*columns)]
            torch.testing.assert_close(resize_part(images, size, rows, columns).double(), part, rtol=0, atol=1e-3)


def test_narrow_image_is_fitted() -> None:
    """205 x 1 pixels into 28 x 1, by each of the ways on which images are resized."""
    images = torch.randint(0, 256, (2, 3, 205, 1), dtype=torch.uint8)
    expected = defined(images, (28, 1))
    assert (resize_with_pad(images, (28, 1)) - expected).abs().max() < 0.01
    assert (Preprocess((28, 1), std=(1 / 255,))(images) - expected).abs().max() < 0.01
    assert (Preprocess((28, 28), std=(1 / 255,))(images)[..., 13:14] - expected).abs().max() < 0.01
    assert (resize_and_crop(images, 1, (205, 1)) - images).abs().max() < 0.01
    square = torch.randint(0, 256, (2, 3, 20, 20), dtype=torch.uint8)
    augmented = Augment(["rrc:1"], (28, 1))(square, torch.full((2, 4), 0.5))  # all of it
    assert (augmented - defined(square, (28, 1))).abs().max() < 1.01


def test_contact_sheet_shrinks_narrow_maps() -> None:
    maps = torch.randint(0, 256, (1, 1024, 1), dtype=torch.uint8)
    sheet = contact_sheet(maps)
    assert (sheet[0, 1:-1, 1] - defined(maps[None], (256, 1))[0, 0, :, 0]).abs().max() <= 0.51


# --- cut out of what is very long


class Largest(TorchDispatchMode):
    """Notes the numbers of the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {tensor.untyped_storage() for tensor in tree_leaves(args) if isinstance(tensor, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in given:  # no view
                self.numbers = max(self.numbers, tensor.numel())
        return result


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("height", "width"), [(1, 23_040), (2, 5_000), (40, 3_000), (256, 23_040)])
def test_long_image_is_cropped_before_resizing(height: int, width: int, turned: bool) -> None:
    images = torch.randint(0, 256, (1, 3, height, width), dtype=torch.uint8)
    images = images.mT.contiguous() if turned else images
    with Largest() as largest:
        cut = resize_and_crop(images, 256, (224, 224))
    assert cut.shape == (1, 3, 224, 224)
    assert largest.numbers <= 3 * 256 * 256
    upright = images.mT if turned else images
    long = width * 256 // height
    for column in (0, 57, 223):  # by the definition, from the few pixels that it sees
        place = round((long - 224) / 2) + column
        middle = int((place + 0.5) * width / long)
        near = range(max(0, middle - 3), min(width, middle + 4))
        weights = [weight(pixel, place, width, long) for pixel in near]
        line = upright[..., near.start : near.stop].double() @ torch.tensor(weights, dtype=torch.float64)
        expected = defined(line[..., None] / math.fsum(weights), (256, 1))[..., 16:240, 0]
        found = cut[..., column, :] if turned else cut[..., column]
        assert (found - expected).abs().max() < 0.01, column


@pytest.mark.parametrize("size", [(4, 4), (9, 5), (20, 7), (3, 30)])
@pytest.mark.parametrize("shorter", [2, 5, 16])
def test_crop_before_and_after_resizing_agree(
    shorter: int, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    for height, width in ((3, 41), (41, 3), (7, 160), (160, 7), (20, 20), (5, 333)):
        images = torch.rand(2, 3, height, width)
        monkeypatch.setattr("cnnkit.data.preprocess.LONGEST", 10**9)
        after = resize_and_crop(images, shorter, size)
        monkeypatch.setattr("cnnkit.data.preprocess.LONGEST", 0)
        torch.testing.assert_close(resize_and_crop(images, shorter, size), after, rtol=0, atol=1e-4)


def test_classifier_predicts_a_long_image() -> None:
    bundle = Bundle(
        net="x", arguments={}, in_channels=3, image_size=(224, 224), resize=256, classes=("a", "b"), mean=(0.0,),
        std=(1.0,), data="x", data_dir=None, split_sha256="", metrics={}, versions={},
    )  # fmt: skip
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    image = Image.fromarray(np.full((1, 23_040, 3), 51, np.uint8))
    with Largest() as largest:
        batch = Classifier(net, bundle).batch(image)
    torch.testing.assert_close(batch, torch.full((1, 3, 224, 224), 0.2))
    assert largest.numbers <= 3 * 256 * 256
