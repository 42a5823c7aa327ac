"""Flips, crops and erasing against plain padding and slicing; warps against Pillow."""

import math
import random
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from cnnkit.data.augment.batch import Augment
from cnnkit.data.augment.policies import operations
from helpers.augment import SIZE, augmented, pictures, pillow, read_like_a_photo, tensor, uniform

BELOW_ONE = 1 - 2**-24  # the largest float32


def test_flip_mirrors_below_a_half() -> None:
    images = pictures(4, 3)
    result = Augment(["flip"], SIZE)(images, torch.tensor([[0], [0.5 - 2**-25], [0.5], [BELOW_ONE]]))
    assert result.equal(torch.cat([images[:2].flip(-1), images[2:]]))


@pytest.mark.parametrize(("entry", "down", "right"), [("crop:3", 3, 3), ("crop", 2, 1), ("crop:0", 0, 0)])
def test_crop_is_padding_and_slicing_at_every_place(entry: str, down: int, right: int) -> None:
    height, width = 9, 5
    places = [(y, x) for y in range(2 * down + 1) for x in range(2 * right + 1)]
    u = [((y + 0.5) / (2 * down + 1), (x + 0.5) / (2 * right + 1)) for y, x in places]
    u += [(0, 0), (BELOW_ONE, BELOW_ONE)]
    places += [places[0], places[-1]]
    images = pictures(len(places), 3, height, width)
    padded = F.pad(images, (right, right, down, down))
    expected = [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, places, strict=True)]
    assert Augment([entry], SIZE)(images, torch.tensor(u)).equal(torch.stack(expected))


def test_crop_goes_everywhere_alike() -> None:
    dot = torch.zeros(1, 1, 9, 9, dtype=torch.uint8)
    dot[0, 0, 4, 4] = 1
    found = augmented("crop:2", dot.expand(25_000, -1, -1, -1)).flatten(1).argmax(1).bincount(minlength=81)
    found = found.view(9, 9)[2:7, 2:7]
    assert found.sum() == 25_000
    chi_square = float(((found - 1000) ** 2 / 1000).sum())
    assert chi_square < 51.2  # 24 degrees of freedom: exceeded once in a thousand


