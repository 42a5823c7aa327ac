"""Augmentation of batches: reproducible, the same however a batch is cut, and its entries by name."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.data.augment.batch import AUGMENT_HELP, AUGMENTATIONS, Augment, parse
from helpers.augment import SIZE, pictures, uniform

ENTRIES = [*AUGMENTATIONS, "crop:3", "rrc:0.5", "jitter:1", "erase:1", "rand:3:10"]


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
