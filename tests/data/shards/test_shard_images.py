"""Images in shards: their order over epochs and processes, reading them in any order, and resuming."""

from collections.abc import Iterator, Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.data import Batches, load_folder
from cnnkit.data.shards import images as shard_images
from cnnkit.data.shards import remote
from cnnkit.data.shards.images import LANES, ShardImages
from cnnkit.data.shards.index import SAMPLE, Shard, ShardIndex
from cnnkit.data.shards.pack import pack_folder
from cnnkit.train import TrainConfig, Trainer
from helpers.shards import COUNT, RAW, batches, flat, label, load, numbers, samples, seen, spoil, tar_file


@pytest.mark.parametrize("world", [1, 2, 3, 4, 8, 11])
def test_epoch_has_each_image_once_in_equal_steps_per_process(shards: Path, world: int) -> None:
    data = load(shards)
    parts = [seen(batches(data, 24, rank, world).epoch(1)) for rank in range(world)]
    assert {len(part) for part in parts} == {len(batches(data, 24, 0, world))}
    assert sorted(number for part in parts for number in flat(part)) == list(range(COUNT["train"]))
    for step, size in enumerate(batches(data, 24, 0, world).sizes):
        sizes = [len(part[step]) for part in parts]
        assert sum(sizes) == size
        assert max(sizes) - min(sizes) <= 1


@pytest.mark.parametrize("world", [2, 4, 8])
def test_batches_over_processes_equal_those_of_one(shards: Path, world: int) -> None:
    data = load(shards)
    parts = [seen(batches(data, 56, rank, world).epoch(2)) for rank in range(world)]
    for step, whole in enumerate(seen(batches(data, 56).epoch(2))):
        assert sorted(whole) == sorted(number for part in parts for number in part[step])


@pytest.mark.parametrize(("world", "batch_size"), [(1, 16), (1, 7), (2, 16), (3, 20)])
def test_shard_epoch_can_start_at_any_batch(shards: Path, world: int, batch_size: int) -> None:
    data = load(shards)
    for rank in range(world):
        own = batches(data, batch_size, rank, world)
        whole = seen(own.epoch(3))
        for first in range(len(own) + 1):
            assert seen(own.epoch(3, first)) == whole[first:]


def test_epochs_and_seeds_have_different_orders(shards: Path) -> None:
    data = load(shards)
    orders = [flat(seen(batches(data, seed=seed).epoch(epoch))) for seed, epoch in [(0, 1), (0, 2), (1, 1)]]
    assert orders[0] != orders[1] != orders[2] != orders[0]
    assert flat(seen(batches(load(shards), seed=0).epoch(1))) == orders[0]


def images(counts: Sequence[int], size: int = 500) -> ShardImages:
    """Images of shards that are not there: enough for their order."""
    samples = np.zeros(sum(counts), SAMPLE)
    samples["size"] = size
    index = ShardIndex(
        tuple(Shard(str(n), "train", count, 1) for n, count in enumerate(counts)), samples, (), None, True
    )
    return ShardImages(torch.arange(len(samples)), (1, 1, 1), 1, False, index)


@given(
    st.lists(st.integers(0, 40), min_size=1, max_size=30),
    st.integers(1, 20),
    st.integers(0, 2**40),
    st.integers(1, 100),
)
def test_order_is_a_permutation_for_any_shards(counts: list[int], world: int, seed: int, epoch: int) -> None:
    order = images(counts).order(seed, epoch, world)
    assert order.sort().values.equal(torch.arange(sum(counts)))
    if LANES % world == 0:
        assert order.equal(images(counts).order(seed, epoch, 1))


def test_processes_read_separate_shards_and_batches_mix_shards() -> None:
    data = images([1000] * 64)
    shard = torch.arange(64_000) // 1000
    for world in (1, 4, 16):
        order = data.order(0, 1, world)
        own = [set(shard[order[rank::world]].tolist()) for rank in range(world)]
        assert max(map(len, own)) <= 64 // world + max(LANES // world, 1)
        assert len(set(shard[order[:256]].tolist())) >= max(LANES, world)


