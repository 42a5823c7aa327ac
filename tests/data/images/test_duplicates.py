"""Near-duplicate images by their thumbnails."""

import numpy as np
from PIL import Image

from cnnkit.data import load_dataset
from cnnkit.data.images.decode import THUMB
from cnnkit.data.images.duplicates import NEIGHBOURS, PASSES, gather, near_pairs
from helpers.check import DRAW


def test_images_of_little_detail_are_no_near_duplicates() -> None:
    digits = load_dataset("digits").train.images[:, 0].numpy()
    shades = [np.linspace(0, 255, size, dtype=np.uint8)[None].repeat(size, 0) for size in (40, 41)]
    grey = [np.full((20, 20), level, np.uint8) for level in range(100, 104)]
    pictures = [*digits, shades[0], shades[1].T, *grey]
    thumbs = [Image.fromarray(each).convert("RGB").resize((THUMB, THUMB)) for each in pictures]
    night = np.zeros((2, THUMB * THUMB * 3), np.uint8)
    night[:, 200] = 30  # all that is left of a star, and too little to tell one from another
    assert not any(near_pairs(np.stack([*(np.asarray(thumb).reshape(-1) for thumb in thumbs), *night])))


def test_near_pairs_match_exhaustive_comparison() -> None:
    draw = np.random.default_rng(0)
    ramp = np.linspace(0, 1, THUMB)
    shapes = np.stack([np.cos(3 * a * ramp)[:, None] * np.cos(3 * b * ramp)[None] for a in range(4) for b in range(4)])
    weights = draw.normal(size=(4000, 16)) * ([10] + 15 * [1])  # most differ in brightness most of all
    weights[2000:] = weights[:2000] + draw.normal(scale=0.01, size=(2000, 16))  # copies, more or less close
    thumbs = np.einsum("nk,khw->nhw", weights, shapes)[..., None].repeat(3, -1).reshape(4000, -1)
    thumbs = (128 + 6 * thumbs).clip(0, 255).astype(np.uint8)
    values = thumbs.astype(float)
    contrast = values.std(1)
    expected = set()
    for row in range(len(values)):
        near = np.sqrt(((values[row + 1 :] - values[row]) ** 2).mean(1))
        expected |= {
            (row, row + 1 + int(k)) for k in (near < 0.05 * np.minimum(contrast[row], contrast[row + 1 :])).nonzero()[0]
        }
    pairs = {tuple(sorted(pair)) for pair in near_pairs(thumbs)}
    assert len(expected) > 1000
    assert pairs <= expected
    assert len(pairs) > 0.99 * len(expected)


def test_frames_of_a_still_scene_form_one_group() -> None:
    frames = DRAW.integers(0, 256, 432) + DRAW.integers(-2, 3, (1000, 432))
    pairs = list(near_pairs(frames.clip(0, 255).astype(np.uint8)))
    assert len(pairs) <= 1000 * PASSES * NEIGHBOURS  # not 1000 * 999 / 2: linear, however alike they are
    assert gather(pairs) == [list(range(1000))]
