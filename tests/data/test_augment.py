"""Augmentation against Pillow, plain padding and slicing; the same however a batch is cut; its look on a sheet."""

import math
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.data import Batches, ImageSet, Preprocess, load_dataset, read_image, write_image
from cnnkit.data.augment import colour
from cnnkit.data.augment.batch import AUGMENT_HELP, AUGMENTATIONS, Augment, parse
from cnnkit.data.augment.policies import operations
from conftest import Cli, one_line

ENTRIES = [*AUGMENTATIONS, "crop:3", "rrc:0.5", "jitter:1", "erase:1", "rand:3:10"]
BELOW_ONE = 1 - 2**-24  # the largest float32
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


# --- what all of them keep to


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("entry", ENTRIES)
def test_a_pure_function_of_bytes_and_numbers(entry: str, channels: int) -> None:
    images = pictures(64, channels)
    before, state = images.clone(), torch.get_rng_state()
    augment = Augment([entry], SIZE)
    u = uniform(64, augment.numbers)
    result = augment(images, u)
    assert result.dtype == torch.uint8
    assert result.shape == (64, channels, *(SIZE if entry.startswith("rrc") else images.shape[-2:]))
    assert result.is_contiguous(memory_format=torch.channels_last)
    assert result.equal(augment(images.contiguous(), u)), "strides matter"
    assert images.equal(before)
    assert torch.get_rng_state().equal(state)
    assert not result.equal(augment(images, uniform(64, augment.numbers, seed=2)))


@given(
    entries=st.lists(st.sampled_from(ENTRIES), min_size=1, max_size=3, unique_by=lambda entry: entry.split(":")[0]),
    channels=st.sampled_from([1, 3]),
    number=st.integers(0, 20),
    where=st.floats(0, 1),
    side=st.tuples(st.integers(1, 17), st.integers(1, 17)),
    seed=st.integers(0, 2**20),
)
def test_a_batch_may_be_cut_anywhere(
    entries: list[str], channels: int, number: int, where: float, side: tuple[int, int], seed: int
) -> None:
    augment, images = Augment(entries, SIZE), pictures(number, channels, *side, seed=seed)
    u, cut = uniform(number, augment.numbers, seed), round(where * number)
    parts = [augment(images[rows], u[rows]) for rows in (slice(cut), slice(cut, None))]
    assert torch.cat(parts).equal(augment(images, u))


@pytest.mark.parametrize("entry", AUGMENTATIONS)
def test_a_large_batch_and_single_images_agree(entry: str) -> None:
    images, augment = pictures(97, 3, 28, 28), Augment([entry], (28, 28))
    u = uniform(97, augment.numbers)
    result = augment(images, u)
    for row in range(97):
        assert augment(images[row : row + 1], u[row : row + 1]).equal(result[row : row + 1]), row


@pytest.mark.parametrize("entry", AUGMENTATIONS)
def test_pieces_for_the_cache_do_not_show(entry: str, monkeypatch: pytest.MonkeyPatch) -> None:
    images, augment = pictures(20, 3), Augment([entry], SIZE)
    u = uniform(20, augment.numbers)
    whole = augment(images, u)
    monkeypatch.setattr("cnnkit.data.augment.batch.CACHED", 3 * images[0].numel())
    pieces: list[int] = []
    apart = augment._augmented
    monkeypatch.setattr(augment, "_augmented", lambda some, own: pieces.append(len(some)) or apart(some, own))
    assert augment(images, u).equal(whole)
    assert pieces == [3] * 6 + [2]


def test_processes_that_share_batches_see_the_same_pictures() -> None:
    data = ImageSet(pictures(23, 1, 8, 8), torch.arange(23))
    augment = Augment(["flip", "crop", "trivial", "erase"], (8, 8))

    def epoch(rank: int, world: int) -> list[tuple[Tensor, Tensor]]:
        batches = Batches(data, 8, Preprocess((8, 8)), seed=3, augment=augment, shard=(rank, world))
        return [*batches.epoch(1)]

    shares = zip(epoch(0, 2), epoch(1, 2), strict=True)
    for (x, y), ((x0, y0), (x1, y1)) in zip(epoch(0, 1), shares, strict=True):
        order = torch.cat([y0, y1]).argsort()
        assert torch.cat([x0, x1])[order].equal(x[y.argsort()])


@pytest.mark.parametrize("entry", ENTRIES)
def test_numbers_on_the_cpu_leave_a_device_alone(entry: str) -> None:
    """The meta device has no values: whatever waited for one would fail."""
    augment = Augment([entry], SIZE)
    result = augment(pictures(9, 3).to("meta"), uniform(9, augment.numbers))
    assert result.device.type == "meta"
    assert result.dtype == torch.uint8


