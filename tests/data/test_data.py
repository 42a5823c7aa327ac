"""Data sets by name: search path, errors, splits, preprocessing, batches."""

import dataclasses
import gzip
import hashlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data import (
    DATASETS,
    Batches,
    ImageSet,
    Preprocess,
    channel_statistics,
    load_dataset,
    resize_and_crop,
    resize_with_pad,
    stratified_split,
)
from cnnkit.data.datasets import BYTES, FILES, SYSTEM
from helpers.datasets import write_set
from helpers.webserver import Raw, answer, raw_server

MNIST_5K = Path(os.environ.get("CNNKIT_TEST_MNIST", Path(__file__).resolve().parents[3] / "shared/data/mnist-5k"))


def test_digits_ship_with_the_package() -> None:
    digits = load_dataset("digits")
    assert (len(digits.train), len(digits.test)) == (1437, 360)
    assert digits.train.images.shape == (1437, 1, 8, 8)
    assert digits.train.images.dtype == torch.uint8
    assert digits.train.images.max() == 255
    assert digits.train.labels[:10].tolist() == list(range(10))
    assert digits.classes == tuple("0123456789")


@pytest.mark.skipif(not SYSTEM.joinpath("fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not here")
def test_fashion_mnist_matches_the_published_digests() -> None:
    fashion = load_dataset("fashion-mnist")
    assert (len(fashion.train), len(fashion.test)) == (60_000, 10_000)
    assert torch.bincount(fashion.train.labels).tolist() == [6000] * 10
    for file, digest in zip(FILES, DATASETS["fashion-mnist"].sha256, strict=True):
        assert hashlib.sha256(gzip.decompress((SYSTEM / f"fashion-mnist/{file}.gz").read_bytes())).hexdigest() == digest


@pytest.mark.skipif(not MNIST_5K.is_dir(), reason="the 5,000 MNIST digits are not here (CNNKIT_TEST_MNIST)")
def test_mnist_is_read_from_a_custom_folder() -> None:
    mnist = load_dataset("mnist", MNIST_5K)
    assert (len(mnist.train), len(mnist.test)) == (4000, 1000)
    assert mnist.train.images.shape[1:] == (1, 28, 28)


def test_folders_are_searched_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own, named, cache = tmp_path / "own", tmp_path / "environment" / "mnist", tmp_path / "cache" / "mnist"
    write_set(cache, train=1)
    assert len(load_dataset("mnist").train) == 1
    write_set(named, train=2)
    monkeypatch.setenv("CNNKIT_DATA", str(named.parent))
    assert len(load_dataset("mnist").train) == 2
    write_set(own, train=3)
    assert len(load_dataset("mnist", own).train) == 3


def test_incomplete_folder_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    incomplete = write_set(tmp_path / "environment")
    (incomplete / FILES[3]).unlink()
    monkeypatch.setenv("CNNKIT_DATA", str(incomplete))
    write_set(tmp_path / "cache" / "mnist", train=5)
    assert len(load_dataset("mnist").train) == 5


def test_named_folder_is_searched_alone(tmp_path: Path) -> None:
    write_set(tmp_path / "cache" / "mnist")
    incomplete = write_set(tmp_path / "own")
    (incomplete / FILES[3]).unlink()
    with pytest.raises(DataError, match=f"{incomplete}.* lacks {FILES[3]}"):
        load_dataset("mnist", incomplete)


def test_failed_download_names_the_searched_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.3")
    with pytest.raises(DataError, match=r"mnist: not found in .*cache.*, and the download failed: .*--data-dir"):
        load_dataset("mnist")


@pytest.fixture
def mirror(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Raw]:
    """A server of the four files, packed; their checksums are made known."""
    source = write_set(tmp_path / "mirror", train=9)
    files = {f"/{file}.gz": (source / file).read_bytes() for file in FILES}
    digests = tuple(hashlib.sha256(content).hexdigest() for content in files.values())
    monkeypatch.setenv("CNNKIT_HTTP_SECONDS", "0.3")
    with raw_server() as server:
        server.reply(lambda head: [answer(gzip.compress(files[head.split()[1]]))])
        known = dataclasses.replace(DATASETS["mnist"], mirrors=(f"{server.url}/",), sha256=digests)
        monkeypatch.setitem(DATASETS, "mnist", known)
        yield server


def test_download_is_cached(mirror: Raw) -> None:
    assert len(load_dataset("mnist").train) == 9
    mirror.reply(answer(b"", status="404 Gone"))
    assert len(load_dataset("mnist").train) == 9
    assert len(mirror.asked) == 4


@pytest.mark.parametrize("harm", [lambda path: path.write_bytes(b"<html>"), lambda path: os.truncate(path, 20)])
def test_corrupt_cached_file_is_downloaded_again(
    mirror: Raw, tmp_path: Path, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    load_dataset("mnist")
    path = tmp_path / "cache" / "mnist" / FILES[0]
    harm(path)
    assert len(load_dataset("mnist").train) == 9
    assert len(mirror.asked) == 5
    assert f"{path} was corrupt and has been downloaded again: its SHA-256 is" in caplog.text
    harm(path)
    mirror.reply(answer(b"", status="404 Gone"))
    with pytest.raises(DataError, match=r"IDX.*; the download failed \(.* is another file: .* server says 404 Gone"):
        load_dataset("mnist")


def test_oversized_mirror_response_is_refused(mirror: Raw) -> None:
    mirror.reply(answer(gzip.compress(bytes(60_000_000))))
    with pytest.raises(DataError, match="inflates to more than the 47,040,016 bytes of the file"):
        load_dataset("mnist")
    mirror.reply(lambda _: [b"HTTP/1.1 200 OK\r\nContent-Length: 60000000\r\n\r\n"])
    with pytest.raises(DataError, match="has 60,000,000 bytes; at most 47,348,097 are allowed"):
        load_dataset("mnist")


@pytest.mark.skipif(not (SYSTEM / "fashion-mnist").is_dir(), reason="Debian's dataset-fashion-mnist is not installed")
def test_known_sizes_match_fashion_mnist() -> None:
    assert tuple(len(gzip.decompress((SYSTEM / f"fashion-mnist/{file}.gz").read_bytes())) for file in FILES) == BYTES


@pytest.mark.parametrize(
    ("replaced", "reason"),
    [
        ({"train_labels": np.zeros(5, np.uint8)}, r"6 images but .*train-labels-idx1-ubyte has 5 labels"),
        ({"t10k_labels": np.full(4, 10, np.uint8)}, r"t10k-labels-idx1-ubyte: label 10 is outside 0-9"),
        ({"train_images": np.zeros((6, 4), np.uint8)}, r"train-images-idx3-ubyte: images must be N x H x W"),
        ({"train_labels": np.zeros((6, 1), np.uint8)}, r"train-labels-idx1-ubyte: labels must be N bytes"),
        ({"t10k_images": np.zeros((0, 2, 2), np.uint8)}, r"t10k-images-idx3-ubyte: images must be .* at least one"),
        ({"t10k_images": b"<html>404</html>"}, r"t10k-images-idx3-ubyte: not an IDX file"),
    ],
)
def test_inconsistent_files_are_named(tmp_path: Path, replaced: dict[str, np.ndarray | bytes], reason: str) -> None:
    write_set(tmp_path / "set", **replaced)
    with pytest.raises(DataError, match=reason):
        load_dataset("mnist", tmp_path / "set")


def test_unknown_data_set_is_refused() -> None:
    with pytest.raises(UsageError, match="unknown data set 'fashion_mnist'; did you mean 'fashion-mnist'"):
        load_dataset("fashion_mnist")


# --- splits


def test_split_is_stratified_seeded_and_complete() -> None:
    labels = torch.tensor([0] * 50 + [1] * 30 + [2] * 20).repeat(2)
    training, validation = stratified_split(labels, 0.1, seed=7)
    assert torch.bincount(labels[validation]).tolist() == [10, 6, 4]
    assert sorted(torch.cat([training, validation]).tolist()) == list(range(200))
    assert stratified_split(labels, 0.1, seed=7)[1].equal(validation)
    assert not stratified_split(labels, 0.1, seed=8)[1].equal(validation)


def test_split_is_machine_independent() -> None:
    labels = torch.arange(40) % 4
    assert stratified_split(labels, 0.2, seed=0)[1].tolist() == GOLDEN_SPLIT


GOLDEN_SPLIT = [1, 17, 19, 24, 27, 30, 34, 36]


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 2])
def test_invalid_fraction_is_refused(fraction: float) -> None:
    with pytest.raises(UsageError, match="the fraction to hold out"):
        stratified_split(torch.zeros(4), fraction, 0)


