"""Colour and tone against Pillow."""

import random
from collections.abc import Callable

import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from cnnkit.data.augment import colour
from cnnkit.data.augment.batch import Augment
from cnnkit.data.augment.policies import operations
from helpers.augment import SIZE, augmented, pictures, pillow, tensor

CASES = [
    (colour.brightness, (-1, 1), lambda p, a: ImageEnhance.Brightness(p).enhance(1 + a)),
    (colour.contrast, (-1, 1), lambda p, a: ImageEnhance.Contrast(p).enhance(1 + a)),
    (colour.saturation, (-1, 1), lambda p, a: ImageEnhance.Color(p).enhance(1 + a)),
    (colour.sharpness, (-1, 1), lambda p, a: ImageEnhance.Sharpness(p).enhance(1 + a)),
    (colour.posterize, (0, 7), lambda p, a: ImageOps.posterize(p, 8 - round(a))),
    (colour.solarize, (0, 1), lambda p, a: ImageOps.solarize(p, 256 * (1 - a))),
    (colour.equalize, (0, 1), lambda p, a: ImageOps.equalize(p)),
]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("change", "span", "reference"), CASES, ids=[case[0].__name__ for case in CASES])
def test_tones_are_pillows_to_the_bit(
    change: Callable[[Tensor, list[float]], Tensor],
    span: tuple[float, float],
    reference: Callable[[Image.Image, float], Image.Image],
    channels: int,
) -> None:
    draw = random.Random(0)
    for height, width in [(1, 1), (2, 9), (3, 3), (11, 14), (40, 33)]:
        images = pictures(20, channels, height, width, seed=height)
        amounts = [*span, *(draw.uniform(*span) for _ in range(18))]
        for got, image, amount in zip(change(images, amounts), images, amounts, strict=True):
            assert got.equal(tensor(reference(pillow(image), amount))), (height, width, amount)


def test_autocontrast_is_pillows_where_its_floats_are_right() -> None:
    images = pictures(200, 3)
    got = colour.autocontrast(images, [0] * 200)
    expected = torch.stack([tensor(ImageOps.autocontrast(pillow(image))) for image in images])
    low, high = images.amin((2, 3), keepdim=True).int(), images.amax((2, 3), keepdim=True).int()
    whole = (images.int() - low) * 255 % (high - low).clamp(min=1) == 0  # there Pillow may fall short by one
    assert torch.where(whole, 0, got.int() - expected.int()).abs().max() == 0
    assert (got.int() - expected.int()).unique().tolist() == [0, 1]
    flat = torch.full((2, 3, 4, 4), 7, dtype=torch.uint8)
    assert colour.autocontrast(flat, [0, 0]).equal(flat)


def test_a_third_of_a_turn_exchanges_the_colours() -> None:
    images = pictures(6, 3)
    assert colour.hue(images, [1 / 3] * 6).equal(images.roll(1, 1))
    assert colour.hue(images, [-1 / 3] * 6).equal(images.roll(-1, 1))
    grey = pictures(6, 1).expand(-1, 3, -1, -1)
    assert colour.hue(grey, [0.1, -0.2, 0.3, 0.4, 0.5, 0.25]).equal(grey)
    pale = images // 4 + 96  # nothing is cut off
    assert (colour.hue(pale, [0.1] * 6).sum(1) - pale.sum(1)).abs().max() <= 1.5


def test_grey_pictures_have_no_colour_to_change() -> None:
    images = pictures(5, 1)
    for change in (colour.saturation, colour.hue):
        assert change(images, [0.5] * 5).equal(images)


@pytest.mark.parametrize("name", sorted(operations(8, 8).keys() - {"autocontrast", "equalize"}))
def test_no_amount_changes_nothing(name: str) -> None:
    images = pictures(8, 3)
    assert operations(11, 14)[name].apply(images, [0] * 8).equal(images)
    for entry in ("jitter:0", "erase:0", "crop:0"):
        assert augmented(entry, images).equal(images)
    assert colour.hue(images, [0] * 8).equal(images)


def test_jitter_goes_as_far_as_it_says() -> None:
    """One column at a time, at the ends and in the middle."""
    images = pictures(3, 3)
    augment, half = Augment(["jitter:0.6"], SIZE), torch.full((3, 4), 0.5)
    for column, (change, most) in enumerate(
        [(colour.brightness, 0.6), (colour.contrast, 0.6), (colour.saturation, 0.6), (colour.hue, 0.15)]
    ):
        u = half.clone()
        u[:, column] = torch.tensor([0, 0.75, 0.5])
        assert augment(images, u).equal(change(images, [-most, most / 2, 0]))