def boxes(entry: str, u: Tensor, height: int, width: int) -> Tensor:
    """Return (top, left, tall, wide) of the parts: an image of coordinates keeps those of the part's edges."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    ramps = torch.stack([rows, columns, rows * 0]).byte()[None].expand(len(u), -1, -1, -1)
    seen = Augment([entry], (height, width))(ramps, u)[:, :2].flatten(2).int()
    first, last = seen.amin(2), seen.amax(2)
    return torch.cat([first, last - first + 1], 1)


@pytest.mark.parametrize(("entry", "smallest"), [("rrc", 0.08), ("rrc:0.35", 0.35)])
def test_random_parts_keep_their_bounds(entry: str, smallest: float) -> None:
    side = 160
    top, left, tall, wide = boxes(entry, uniform(800, 4), side, side).unbind(1)
    share, ratio = tall * wide / side**2, (wide / tall).log() / math.log(4 / 3)
    assert smallest * 0.97 < share.min() < smallest + 0.02
    assert 0.98 < share.max() <= 1
    assert share.mean() == pytest.approx((1 + smallest) / 2, abs=0.03)
    assert ratio.abs().max() < 1.05
    small = ratio[share < 0.5]  # any ratio fits
    assert small.mean() == pytest.approx(0, abs=0.09)
    assert small.std() == pytest.approx(3**-0.5, abs=0.05)  # uniform on the logarithmic scale
    free = (side - torch.maximum(tall, wide)) > 20
    for start, length in ((top, tall), (left, wide)):
        place = (start / (side - length))[free]
        assert place.mean() == pytest.approx(0.5, abs=0.035)
        assert place.min() < 0.02
        assert place.max() > 0.98


def test_random_parts_and_holes_reach_all_edges() -> None:
    u = uniform(100, 5)
    for end in (0, BELOW_ONE):
        u[:, -2:] = end
        top, left, tall, wide = boxes("rrc", u[:, 1:], 30, 40).unbind(1)
        holes = Augment(["erase:1"], SIZE)(torch.ones(100, 1, 30, 40, dtype=torch.uint8), u)[:, 0] == 0
        if end:
            assert (top + tall == 30).all()
            assert (left + wide == 40).all()
        else:
            assert not top.any()
            assert not left.any()
        edge = -1 if end else 0
        assert holes[:, edge, edge].all()
        assert not holes.flatten(1).all(1).any()


@pytest.mark.parametrize(("height", "width", "tall", "wide"), [(30, 120, 30, 40), (120, 30, 40, 30), (60, 60, 60, 60)])
def test_where_no_whole_part_fits_it_is_the_largest(height: int, width: int, tall: int, wide: int) -> None:
    found = boxes("rrc:1", uniform(50, 4), height, width)[:, 2:]
    assert found.eq(torch.tensor([tall, wide])).all()


@pytest.mark.parametrize("size", [(40, 24), (9, 7)], ids=["larger", "smaller"])
def test_random_parts_are_resized_as_pillow_does(size: tuple[int, int]) -> None:
    picture = read_like_a_photo(20, 31)
    rrc = Augment(["rrc"], size)
    u = uniform(60, 4)
    u[:20, 0] = BELOW_ONE
    places = boxes("rrc", u, 20, 31).tolist()
    got = rrc(picture.expand(60, -1, -1, -1), u)
    for result, (top, left, tall, wide) in zip(got, places, strict=True):
        box = (left, top, left + wide, top + tall)
        part = pillow(picture[0]).crop(box).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        assert (result.int() - tensor(part).int()).abs().max() <= 1


@pytest.mark.parametrize("probability", [0, 0.25, 1])
def test_erase_cuts_one_rectangle_of_the_papers_size(probability: float) -> None:
    height, width = 50, 80
    images = torch.full((2000, 1, height, width), 255, dtype=torch.uint8)
    gone = augmented(f"erase:{probability}", images)[:, 0] == 0
    share = gone.double().mean((1, 2))
    assert (share > 0).double().mean() == pytest.approx(probability, abs=0.03)
    gone, share = gone[share > 0], share[share > 0]
    rows, columns = gone.any(2).sum(1), gone.any(1).sum(1)
    assert gone.sum((1, 2)).equal(rows * columns)
    if probability:
        assert 0.018 < share.min() < 0.04
        assert 0.35 < share.max() < 0.41
        assert share.mean() == pytest.approx(0.21, abs=0.02)
        ratio = (rows / columns)[(rows < height) & (rows * columns > 400)]
        assert 0.28 < ratio.min() < 0.4
        assert 2.5 < ratio.max() < 3.5
        for edge in (gone[:, 0], gone[:, -1], gone[:, :, 0], gone[:, :, -1]):
            assert 0 < edge.any(1).double().mean() < 1
        assert colours_kept(augmented("erase:1", pictures(40, 3) | 1), pictures(40, 3) | 1)


def colours_kept(result: Tensor, images: Tensor) -> bool:
    """Say whether each pixel is as it was, or zero in all channels."""
    gone = (result == 0).all(1, keepdim=True)
    return bool(torch.where(gone, 0, images).equal(result)) and bool(gone.any()) and not bool(gone.all())


WARPS: dict[str, Callable[[float], tuple[float, ...]]] = {
    "shear_x": lambda a: (1, a, 0, 0, 1, 0),
    "shear_y": lambda a: (1, 0, 0, a, 1, 0),
    "translate_x": lambda a: (1, 0, a, 0, 1, 0),
    "translate_y": lambda a: (1, 0, 0, 0, 1, a),
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", [*WARPS, "rotate"])
def test_warps_are_pillows_to_the_bit(name: str, channels: int) -> None:
    draw = random.Random(0)
    for height, width in [(1, 1), (8, 5), (28, 28), (50, 70)]:
        operation, images = operations(height, width)[name], pictures(20, channels, height, width)
        amounts = [operation.trivial * draw.uniform(-1, 1) for _ in images]
        for got, image, amount in zip(operation.apply(images, amounts), images, amounts, strict=True):
            picture = pillow(image)
            if name == "rotate":
                expected = picture.rotate(amount)
            else:
                expected = picture.transform(picture.size, Image.Transform.AFFINE, WARPS[name](amount))
            assert got.equal(tensor(expected)), (height, width, amount)