# --- preprocessing


def test_pixels_are_scaled_normalised_or_raw() -> None:
    images = torch.tensor([0, 51, 255], dtype=torch.uint8).view(1, 1, 1, 3)
    assert Preprocess((1, 3))(images).flatten().tolist() == pytest.approx([0, 0.2, 1])
    assert Preprocess((1, 3), std=(1 / 255,))(images).flatten().tolist() == [0, 51, 255]
    assert Preprocess((1, 3), (0.2,), (0.5,))(images).flatten().tolist() == pytest.approx([-0.4, 0, 1.6], abs=1e-6)
    colour = images.expand(1, 3, 1, 3)
    by_channel = Preprocess((1, 3), (0.0, 0.2, 1.0), (1.0, 0.5, 2.0))(colour)
    torch.testing.assert_close(by_channel[0, :, 0, 1], torch.tensor([0.2, 0.0, -0.4]))
    assert images.dtype == torch.uint8


def test_channel_statistics_are_exact() -> None:
    images = torch.randint(0, 256, (50, 3, 7, 5), dtype=torch.uint8)
    assert channel_statistics(torch.full((4, 1, 2, 2), 255, dtype=torch.uint8)) == ((1.0,), (1.0,))
    mean, std = channel_statistics(images)
    values = images.double() / 255
    assert mean == pytest.approx(values.mean((0, 2, 3)).tolist())
    assert std == pytest.approx(values.std((0, 2, 3), correction=0).tolist())