def test_one_follows_the_other() -> None:
    images, both = pictures(16, 3), Augment(["erase:1", "flip", "rrc"], SIZE)
    u = uniform(16, both.numbers)
    erase, flip, rrc = (Augment([entry], SIZE) for entry in ("erase:1", "flip", "rrc"))
    assert both(images, u).equal(rrc(flip(erase(images, u[:, :5]), u[:, 5:6]), u[:, 6:]))
    assert both.numbers == 10
    none = Augment([], SIZE)
    assert none.numbers == 0
    assert none(images, torch.empty(16, 0)).equal(images)


def test_goldens() -> None:
    """A few pixels by heart: numbers drawn years apart shall give the same pictures."""
    grey = torch.arange(0, 160, 10, dtype=torch.uint8).view(1, 1, 4, 4)
    augment = Augment(["flip", "crop:1", "jitter:0.5"], (4, 4))
    u = torch.tensor([[0.2, 0.9, 0.1, 0.75, 0.5, 0.1, 0.1]])
    assert augment(grey, u).flatten().tolist() == [0, 87, 75, 62, 0, 137, 125, 112, 0, 187, 175, 162, 0, 0, 0, 0]
    colours = torch.tensor([[200, 30, 90], [10, 250, 60]], dtype=torch.uint8).view(2, 3, 1, 1)
    u = torch.tensor([[0.9, 0.2, 0.7, 0.95], [0.1, 0.6, 0.3, 0.4]])
    assert Augment(["jitter"], (1, 1))(colours, u).view(2, 3).tolist() == [[242, 98, 60], [26, 165, 35]]
    u = torch.tensor([[0.39, 0.9, 0.1]])  # rotate, level 27 of 0 to 30
    turned = [0, 110, 150, 0, 30, 60, 100, 130, 20, 50, 90, 120, 0, 0, 40, 0]
    assert Augment(["trivial"], (4, 4))(grey, u).flatten().tolist() == turned


# --- moving and removing


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


# --- colour, tone and warps, as Pillow


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


# --- one of fourteen


@pytest.mark.parametrize("sign", [0.2, 0.7])
@pytest.mark.parametrize("level", [0, 1, 17, 30])
def test_trivial_reaches_every_operation(level: int, sign: float) -> None:
    images, table = pictures(14, 3, 28, 28), operations(28, 28)
    u = torch.tensor([[(which + 0.5) / 14, (level + 0.5) / 31, sign] for which in range(14)])
    result = Augment(["trivial"], (28, 28))(images, u)
    for row, operation in enumerate(table.values()):
        amount = level / 30 * operation.trivial * (-1 if operation.signed and sign >= 0.5 else 1)
        assert result[row].equal(operation.apply(images[row : row + 1], [amount])[0])


def test_trivial_draws_all_alike() -> None:
    """A picture that each operation leaves its own mark on tells which ones were drawn."""
    image, table = read_like_a_photo(28, 28) // 2 + 40, operations(28, 28)
    u = uniform(2800, 3)
    u[:, 1:] = torch.tensor([0.9, 0.1])
    result = Augment(["trivial"], (28, 28))(image.expand(2800, -1, -1, -1), u)
    marks = [operation.apply(image, [27 / 30 * operation.trivial])[0] for operation in table.values()]
    found = [int((result == mark).flatten(1).all(1).sum()) for mark in marks]
    assert sum(found) == 2800
    assert sum((count - 200) ** 2 / 200 for count in found) < 34.5  # 13 degrees of freedom: one in a thousand


@pytest.mark.parametrize("magnitude", [0, 5, 10])
def test_rand_is_several_of_one_magnitude(magnitude: int) -> None:
    images, table = pictures(14 * 14, 3, 28, 28), [*operations(28, 28).values()]
    augment = Augment([f"rand:2:{magnitude}"], (28, 28))
    assert augment.numbers == 4
    assert Augment(["rand"], SIZE).numbers == 4
    assert Augment(["rand:5"], SIZE).numbers == 10
    pairs = [(first, second) for first in range(14) for second in range(14)]
    u = torch.tensor([[(first + 0.5) / 14, 0.9, (second + 0.5) / 14, 0.1] for first, second in pairs])
    result = augment(images, u)
    for row, (first, second) in enumerate(pairs):
        once = table[first].apply(
            images[row : row + 1], [magnitude / 10 * table[first].rand * (-1 if table[first].signed else 1)]
        )
        twice = table[second].apply(once, [magnitude / 10 * table[second].rand])
        assert result[row].equal(twice[0]), (first, second)