def test_images_are_shuffled_within_a_window_of_their_lane() -> None:
    lane = images([16_000]).order(0, 1, 1)[::LANES]
    assert lane.sort().values.equal(torch.arange(2000))
    moved = (lane - torch.arange(2000)).abs()
    assert 100 < moved.double().mean() < moved.max() <= 512


def test_shuffle_window_shrinks_for_large_images_and_small_shards() -> None:
    assert images([1000]).window == 512
    assert images([1000], 1 << 20).window == 32
    assert images([1000], 1 << 30).window == 1
    assert images([90, 110, 0, 0]).window == 50


def test_augmentation_of_shard_images_is_independent_of_processes(shards: Path) -> None:
    class Mark:
        """Writes each image's random number into it."""

        numbers = 1

        def __call__(self, images: Tensor, u: Tensor) -> Tensor:
            images[:, :, 0, 2:3] = (u[:, :, None] * 255).byte()
            return images

    def marks(rank: int, world: int) -> dict[int, float]:
        found = {}
        for x, _ in batches(load(shards, on_bad_image="skip"), 24, rank, world, augment=Mark()).epoch(1):
            found |= dict(zip(numbers(x), x[:, 0, 0, 2].round().tolist(), strict=True))
        return found

    whole = marks(0, 1)
    assert len(set(whole.values())) > 100
    assert whole == marks(0, 2) | marks(1, 2)
    spoil(shards / "train-00003.tar", 2)
    less = marks(0, 1)
    assert len(less) == 202
    assert less.items() < whole.items(), "also when one is left out"


@pytest.mark.parametrize("world", [1, 2, 5])
def test_evaluation_covers_all_images_over_processes(shards: Path, world: int) -> None:
    test = load(shards).test
    assert test is not None
    parts = [flat(seen(iter(Batches(test, 10, RAW, shard=(rank, world))))) for rank in range(world)]
    assert sorted(flat(parts)) == list(range(400, 417))


def test_too_few_images_or_no_seed_raises(shards: Path) -> None:
    data = load(shards)
    with pytest.raises(UsageError, match="no seed"):
        next(batches(data, seed=None).epoch(1))
    few = Batches(data.train.subset(torch.arange(2)), 8, RAW, seed=0, shard=(0, 3))
    with pytest.raises(UsageError, match="2 images are too few for 3 processes"):
        next(few.epoch(1))


def test_shards_equal_their_folder(folder: Path, shards: Path) -> None:
    data, source = load(shards), load_folder(folder, progress=False)
    assert (data.name, data.classes, data.skipped) == ("shards", source.classes, ())
    for packed, plain in [(data.train, source.train), (data.validation, source.validation), (data.test, source.test)]:
        assert packed is not None
        assert plain is not None
        assert packed.images.shape == plain.images.shape
        assert sorted(numbers(packed.images[:])) == sorted(numbers(plain.images[:]))
        assert packed.labels.tolist() == [label(number) for number in numbers(packed.images[:])]


def test_rows_may_be_read_in_any_order_and_repeatedly(shards: Path) -> None:
    train = load(shards).train
    everything = train.images[:]
    rows = torch.tensor([200, 3, 3, 77, 0])
    assert train.images[rows].equal(everything[rows])
    assert train.images.subset(rows)[1:3].equal(everything[rows[1:3]])
    assert train.images[:0].shape == (0, 1, 6, 6)


def test_shard_images_have_the_requested_size_and_channels(shards: Path) -> None:
    assert load(shards, image_size=(4, 4), channels=3).train.images[:2].shape == (2, 3, 4, 4)
    assert load(shards, image_size=(9, 9)).train.images.shape == (203, 1, 6, 6), "enlarged on the batch"
    with pytest.raises(UsageError, match="channels must be 1 or 3"):
        load(shards, channels=2)


def test_validation_images_are_held_out_in_runs(shards: Path) -> None:
    train = load(shards).train
    kept, aside = train.hold_out(0.2, seed=1)
    assert torch.cat([kept, aside]).sort().values.equal(torch.arange(203))
    assert len(aside) == 41
    assert (aside.diff() > 1).sum() <= 4, "of few shards"
    assert aside.equal(train.hold_out(0.2, seed=1)[1])
    assert not aside.equal(train.hold_out(0.2, seed=2)[1])
    own = Batches(train.subset(kept), 16, RAW, seed=0)
    assert sorted(flat(seen(own.epoch(1)))) == sorted(numbers(train.images[kept]))
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        train.hold_out(1, seed=1)