@pytest.mark.parametrize(
    ("shorter", "size", "top", "left"),
    [(8, (6, 6), 1, 5), (8, (5, 7), 2, 4), (8, (8, 16), 0, 0), (8, (8, 15), 0, 0), (8, (8, 13), 0, 2)],
)
def test_resize_and_crop_crops_the_centre(shorter: int, size: tuple[int, int], top: int, left: int) -> None:
    """8 x 16 pixels that need no resizing; halves are rounded to even, as in torchvision."""
    images = torch.arange(128.0).view(1, 1, 8, 16)
    cut = resize_and_crop(images, shorter, size)
    assert cut.equal(images[..., top : top + size[0], left : left + size[1]])


def test_resize_and_crop_scales_the_shorter_side_and_pads() -> None:
    images = torch.ones(1, 3, 10, 25)
    assert resize_and_crop(images, 4, (4, 10)).allclose(torch.ones(1, 3, 4, 10))
    padded = resize_and_crop(images, 4, (6, 10))
    assert padded[..., 1:5, :].allclose(torch.ones(1, 3, 4, 10))
    assert not padded[..., 0, :].any()
    batch = torch.full((1, 3, 10, 25), 255, dtype=torch.uint8)
    assert Preprocess((4, 4), (0.5,), (0.25,), resize=5)(batch).allclose(torch.full((1, 3, 4, 4), 2.0))