def test_ranges_are_the_papers_but_nothing_moves_by_more_than_half_a_side() -> None:
    table = operations(224, 320)
    assert {name: (operation.trivial, operation.rand) for name, operation in table.items()} == {
        "identity": (0, 0),
        "shear_x": (0.99, 0.3),
        "shear_y": (0.99, 0.3),
        "translate_x": (32, 100),
        "translate_y": (32, 100),
        "rotate": (135, 30),
        "brightness": (0.99, 0.9),
        "saturation": (0.99, 0.9),
        "contrast": (0.99, 0.9),
        "sharpness": (0.99, 0.9),
        "posterize": (6, 4),
        "solarize": (1, 1),
        "autocontrast": (0, 0),
        "equalize": (0, 0),
    }
    small = operations(8, 28)
    assert [(small[f"translate_{axis}"].trivial, small[f"translate_{axis}"].rand) for axis in "xy"] == [
        (14, 14),
        (4, 4),
    ]


# --- names


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ("flipp", "unknown augmentation 'flipp'; did you mean 'flip'? known: crop, erase, flip, jitter, "),
        ("", "unknown augmentation ''; known: "),
        ("crop:-1", "'crop:-1': padding must be a whole number from 0 to 1024"),
        ("crop:1.5", "'crop:1.5': padding must be a whole number from 0 to 1024"),
        ("crop:", "'crop:': padding must be a whole number from 0 to 1024"),
        ("rrc:0", "'rrc:0': smallest must be a number from 0.01 to 1"),
        ("rrc:1.1", "'rrc:1.1': smallest must be a number from 0.01 to 1"),
        ("jitter:2", "'jitter:2': strength must be a number from 0 to 1"),
        ("erase:nan", "'erase:nan': probability must be a number from 0 to 1"),
        ("rand:0", "'rand:0': operations must be a whole number from 1 to 14"),
        ("rand:2:11", "'rand:2:11': magnitude must be a number from 0 to 10"),
        ("rand:2:9:1", "'rand:2:9:1' has too many parameters; write rand[:OPERATIONS[:MAGNITUDE]]"),
        ("flip:1", "'flip:1' has too many parameters; write flip"),
    ],
)
def test_a_wrong_entry_is_told(entry: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        Augment(["erase", entry] if not entry.startswith("erase") else [entry], SIZE)
    assert str(caught.value).startswith(message)


def test_the_same_twice_is_told() -> None:
    with pytest.raises(UsageError, match="'crop' is given twice"):
        Augment(["crop:4", "flip", "crop:2"], SIZE)


@pytest.mark.parametrize("shape", [(3, 3), (4, 2), (4,)])
def test_numbers_must_be_as_many_as_it_takes(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="u must be 4 x 3, not"):
        Augment(["flip", "crop"], SIZE)(pictures(4, 1), torch.rand(shape))


def test_names_come_one_by_one_or_in_one_word() -> None:
    assert parse(["flip, crop:4", "erase", "", ","]) == ("flip", "crop:4", "erase")


def test_the_help_names_all() -> None:
    assert [line.partition(":")[0].partition("[")[0] for line in AUGMENT_HELP.split("; ")] == [*AUGMENTATIONS]


# --- the sheet


def tile(sheet: Tensor, size: int, top: int, left: int) -> Tensor:
    """Cut out the tile whose frame begins here and make each of its squares one of `size` x `size` pixels again."""
    side = size * math.ceil(64 / size)
    return sheet[:, top + 1 : top + 1 + side, left + 1 : left + 1 + side][:, :: side // size, :: side // size]


def test_show_writes_a_picture_of_each_class_and_its_changes(cli: Cli) -> None:
    result = cli("data", "show", "digits", "--augment", "flip", "crop:1", "--count", 6, "--seed", 3)
    assert result.code == 0, result
    assert result.out == ("digits-show.png: 10 of 10 classes, 8 x 8, each a picture and 6 changes by flip, crop:1\n")
    sheet, train = read_image(Path("digits-show.png")), load_dataset("digits").train
    assert sheet.shape == (1, 16 + 10 * (56 + 66), 16 + 66 + 16 + 6 * 70 - 4 + 16)
    moved = 0
    for label in range(10):
        top = 56 + label * (56 + 66)
        original = tile(sheet, 8, top, 16)
        own = (train.images == original).flatten(1).all(1) & (train.labels == label)
        assert own.any(), label
        for column in range(6):
            shown = tile(sheet, 8, top, 16 + 66 + 16 + 70 * column)[0]
            padded = F.pad(original[0], (1, 1, 1, 1))
            crops = [
                side[y : y + 8, x : x + 8] for side in (padded, padded.flip(1)) for y in range(3) for x in range(3)
            ]
            assert any(shown.equal(crop) for crop in crops), (label, column)
            moved += not shown.equal(original[0])
    assert moved > 40


def test_show_without_augmentation_is_the_training_set(cli: Cli) -> None:
    assert cli("data", "show", "digits", "--count", 2, "--output", "two.png").out.startswith(
        "two.png: 10 of 10 classes"
    )
    sheet, train = read_image(Path("two.png")), load_dataset("digits").train
    for label in range(10):
        both = [tile(sheet, 8, 56 + label * (56 + 66), 16 + 70 * column) for column in range(2)]
        assert not both[0].equal(both[1])
        for shown in both:
            assert ((train.images == shown).flatten(1).all(1) & (train.labels == label)).any()


def test_show_is_the_same_for_the_same_seed(cli: Cli) -> None:
    def bytes_of(*arguments: object) -> bytes:
        assert cli("data", "show", "digits", "--count", 3, "--output", "x.png", *arguments).code == 0
        return Path("x.png").read_bytes()

    one = bytes_of("--augment", "flip", "jitter:0.5", "trivial")
    assert one == bytes_of("--augment", "flip,jitter:0.5,trivial")
    assert one != bytes_of("--augment", "flip,jitter:0.5,trivial", "--seed", 1)


def test_show_of_a_folder_of_photographs(cli: Cli, tmp_path: Path) -> None:
    for index, name in enumerate(["cat", "dog", "owl"]):
        (tmp_path / "zoo" / name).mkdir(parents=True)
        for number in range(4):
            write_image(tmp_path / "zoo" / name / f"{number}.png", read_like_a_photo(40 + 9 * index, 60 - number)[0])
    (tmp_path / "zoo" / "cat" / "bad.png").write_bytes(b"no picture")
    result = cli("data", "show", "zoo", "--augment", "rrc", "rand", "--image-size", 96, "--count", 20)
    assert result.code == 0, result
    assert "3 of 3 classes, 96 x 96, each a picture and 20 changes by rrc, rand" in result.out
    assert result.out.endswith("; 1 cannot be read: cnnkit data check zoo\n")
    sheet = read_image(tmp_path / "zoo-show.png")
    assert sheet.shape == (3, 16 + 3 * (56 + 68), 16 + 68 + 16 + 20 * 72 - 4 + 16)  # shrunk, to fill a row


def test_show_of_shards_is_that_of_their_folder(cli: Cli, tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / "zoo" / "train" / name).mkdir(parents=True)
        for number in range(3):
            write_image(tmp_path / "zoo" / "train" / name / f"{number}.png", pictures(1, 1, seed=number)[0])
    assert cli("data", "pack", "zoo", "shards", "--images-per-shard", 4).code == 0
    result = cli("data", "show", "shards", "--count", 3)
    assert result.out == "shards-show.png: 2 of 2 classes, 11 x 14, up to 3 pictures each\n"
    assert cli("data", "show", "zoo", "--count", 3).code == 0
    assert read_image(Path("shards-show.png")).shape == read_image(Path("zoo-show.png")).shape


def test_show_takes_a_few_of_many_classes(cli: Cli, tmp_path: Path) -> None:
    for name in range(45):
        (tmp_path / "many" / f"{name:02}").mkdir(parents=True)
        for number in range(2):
            write_image(tmp_path / "many" / f"{name:02}" / f"{number}.png", pictures(1, 1, seed=name)[0])
    assert cli("data", "show", "many", "--count", 1).out.startswith("many-show.png: 15 of 45 classes, 11 x 14, ")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["digits", "--augment", "flop"], 2, ["unknown augmentation 'flop'", "did you mean 'flip'"]),
        (["digits", "--augment", "crop", "rrc:7"], 2, ["'rrc:7'", "smallest must be a number from 0.01 to 1"]),
        (["digits", "--count", 0], 2, ["count must be an int >= 1, not 0"]),
        (["digits", "--image-size", 0], 2, ["image_size must be an int >= 1, not 0"]),
        (["digitz"], 2, ["did you mean 'digits'"]),
        (["./nowhere"], 3, ["nowhere"]),
        (["digits", "--output", "x.abc"], 2, ["x.abc", "use .png"]),
    ],
)
def test_show_says_what_is_wrong(cli: Cli, arguments: list[object], code: int, words: list[str]) -> None:
    one_line(cli("data", "show", *arguments), code, *words)


def test_shows_help_names_all_augmentations(cli: Cli) -> None:
    help_text = " ".join(cli("data", "show", "--help").out.replace("│", " ").split())
    for usage in (
        line.partition(":")[0] if "[" not in line else line[: line.rindex("]") + 1] for line in AUGMENT_HELP.split("; ")
    ):
        assert usage in help_text
