"""The way back from a network's input to an image: against preprocessing of an image with one bright pixel."""

import pytest
import torch

from cnnkit.data import Preprocess
from cnnkit.explain.placement import Box, Placement

SIZES = [(20, 20), (8, 30), (31, 9), (64, 48), (3, 200), (5, 2000)]
PREPROCESSES = [
    Preprocess((20, 20)),
    Preprocess((12, 28)),
    Preprocess((16, 16), resize=20),
    Preprocess((24, 20), resize=9),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("preprocess", PREPROCESSES, ids=lambda one: f"{one.image_size}-{one.resize}")
def test_heat_returns_to_the_pixel_that_it_comes_from(preprocess: Preprocess, size: tuple[int, int]) -> None:
    placement = Placement.of(preprocess, *size)
    for row, column in [(size[0] // 2, size[1] // 2), (0, 0), (size[0] - 1, size[1] // 2 + 1)]:
        image = torch.zeros(1, 1, *size, dtype=torch.uint8)
        image[..., row, column] = 255
        heat = preprocess(image)[0, 0]
        back = placement.back(heat)
        assert back.shape == size
        if heat.max() > 0:
            found = divmod(int(back.argmax()), size[1])
            for axis, (place, wanted) in enumerate(zip(found, (row, column), strict=True)):
                assert abs(place - wanted) <= 1 + size[axis] / placement.resized[axis]  # a pixel, here or in the input


def test_box_is_clipped_to_the_image_and_rounded_outwards() -> None:
    padded = Placement.of(Preprocess((20, 20)), 10, 40)  # 5 x 20 from row 7 on, halved
    assert padded.box(Box(0, 0, 20, 20)) == (0, 0, 10, 40)
    assert padded.box(Box(8, 3, 9, 5)) == (2, 6, 4, 10)
    assert padded.box(Box(0, 0, 7, 20)) is None
    cropped = Placement.of(Preprocess((16, 16), resize=20), 20, 40)  # rows 2-17, columns 12-27
    assert cropped.box(Box(-5, -5, 40, 40)) == (2, 12, 18, 28)
    assert cropped.box(Box(1, 2, 4, 5)) == (3, 14, 6, 17)
    enlarged = Placement.of(Preprocess((30, 30)), 20, 20)
    assert enlarged.box(Box(1, 1, 2, 3)) == (0, 0, 2, 2)


def test_input_of_a_module_is_the_image() -> None:
    heat = torch.rand(3, 5)
    assert Placement.identity(3, 5).back(heat).equal(heat)
    assert Placement.identity(3, 5).box(Box(1, 2, 3, 9)) == (1, 2, 3, 5)