def test_large_sample_is_read_in_runs() -> None:
    data = images([1000] * 20)
    rows = data.sample().rows
    assert len(rows) == len(rows.unique()) == 4096
    assert (rows.diff() > 1).sum() == 15
    assert (rows[0], rows[-1]) == (0, 19_999)
    assert images([4096]).sample().shape[0] == 4096


def test_training_on_shards_resumes_bit_exact(shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Quiet:
        def on_step_end(self, record: object) -> None: ...
        def on_epoch_end(self, record: object) -> None: ...

    def trainer(name: str) -> Trainer:
        torch.manual_seed(0)
        net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3))
        (tmp_path / name).mkdir(exist_ok=True)
        return Trainer(
            net,
            batches(load(shards)),
            Batches(load(shards).validation, 10, RAW),
            TrainConfig(epochs=2, batch_size=16, lr=0.001, checkpoint_steps=5),
            checkpoint=tmp_path / name / "last.ckpt",
            callbacks=[Quiet()],
            save_best=lambda net, record: None,
            num_classes=3,
        )

    whole, stopped = trainer("whole"), trainer("stopped")
    whole.run()
    epoch = stopped.train.epoch

    def cut(number: int, first: int) -> Iterator[tuple[Tensor, Tensor]]:
        yield from islice(epoch(number, first), 8)
        raise KeyboardInterrupt

    monkeypatch.setattr(stopped.train, "epoch", cut)
    with pytest.raises(KeyboardInterrupt):
        stopped.run()
    resumed = trainer("stopped")
    assert resumed.resume() == ([], [])
    assert (resumed.epoch, resumed.step) == (1, 5)
    resumed.run()
    for one, other in zip(whole.net.parameters(), resumed.net.parameters(), strict=True):
        assert one.equal(other)


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The sizes of all that is read for batches, in small blocks."""
    sizes: list[int] = []
    read = shard_images.read_range

    def count(file: remote.ByteFile, start: int, stop: int) -> memoryview:
        sizes.append(stop - start)
        return read(file, start, stop)

    monkeypatch.setattr(shard_images, "read_range", count)
    monkeypatch.setattr(shard_images, "BLOCK", 4096)
    return sizes


def test_processes_and_resumed_epochs_read_only_their_images(shards: Path, reads: list[int]) -> None:
    data = load(shards)

    def cost(rank: int, world: int, first: int) -> int:
        reads.clear()
        seen(batches(data, 16, rank, world).epoch(1, first))
        return sum(reads)

    whole = cost(0, 1, 0)
    assert whole < sum(path.stat().st_size for path in shards.glob("train-*.tar"))
    assert max(cost(rank, 8, 0) for rank in range(8)) < whole / 6
    assert cost(0, 1, 10) < whole / 3


def test_large_shard_is_never_loaded_into_memory(
    tmp_path: Path, reads: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of one that all lanes are in, little is read before the first batch."""
    monkeypatch.setattr(shard_images, "WINDOW", 4)
    path = tar_file(tmp_path / "train.tar", samples(0, 2000))
    own = batches(load(path))
    for first in (0, 60):
        reads.clear()
        epoch = own.epoch(1, first)
        next(epoch)
        epoch.close()
        assert sum(reads) < path.stat().st_size / 10


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files in Linux' /proc")
def test_open_files_are_limited_and_closed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def tars() -> int:
        found = 0
        for link in Path("/proc/self/fd").iterdir():
            with suppress(OSError):
                found += link.readlink().suffix == ".tar"
        return found

    monkeypatch.setattr(shard_images, "BLOCK", 1)
    pack_folder(folder, tmp_path / "many", images_per_shard=4, progress=False)
    own = batches(load(tmp_path / "many"), 4)
    most = max(tars() for _ in own.epoch(1))
    assert 0 < most <= 3 * LANES
    assert tars() == 0
    started = own.epoch(1)
    next(started)
    started.close()
    assert tars() == 0