def test_resize_with_pad_keeps_the_aspect_ratio_and_centres() -> None:
    images = torch.ones(2, 3, 10, 20)
    result = resize_with_pad(images, (9, 8))
    assert result.shape == (2, 3, 9, 8)
    assert result[0, 0].sum(1).nonzero().flatten().tolist() == [2, 3, 4, 5]
    torch.testing.assert_close(result[:, :, 2:6], torch.ones(2, 3, 4, 8))
    torch.testing.assert_close(
        resize_with_pad(torch.arange(64.0).view(1, 1, 8, 8), (28, 28)),
        F.interpolate(torch.arange(64.0).view(1, 1, 8, 8), (28, 28), mode="bilinear"),
    )
    assert resize_with_pad(torch.ones(1, 1, 1, 1000), (4, 4)).sum().round() == 4


# --- batches


def numbered(count: int) -> ImageSet:
    images = torch.arange(count, dtype=torch.uint8).view(count, 1, 1, 1).permute(0, 3, 1, 2)
    return ImageSet(images.expand(-1, 1, 2, 2), torch.arange(count))


def test_epoch_has_every_image_once_in_its_order() -> None:
    batches = Batches(numbered(10), 4, Preprocess((2, 2), std=(1 / 255,)), seed=3)
    epochs = [list(batches.epoch(epoch)) for epoch in (1, 2, 1)]
    orders = [torch.cat([y for _, y in epoch]).tolist() for epoch in epochs]
    assert [len(y) for _, y in epochs[0]] == [4, 4, 2]
    assert len(batches) == 3
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(10))
    assert orders[0] == orders[2] != orders[1]
    other = Batches(numbered(10), 4, Preprocess((2, 2)), seed=4)
    assert torch.cat([y for _, y in other.epoch(1)]).tolist() not in orders, "another seed, another order"
    for x, y in epochs[0]:
        assert x[:, 0, 0, 0].equal(y.float())


def test_epoch_can_start_at_any_batch() -> None:
    batches = Batches(numbered(10), 3, Preprocess((2, 2)), seed=0)
    whole = [y.tolist() for _, y in batches.epoch(5)]
    for first in range(5):
        assert [y.tolist() for _, y in batches.epoch(5, first)] == whole[first:]


def test_single_left_over_image_joins_the_previous_batch() -> None:
    for count, sizes in {9: [4, 5], 8: [4, 4], 1: [1], 5: [5], 10: [4, 4, 2], 0: []}.items():
        batches = Batches(numbered(count), 4, Preprocess((2, 2)), seed=0)
        assert [len(y) for _, y in batches] == [len(y) for _, y in batches.epoch(1)] == sizes
        assert len(batches) == len(sizes)
        assert sorted(torch.cat([y for _, y in batches.epoch(1)]).tolist() if sizes else []) == list(range(count))


def test_iteration_is_in_order_and_channels_last() -> None:
    digits = load_dataset("digits").test
    batches = Batches(digits, 100, Preprocess((8, 8)))
    assert torch.cat([y for _, y in batches]).equal(digits.labels)
    x, _ = next(iter(batches))
    assert x.stride() == (64, 1, 8, 1)
    with pytest.raises(UsageError, match="no seed"):
        next(batches.epoch(1))
    with pytest.raises(UsageError, match="batch_size must be at least 1, not 0"):
        Batches(digits, 0, Preprocess((8, 8)))


