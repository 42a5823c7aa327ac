"""Sprite sheets: the tiles that a page shows, their size, and their labels."""

import base64
import re
import time
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from cnnkit.core.errors import UsageError
from cnnkit.data import load_named
from cnnkit.figures import Sheet, sprite_sheet


def shown(sheet: Sheet, index: int) -> np.ndarray:
    """Return the pixels that a browser shows for a tile, by its CSS and HTML."""
    rules, html = sheet.css(), sheet.tile(index, "a")
    sides = re.search(r"width:(\d+)px;height:(\d+)px", rules)
    scaled = re.search(r"background-size:(\d+)px auto", rules)
    content = re.search(r"url\(data:image/webp;base64,([\w+/=]+)\)", rules)
    place = re.search(r"background-position:(?:-(\d+)px|0) (?:-(\d+)px|0)\"", html)
    assert None not in (sides, scaled, content, place)
    image = Image.open(BytesIO(base64.b64decode(content[1]))).convert("RGB")
    factor = int(scaled[1]) // image.width
    assert (factor > 1) == ("image-rendering:pixelated" in rules)
    page = np.asarray(image).repeat(factor, 0).repeat(factor, 1)
    left, top = (int(number or 0) for number in place.groups())
    return page[top : top + int(sides[2]), left : left + int(sides[1])]


def flat(colour: tuple[int, ...], height: int, width: int) -> np.ndarray:
    return np.broadcast_to(np.array(colour, np.uint8), (height, width, len(colour))).copy()


@pytest.mark.parametrize("number", [1, 2, 7, 50])
def test_each_tile_shows_its_image(number: int) -> None:
    levels = [3 + 5 * index for index in range(number)]
    sheet = sprite_sheet([flat((level,), 28, 28) for level in levels], 56)
    for index, level in enumerate(levels):
        tile = shown(sheet, index)
        assert tile.shape == (56, 56, 3)
        assert np.abs(tile.astype(int) - level).max() <= 2


def test_small_images_are_enlarged_by_an_integer_factor_without_smoothing() -> None:
    board = (np.indices((8, 8)).sum(0) % 2 * 255).astype(np.uint8)[..., None]
    tile = shown(sprite_sheet([board], 60), 0)
    assert np.array_equal(tile, np.broadcast_to(board.repeat(7, 0).repeat(7, 1), (56, 56, 3)))


def test_large_images_are_shrunk_with_antialiasing_and_keep_their_aspect_ratio() -> None:
    board = (np.indices((400, 200)).sum(0) % 2 * 255).astype(np.uint8)[..., None].repeat(3, 2)
    tile = shown(sprite_sheet([board], 100), 0)
    assert tile.shape == (100, 100, 3)
    assert np.abs(tile[5:-5, 30:70].astype(int) - 127).max() <= 6  # grey, not stripes


@pytest.mark.parametrize("sides", [(400, 200), (200, 400)])
def test_image_is_in_the_middle_of_its_tile(sides: tuple[int, int]) -> None:
    tile = shown(sprite_sheet([flat((255, 255, 255), *sides)], 100), 0).astype(int)
    tile = tile if sides[0] > sides[1] else tile.transpose(1, 0, 2)
    assert np.abs(tile[:, 28:72] - 255).max() <= 2
    assert np.abs(np.concatenate([tile[:, :22], tile[:, 78:]], 1) - 128).max() <= 3


def test_images_of_several_sizes_and_channels_share_a_sheet() -> None:
    images = [flat((200, 30, 30), 300, 300), flat((90,), 10, 10), None, flat((250,), 1, 3000)]
    sheet = sprite_sheet(images, 64)
    assert np.abs(shown(sheet, 0).astype(int) - [200, 30, 30]).max() <= 8
    assert np.abs(shown(sheet, 1)[8:-8, 8:-8].astype(int) - 90).max() <= 4  # 6 times as large
    gone = shown(sheet, 2).astype(int)
    assert np.abs(gone - 128).max() < 60
    assert gone.std() > 2  # a cross
    assert shown(sheet, 3).shape == (64, 64, 3)


def test_tile_has_an_escaped_label() -> None:
    html = sprite_sheet([None], 28, "few").tile(0, '<img src=x onerror=alert(1)> "cat"')
    label = "&lt;img src=x onerror=alert(1)&gt; &quot;cat&quot;"
    assert html == (
        f'<span class="few" role="img" aria-label="{label}" title="{label}" style="background-position:0 0"></span>'
    )


def test_backgrounds_are_printed() -> None:
    rules = sprite_sheet([None], 28, "few").css()
    assert rules.startswith(".few{")
    assert ";print-color-adjust:exact;" in rules


def test_1200_images_of_fashion_size_are_small_and_fast() -> None:
    pixels = load_named("digits").train.images.permute(0, 2, 3, 1).numpy()
    images = [image.repeat(4, 0).repeat(4, 1)[2:30, 2:30] for image in pixels[:1200]]
    images = [(0.8 * image + noise).astype(np.uint8) for image, noise in zip(images, _noise(), strict=True)]
    start = time.process_time()
    sheet = sprite_sheet(images, 28)
    assert time.process_time() - start < 3
    assert sheet.num_bytes == len(sheet.css()) < 600_000


def _noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 12, (1200, 28, 28, 1))


def test_sheet_without_tiles_is_empty() -> None:
    sheet = sprite_sheet([], 28)
    assert (sheet.css(), sheet.num_bytes) == ("", 0)
    with pytest.raises(IndexError):
        sheet.tile(0, "a")


@pytest.mark.parametrize(
    "image",
    [np.zeros((4, 4), np.uint8), np.zeros((4, 4, 3)), np.zeros((4, 4, 2), np.uint8), np.zeros((0, 4, 1), np.uint8)],
)
def test_other_arrays_are_refused(image: np.ndarray) -> None:
    with pytest.raises(UsageError, match="a tile must be uint8"):
        sprite_sheet([image], 28)


def test_too_many_tiles_are_refused() -> None:
    with pytest.raises(UsageError, match="at most 9 tiles of 3000 pixels, not 10"):
        sprite_sheet([None] * 10, 3000)
