"""The protocol of all storages: the same rows give the same images."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from cnnkit.core.errors import DataError, UsageError
from cnnkit.data import Batches, Dataset, ImageSet, Preprocess, Storage, load_dataset
from cnnkit.data.shards.pack import pack_folder

NUMBER = 40  # images, 6 x 7, whose first pixel tells them apart


def images() -> np.ndarray:
    result = np.random.default_rng(0).integers(0, 256, (NUMBER, 6, 7, 3), np.uint8)
    result[:, 0, 0, 0] = np.arange(NUMBER)
    return result


def labels() -> list[str]:
    return ["cat" if number % 2 else "dog" for number in range(NUMBER)]


def folder() -> Path:
    for number, (image, label) in enumerate(zip(images(), labels(), strict=True)):
        path = Path("photos", label, f"{number:02}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(path)
    return Path("photos")


def shards() -> Path:
    pack_folder(folder(), Path("shards"), images_per_shard=9, progress=False)
    return Path("shards")


def table() -> list[tuple[Path, str]]:
    return [(path, path.parent.name) for path in sorted(folder().rglob("*.png"))]


class Own(torch.utils.data.Dataset):
    def __len__(self) -> int:
        return NUMBER

    def __getitem__(self, row: int) -> tuple[Any, str]:
        return Image.fromarray(images()[row]), labels()[row]


WAYS: dict[str, tuple[Callable[[], Any], dict[str, Any]]] = {
    "memory": (lambda: (images(), labels()), {}),
    "mapped": (folder, {}),
    "streamed": (folder, {"budget": 0}),
    "shards": (shards, {}),
    "table": (table, {}),
    "own": (Own, {}),
}


@pytest.fixture(params=WAYS)
def data(request: pytest.FixtureRequest) -> Dataset:
    make, options = WAYS[request.param]
    return load_dataset(make(), progress=False, **options)


def marks(batch: torch.Tensor) -> list[int]:
    return batch[:, 0, 0, 0].tolist()


def test_row_is_the_same_image_in_every_storage(data: Dataset) -> None:
    assert data.classes == ("cat", "dog")
    assert data.test is not None
    assert (len(data.train), len(data.test)) == (36, 4)
    seen = []
    for part in (data.train, data.test):
        storage = part.storage
        assert isinstance(storage, Storage)
        assert storage.shape == (len(part), 3, 6, 7)
        pixels, kept = storage.read(torch.arange(len(part)))
        assert torch.arange(len(part))[kept].tolist() == list(range(len(part)))
        assert pixels.is_contiguous(memory_format=torch.channels_last)
        for image, label in zip(pixels, part.labels[kept], strict=True):
            number = int(image[0, 0, 0])
            assert image.equal(torch.from_numpy(images()[number]).permute(2, 0, 1))
            assert data.classes[label] == labels()[number]
            seen.append(number)
        rows = torch.tensor([3, 0, 2])
        assert storage[rows].equal(pixels[rows])
        assert storage.subset(rows)[:].equal(pixels[rows])
        assert storage[1:3].equal(pixels[1:3])
        assert storage.sample()[:].shape[0] == len(part)
    assert sorted(seen) == list(range(NUMBER))


def test_order_is_a_permutation_by_seed_and_epoch(data: Dataset) -> None:
    storage = data.train.storage
    order = storage.order(1, 2, 1)
    assert order.sort().values.equal(torch.arange(36))
    assert order.equal(storage.order(1, 2, 1))
    assert not order.equal(storage.order(1, 3, 1))
    assert not order.equal(storage.order(2, 2, 1))


def test_held_out_images_are_held_out_once(data: Dataset) -> None:
    kept, aside = data.train.hold_out(0.25, seed=3)
    assert torch.cat([kept, aside]).sort().values.equal(torch.arange(36))
    assert len(aside) in (8, 9, 10)
    with pytest.raises(UsageError, match="at least 0 and below 1"):
        data.train.hold_out(1.0, seed=3)


@pytest.mark.parametrize("world", [1, 2])
def test_epoch_and_evaluation_have_each_image_once(data: Dataset, world: int) -> None:
    whole, epochs = [], []
    for rank in range(world):
        batches = Batches(data.train, 8, Preprocess((6, 7), std=(1 / 255,)), seed=0, shard=(rank, world))
        whole += [number for x, _ in batches for number in marks(x)]
        epochs += [number for x, _ in batches.epoch(1) for number in marks(x)]
        late = [number for x, _ in batches.epoch(1, 2) for number in marks(x)]
        assert late == epochs[-len(late) :]
    assert sorted(whole) == sorted(epochs) == sorted(marks(data.train.storage[:]))
    assert whole != epochs


def test_digest_differs_between_selections(data: Dataset) -> None:
    one, other = (data.train.subset(torch.tensor(rows)).digest() for rows in ([0, 1], [0, 2]))
    assert one is None or one != other


class Broken(Own):
    """Gives another size for item 5, another label for item 6 the second time, and no pair for item 7."""

    def __init__(self, wrong: int):
        self.wrong, self.asked = wrong, 0

    def __getitem__(self, row: int) -> Any:
        image, label = super().__getitem__(row)
        self.asked += row == self.wrong
        if row != self.wrong:
            return image, label
        if row == 5:
            return image.resize((9, 9)), label
        if row == 6:
            return image, label if self.asked == 1 else "bird"
        return image


def test_wrong_item_is_named() -> None:
    def read(wrong: int, **options: Any) -> torch.Tensor:
        data = load_dataset(Broken(wrong), progress=False, test_fraction=0, **options)
        return data.train.storage[torch.tensor([wrong])]

    with pytest.raises(DataError, match="item 5 of the data set is 9 x 9, others are 6 x 7: set a common size"):
        read(5)
    assert read(5, image_size=(6, 6)).shape == (1, 3, 6, 6)
    with pytest.raises(DataError, match="item 6 of the data set had the label 'dog' and has 'bird'"):
        read(6)
    with pytest.raises(DataError, match=r"item 7 of the data set is Image, not \(image, label\)"):
        read(7)


def test_labels_from_targets_are_class_indices() -> None:
    class Known(Own):
        targets = torch.tensor([1 if label == "cat" else 2 for label in labels()])
        classes = ("bird", "cat", "dog")
        asked = 0

        def __getitem__(self, row: int) -> Any:
            self.asked += 1
            return super().__getitem__(row)[0], self.targets[row]

    known = Known()
    data = load_dataset(known, progress=False, test_fraction=0)
    assert known.asked <= 16, "a glance, not all of it"
    assert data.classes == ("bird", "cat", "dog")
    assert data.train.labels.equal(known.targets)
    known.classes = ("cat", "dog")
    with pytest.raises(DataError, match="labels range from 1 to 2, but there are 2 classes"):
        load_dataset(known, progress=False)


def test_images_of_more_than_three_channels_are_kept() -> None:
    many = np.random.default_rng(0).integers(0, 256, (8, 5, 6, 6), np.uint8)
    data = load_dataset((torch.from_numpy(many), [0, 1] * 4), test_fraction=0)
    assert data.train.storage.shape == (8, 5, 6, 6)
    assert isinstance(data.train, ImageSet)
    assert data.train.storage[:].equal(torch.from_numpy(many))
