"""Corrupt images in folders: skipped or refused, in memory and streamed."""

import threading
from pathlib import Path

import pytest
import torch

from cnnkit.core.errors import DataError
from cnnkit.data import (
    Batches,
    Preprocess,
)
from helpers.corrupt_images import BAD, with_bad_ones
from helpers.folders import SIZE, contents, flat, load


@pytest.mark.parametrize("budget", [0, 10**9])
def test_bad_pictures_are_left_out_and_named(budget: int, caplog: pytest.LogCaptureFixture) -> None:
    root = with_bad_ones(flat("photos", 10))
    for _ in range(2):
        data = load(root, on_bad_image="skip", budget=budget, image_size=SIZE, test_fraction=0)
        batches = Batches(data.train, 6, Preprocess(SIZE), seed=0)
        labels = torch.cat([y for _, y in batches.epoch(1)])
        assert torch.bincount(labels).tolist() == [10, 10]
        assert torch.bincount(torch.cat([y for _, y in batches])).tolist() == [10, 10]
        told = dict(data.skipped)
        assert set(told) == {f"cat/{name}" for name in BAD}
        for name, (_, reason) in BAD.items():
            assert reason in told[f"cat/{name}"], told
    assert "cat/really a png.jpg" in data.train.names
    assert not caplog.messages


def test_bad_pictures_are_an_error_at_the_start() -> None:
    root = with_bad_ones(flat("photos", 10))
    for _ in range(2):
        with pytest.raises(DataError) as caught:
            load(root, image_size=SIZE)
        message = str(caught.value)
        assert "photos: 12 of 32 images cannot be read: cat/bomb.png (refused: 50,000 x 50,000" in message
        assert "and 7 more; " in message
        assert "cnnkit data check photos" in message
        assert "--on-bad-image skip" in message
        assert "\n" not in message


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def test_an_image_of_a_stream_that_becomes_corrupt_is_an_error_when_it_is_met() -> None:
    root = flat("photos", 10)
    data = load(root, budget=0, test_fraction=0).train
    cut_short(root / "cat/05.png")
    before = threading.active_count()
    with pytest.raises(DataError, match=r"cat/05.png: .*cut short.*--on-bad-image skip"):
        list(Batches(data, 4, Preprocess(SIZE), seed=0).epoch(1))
    assert threading.active_count() == before


def test_labels_and_random_numbers_go_with_their_pictures() -> None:
    """Streaming leaves out pictures; what is left of a batch is augmented as it would be among all."""
    root = flat("photos", 10)

    class Stamp:
        numbers = 2

        def __call__(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            return (u[:, :1, None, None] * 256).to(torch.uint8).expand_as(images)

    data = load(root, budget=0, test_fraction=0, on_bad_image="skip").train
    for name in ("cat/03.png", "dog/07.png"):
        cut_short(root / name)
    fine = type(data)(torch.zeros(20, 1, *SIZE, dtype=torch.uint8), torch.arange(20))
    bad = [data.names.index(name) for name in ("cat/03.png", "dog/07.png")]
    ours, theirs = (Batches(d, 6, Preprocess(SIZE), seed=0, augment=Stamp()) for d in (data, fine))
    for (x, y), (expected, rows) in zip(ours.epoch(3), theirs.epoch(3), strict=True):
        kept = [number for number, row in enumerate(rows.tolist()) if row not in bad]
        assert x.equal(expected[kept])
        assert y.equal(data.labels[rows[kept]])


def test_a_batch_without_any_picture() -> None:
    root = flat("photos", 2)
    data = load(root, budget=0, test_fraction=0, on_bad_image="skip").train
    for path in root.rglob("*.png"):
        path.unlink()
    assert list(Batches(data, 2, Preprocess(SIZE))) == []
    with pytest.raises(DataError, match="batch 0 of epoch 1 has no image"):
        next(Batches(data, 2, Preprocess(SIZE), seed=0).epoch(1))


def test_a_class_of_which_nothing_can_be_read() -> None:
    root = flat("photos", 2)
    for path in (root / "dog").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="no image of class 'dog' is left to train on"):
        load(root, on_bad_image="skip")
    for path in (root / "cat").iterdir():
        path.write_bytes(b"")
    with pytest.raises(DataError, match="4 of 4 images cannot be read"):
        load(root)


def test_what_was_bad_may_be_good_another_time(decoded: list[bytes]) -> None:
    root = flat("photos", 3)
    good = (root / "cat/00.png").read_bytes()
    (root / "cat/00.png").write_bytes(good[:-30])
    (root / "cat/link.png").symlink_to("later.bin")
    assert len(load(root, on_bad_image="skip").skipped) == 2
    (root / "cat/00.png").write_bytes(good)
    (root / "cat/later.bin").write_bytes(good)
    del decoded[:]
    data = load(root, test_fraction=0)
    contents(root, data)
    assert len(decoded) == 2
