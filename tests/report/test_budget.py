"""The bytes of the images of a page."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from cnnkit.report import run_report
from cnnkit.report.sprites import Budget


def noise(number: int) -> dict[int, np.ndarray]:
    """Return images that cannot be compressed, by keys that are not their places."""
    draw = np.random.default_rng(0)
    return {10 + key: draw.integers(0, 256, (96, 96, 3), np.uint8) for key in range(number)}


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_first_images_fill_their_share(share: float) -> None:
    whole = Budget(10**9)
    whole.sprites("x", "photos", noise(60), 96, 1.0)
    total = 10**9 - whole.left
    budget = Budget(total)
    found = budget.sprites("x", "photos", noise(60), 96, share)
    shown = len(found.places)
    assert 0.7 * share * 60 <= shown <= share * 60
    assert list(found.places) == list(range(10, 10 + shown))
    assert list(found.places.values()) == list(range(shown))
    page = found.sheet.css() + "".join(found.tile(key, "n" * 60) for key in found.places)
    assert len(page) <= total - budget.left <= share * total
    assert budget.left_out == [f"photos: {60 - shown} of 60 images"]


def test_all_images_fit_into_enough_bytes() -> None:
    budget = Budget(10**6)
    found = budget.sprites("name", "photos", noise(3), 96, 1.0)
    assert len(found.places) == 3
    assert budget.left_out == []
    assert found.tile(11, "<label>").startswith('<span class="name" role="img" aria-label="&lt;label&gt;"')


@pytest.mark.parametrize("left", [10, 0, -5, -(10**6)])
def test_without_bytes_there_are_no_images(left: int) -> None:
    budget = Budget(left)
    assert budget.sprites("x", "photos", noise(3), 96, 1.0) is None
    assert budget.left == left
    assert budget.left_out == ["photos: 3 of 3 images"]


def test_no_images_need_no_bytes() -> None:
    budget = Budget(0)
    assert budget.sprites("x", "photos", {}, 96, 1.0) is None
    assert budget.left_out == []


def test_page_says_what_it_leaves_out(judged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = run_report(judged / "lenet_bn-digits-2", progress=False)
    draw = np.random.default_rng(0)
    images = {row: draw.integers(0, 256, (96, 96, 3), np.uint8) for row in report.images}
    for most in (400_000, 900_000):
        monkeypatch.setattr("cnnkit.report.render.MAX_BYTES", most)
        content = replace(report, images=images).html()
        assert 0.7 * most < len(content.encode()) < most
        assert (
            f"Left out, so that the page has at most {most / 1e6:g} MB: images behind the confusion matrix: " in content
        )