@given(st.integers(1, 60), st.integers(1, 20), st.integers(1, 5))
def test_batches_of_processes_add_up_to_those_of_one(count: int, batch_size: int, world: int) -> None:
    if batch_size < world:
        with pytest.raises(UsageError, match=f"batch_size must be at least {world} for {world} processes"):
            Batches(numbered(count), batch_size, Preprocess((2, 2)), shard=(0, world))
        return
    ranks = [Batches(numbered(count), batch_size, Preprocess((2, 2)), seed=1, shard=(r, world)) for r in range(world)]
    sizes = ranks[0].sizes
    assert all(batches.sizes == sizes for batches in ranks)
    assert sum(sizes) == count == ranks[0].num_images
    assert len(sizes) == len(ranks[0])
    seen = torch.cat([y for batches in ranks for _, y in batches])
    assert sorted(seen.tolist()) == list(range(count)), "in order, each image is seen by exactly one process"
    if count < world:
        with pytest.raises(UsageError, match=f"{count} images are too few for {world} processes"):
            next(ranks[0].epoch(1))
        return
    (whole,) = torch.cat([y for _, y in Batches(numbered(count), count, Preprocess((2, 2)), seed=1).epoch(3)]).split(
        count
    )
    parts = list(zip(*([y for _, y in batches.epoch(3)] for batches in ranks), strict=True))
    for part, batch in zip(parts, whole.split(sizes), strict=True):
        for rank, own in enumerate(part):
            assert own.equal(batch[rank::world])
            assert len(own) >= 2 or batch_size < 2 * world or count < 2 * world


class Stamp:
    """Paints an image in the shade of its first random number."""

    numbers = 3

    def __call__(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        assert images.dtype == torch.uint8
        assert u.shape == (len(images), 3)
        assert u.dtype == torch.float32
        return (u[:, :1, None, None] * 256).to(torch.uint8).expand_as(images)


def test_augmentation_depends_only_on_seed_epoch_and_image() -> None:
    """Who enters an epoch late, or shares it in the same batches, gives each image what it would have had."""

    def shades(seed: int = 1, epoch: int = 1, first: int = 0, shard: tuple[int, int] = (0, 1)) -> dict[int, float]:
        batches = Batches(numbered(55), 8, Preprocess((2, 2)), seed=seed, augment=Stamp(), shard=shard)
        return {
            int(label): float(x.mean()) for xs, y in batches.epoch(epoch, first) for x, label in zip(xs, y, strict=True)
        }

    whole = shades()
    assert len(set(whole.values())) > 40
    assert shades() == whole
    late = shades(first=4)
    assert len(late) == 23
    assert late.items() <= whole.items()
    assert shades(shard=(0, 3)) | shades(shard=(1, 3)) | shades(shard=(2, 3)) == whole
    assert shades(epoch=2) != whole != shades(seed=2)
    plain = Batches(numbered(55), 8, Preprocess((2, 2), std=(1 / 255,)), seed=1, augment=Stamp())
    assert all(x[:, 0, 0, 0].equal(y.float()) for x, y in plain), "iteration in order leaves images as they are"


def test_random_numbers_are_machine_independent() -> None:
    seen = []

    class Look(Stamp):
        def __call__(self, images: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
            seen.append(u)
            return images

    next(Batches(numbered(4), 2, Preprocess((2, 2)), seed=0, augment=Look()).epoch(1))
    assert (seen[0] * 1000).long().tolist() == GOLDEN_NUMBERS


GOLDEN_NUMBERS = [[836, 310, 711], [471, 500, 744]]


def test_subset_keeps_the_order_of_its_rows() -> None:
    whole = ImageSet(numbered(6).images, torch.arange(6), tuple("abcdef"))
    few = whole.subset(torch.tensor([4, 1, 2]))
    assert few.labels.tolist() == [4, 1, 2]
    assert few.names == ("e", "b", "c")
    assert few.images[:, 0, 0, 0].tolist() == [4, 1, 2]
    assert len(few) == 3
    assert numbered(6).subset(torch.tensor([0])).names == ()


def test_example_images_are_the_last_of_the_test_set() -> None:
    from cnnkit.data import read_image

    digits = load_dataset("digits").test
    examples = sorted((Path(__file__).resolve().parents[2] / "examples/digits").iterdir())
    assert len(examples) == 5
    for path, image, label in zip(examples, digits.images[-5:], digits.labels[-5:].tolist(), strict=True):
        assert read_image(path).equal(image)
        assert path.stem.endswith(f"is-{label}")
