"""The data card of a run: counts, sizes, duplicates and leaks of its own splits, and data that are gone."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import cnnkit
from cnnkit.core.errors import UsageError
from cnnkit.data import load_named
from cnnkit.data.check.findings import KINDS
from cnnkit.data.shards.pack import pack_folder
from cnnkit.experiment import Run
from cnnkit.report.data_card import DataCard, data_card
from helpers.fit import QUICK
from helpers.images import save_noise

EVIL = "<img src=x onerror=alert(1)>"


def photos(root: str, *splits: str, size: tuple[int, int] = (12, 20)) -> Path:
    """Write eight noise images of each of two classes into the folders of splits."""
    for number, split in enumerate(splits):
        for label, name in enumerate(("cat", EVIL)):
            for index in range(8):
                save_noise(Path(root, split, name, f"{index}.png"), seed=100 * number + 10 * label + index, size=size)
    return Path(root)


def trained(data: object, **options: object) -> Run:
    return cnnkit.fit("lenet", data, **(QUICK | {"epochs": 1, "progress": False} | options))


def kinds(card: DataCard) -> dict[str, tuple[int, int]]:
    return {finding.kind: (finding.groups, finding.files) for finding in card.findings}


def test_card_of_digits_counts_each_split() -> None:
    card = data_card(trained("digits"))
    data = load_named("digits")
    assert card.classes == data.classes
    assert sum(card.images[split] for split in ("train", "validation")) == len(data.train)
    assert card.counts["test"] == tuple(torch.bincount(data.test.labels).tolist())
    assert {split: sum(counts) for split, counts in card.counts.items()} == card.images
    assert (card.channels, card.compared, card.findings, card.remarks) == (1, "pixels", (), ())
    assert card.height == card.width == {"min": 8, "median": 8, "max": 8}
    assert json.loads(json.dumps(card.to_dict()))["counts"]["0"] == {
        split: counts[0] for split, counts in card.counts.items()
    }


def test_pixels_in_memory_are_compared_within_and_between_splits() -> None:
    images = np.random.default_rng(0).integers(0, 255, (60, 10, 14, 3), dtype=np.uint8)
    labels = np.arange(60) % 2
    run = trained((images, labels), validation=0.2)
    split = data_card(run)
    assert (split.findings, split.height["max"], split.width["max"], split.channels) == ((), 10, 14, 3)
    validation = run.folder.read_json("split.json")["validation"]
    images[2] = images[0]
    images[4], labels[4] = images[1], 0
    card = data_card(trained((images, labels), validation=0.2))
    copies = {finding.kind: finding for finding in card.findings}
    assert validation  # there are three splits
    assert "label-conflict" in copies
    assert copies["label-conflict"].text == KINDS["label-conflict"].text
    assert sum(finding.groups for finding in card.findings) >= 2
    assert any(" image " in example for finding in card.findings for example in finding.examples)


def test_copies_of_image_files_are_found_in_the_splits_of_the_run() -> None:
    root = photos("photos", "train", "test")
    shutil.copy(root / "train/cat/0.png", root / "train/cat/copy.png")
    shutil.copy(root / "train/cat/1.png", root / "test/cat/leak.png")
    shutil.copy(root / "train/cat/2.png", root / "train" / EVIL / "conflict.png")
    pixels = np.asarray(Image.open(root / "train/cat/3.png")).astype(int)
    Image.fromarray((pixels + 1).clip(0, 255).astype(np.uint8)).save(root / "test/cat/near.png")
    (root / "train/cat/broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no")
    card = data_card(trained(root, on_bad_image="skip", validation=0.25))
    assert card.compared == "files"
    found = {finding.kind: finding for finding in card.findings}
    assert kinds(card) == {
        "leak": (1, 2),
        "near-leak": (1, 2),
        "label-conflict": (1, 2),
        "duplicate": (1, 2),
        next(kind for kind in found if kind in ("corrupt", "truncated", "no-image")): (1, 1),
    }
    assert found["leak"].examples == ("train/cat/1.png, test/cat/leak.png (identical, skipped in testing)",)
    assert found["leak"].severity == "harm"
    assert {"train/cat/3.png", "test/cat/near.png"} == set(found["near-leak"].examples[0].split(", "))
    assert set(found["duplicate"].examples[0].removesuffix(" (identical)").split(", ")) == {
        "train/cat/0.png",
        "train/cat/copy.png",
    }
    order = [list(KINDS).index(finding.kind) for finding in card.findings]
    assert order == sorted(order)
    assert sum(card.images.values()) == 32 + 3  # neither the leak nor the broken file
    assert any(remark.endswith("cnnkit data check " + str(root.absolute())) for remark in card.remarks)


def test_sizes_are_those_of_the_files_before_resizing() -> None:
    root = photos("photos", ".")
    save_noise(root / "cat/wide.png", seed=900, size=(12, 90))
    card = data_card(trained(root))
    assert card.width == {"min": 20, "median": 20, "max": 90}
    assert card.height == {"min": 12, "median": 12, "max": 12}
    assert card.by_class()["cat"].keys() == card.images.keys()
    assert sum(card.by_class()["cat"].values()) == 9


def test_images_are_not_decoded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    run = trained(photos("photos", "."))
    for name in ("decode_image", "decode_with_thumb", "thumbnail"):
        monkeypatch.setattr(f"cnnkit.data.folder.store.{name}", None)
    assert data_card(run).images == {"train": 12, "validation": 2, "test": 2}


def test_at_most_five_examples_of_a_kind_are_shown() -> None:
    root = photos("photos", ".")
    for index in range(7):
        shutil.copy(root / f"cat/{index}.png", root / f"cat/copy-{index}.png")
    card = data_card(trained(root))
    (copies,) = [finding for finding in card.findings if finding.kind == "duplicate"]
    assert (copies.groups, copies.files, len(copies.examples)) == (7, 14, 5)


def test_data_that_are_gone_leave_what_the_split_lists() -> None:
    root = photos("photos", ".")
    run = trained(root)
    before = data_card(run)
    shutil.rmtree(root)
    card = data_card(run)
    assert card.images == before.images
    assert card.counts == {split: before.counts[split] for split in ("train", "validation")}
    assert (card.height, card.channels, card.compared, card.findings) == (None, None, "nothing", ())
    assert "split.json alone is known" in card.remarks[0]
    assert str(root) in card.remarks[0]


def test_deleted_images_are_counted_in_a_remark() -> None:
    root = photos("photos", "train", "test")
    run = trained(root)
    shutil.rmtree(root / "test")
    card = data_card(run)
    assert "test" not in card.images
    assert any("16 missing test images" in remark for remark in card.remarks)


def test_replaced_images_leave_what_the_split_lists() -> None:
    root = photos("photos", ".")
    run = trained(root)
    for path in root.rglob("*.png"):
        save_noise(path, seed=5000 + int(path.stem))
    card = data_card(run)
    assert card.images == {"train": 12, "validation": 2, "test": 2}
    assert (card.compared, card.channels) == ("nothing", None)
    assert any("missing" in remark for remark in card.remarks)


def test_arrays_are_known_to_the_run_alone() -> None:
    images, labels = torch.rand(40, 1, 9, 9), torch.arange(40) % 2
    run = trained((images, labels))
    assert data_card(run).images == {"train": 32, "validation": 4, "test": 4}
    card = data_card(run.path)
    assert card.images == {"validation": 4}
    assert "passed from Python" in card.remarks[0]


def test_images_of_tar_shards_are_counted_but_not_compared() -> None:
    root = photos("photos", ".")
    shutil.copy(root / "cat/0.png", root / "cat/copy.png")
    pack_folder(root, Path("shards"), images_per_shard=4)
    card = data_card(trained(Path("shards")))
    assert sum(card.images.values()) == 17
    assert (card.compared, card.height, card.channels) == ("nothing", None, 3)
    assert "duplicates are not searched for in data of this format" in card.remarks


def test_separate_test_images_are_compared_with_those_of_training() -> None:
    root = photos("photos", ".")
    other = photos("other", ".", size=(16, 16))
    pixels = np.asarray(Image.open(root / "cat/3.png")).astype(int)
    Image.fromarray((pixels + 1).clip(0, 255).astype(np.uint8)).save(other / "cat/near.png")
    card = data_card(trained(root, test_data=str(other)))
    assert card.images["test"] == 17
    assert kinds(card) == {"near-leak": (1, 2)}
    assert card.height == {"min": 12, "median": 12, "max": 16}


def test_other_folders_are_refused() -> None:
    Path("empty").mkdir()
    with pytest.raises(UsageError, match="empty"):
        data_card("empty")
