"""Streaming images that are too large for memory."""

import shutil
import threading
import time
from pathlib import Path

import pytest
import torch

from cnnkit.core.parallel import ahead
from cnnkit.data import (
    Batches,
    Preprocess,
    channel_statistics,
)
from helpers.folders import SIZE, contents, flat, load, picture, place


def test_what_is_too_large_for_the_budget_is_streamed(monkeypatch: pytest.MonkeyPatch, decoded: list[bytes]) -> None:
    root = flat("photos", 10)
    for how in ({"budget": 20 * 64 - 1}, {"budget": 0}):
        data = load(root, **how)
        contents(root, data)
        assert not (place() / "pixels.u8").exists()
    free = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=2 * 20 * 64 - 1))
    contents(root, load(root))
    assert len(decoded) == 20, "each is decoded once, for its thumbnail and to see that it can be"
    monkeypatch.setattr(shutil, "disk_usage", lambda path: free._replace(free=2 * 20 * 64))
    contents(root, load(root, budget=20 * 64))
    assert len(decoded) == 40


@pytest.mark.parametrize("budget", [0, 10**9])
@pytest.mark.parametrize("shard", [(0, 1), (1, 2)])
def test_batches_from_the_disk_are_those_from_memory(budget: int, shard: tuple[int, int]) -> None:
    root = flat("photos", 12)
    stored = load(root, budget=budget).train
    memory = type(stored)(stored.images[:], stored.labels, stored.names)
    one, other = (Batches(data, 5, Preprocess((16, 16)), seed=1, shard=shard) for data in (stored, memory))
    for ours, theirs in ((one.epoch(1), other.epoch(1)), (one.epoch(2, 3), other.epoch(2, 3)), (one, other)):
        for (x, y), (expected, labels) in zip(ours, theirs, strict=True):
            assert x.equal(expected)
            assert x.stride() == expected.stride()
            assert y.equal(labels)
    assert channel_statistics(stored.images) == channel_statistics(memory.images)


def test_statistics_of_what_is_on_the_disk_look_at_some(monkeypatch: pytest.MonkeyPatch) -> None:
    stored = load(flat("photos", 12), test_fraction=0).train
    monkeypatch.setattr("cnnkit.data.storage.SAMPLE", 4)
    spread = stored.images[torch.tensor([0, 7, 15, 23])]
    assert channel_statistics(stored.images) == channel_statistics(spread)


def test_threads_work_in_order_and_not_for_those_who_left() -> None:
    done = []

    def work(item: int) -> int:
        done.append(item)
        time.sleep(0.001 * (item % 3))
        return item

    assert list(ahead(work, range(50), 4, 8)) == list(range(50))
    del done[:]
    results = ahead(work, range(1000), 2, 1000)
    assert next(results) == 0
    results.close()
    assert len(done) < 500


def test_streaming_ends_with_its_batches() -> None:
    data = load(flat("photos", 30), budget=0).train
    before = threading.active_count()
    batches = Batches(data, 2, Preprocess(SIZE), seed=0)
    for stop_after in (1, 5, 1000):
        epoch = batches.epoch(1)
        for number, _ in enumerate(epoch, 1):
            if number == stop_after:
                break
        epoch.close()
        assert threading.active_count() == before


def resident() -> int:
    """Bytes of memory that belong to no file."""
    (line,) = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssAnon")]
    return int(line.split()[1]) * 1024


def test_memory_stays_flat_over_an_epoch() -> None:
    for name in ("a/1", "b/1"):
        picture(f"photos/{name}.bmp", size=(512, 512), mode="RGB")
    for number in range(2, 60):
        shutil.copy("photos/a/1.bmp", f"photos/a/{number}.bmp")
    data = load("photos", test_fraction=0).train
    epoch = Batches(data, 1, Preprocess((512, 512)), seed=0).epoch(1)
    for number, _ in enumerate(epoch):
        if number == 10:
            before = resident()
    assert resident() - before < 50 * 512 * 512 * 3 / 3
