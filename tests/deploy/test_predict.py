"""Predictions: of whatever holds an image, exactly what evaluation computes, and no bad file ends a batch."""

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

import cnnkit
from cnnkit.core.errors import DataError, UsageError
from cnnkit.deploy import Bundle, Classifier
from cnnkit.nets import create
from helpers.cli import Cli

CLASSES = tuple("abcdefghij")


def classifier(name: str = "lenet_bn", channels: int = 3, pixels: int = 28, **card: Any) -> Classifier:
    torch.manual_seed(1)
    net = create(name, in_channels=channels, num_classes=10, image_size=pixels).eval()
    fields = {
        "net": name, "arguments": {}, "in_channels": channels, "image_size": (pixels, pixels), "classes": CLASSES,
        "mean": (0.2,), "std": (0.5,), "data": "digits", "data_dir": None, "split_sha256": "", "metrics": {},
        "versions": {},
    }  # fmt: skip
    return Classifier(net, Bundle(**(fields | card)))


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width, channels) if channels > 1 else (height, width)
    return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def photos(root: Path, count: int = 12) -> Path:
    """Write images of many sizes, in folders within folders."""
    for number in range(count):
        folder = root / f"class{number % 3}" / ("deeper" if number % 2 else "")
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(30 + 3 * number, 60 - number, seed=number)).save(folder / f"{number}.png")
    return root


def test_every_way_to_give_an_image_is_the_same_image() -> None:
    model, image = classifier(), noise(40, 52)
    Image.fromarray(image).save("a.png")
    tensor = torch.from_numpy(image).permute(2, 0, 1)
    ways = ["a.png", Path("a.png"), Image.open("a.png"), image, image / 255, image.astype(np.float32) / 255]
    ways += [tensor, tensor / 255, tensor.contiguous(), image.astype(np.int64)]
    expected = model.predict("a.png").logits
    for way in ways:
        assert model.predict(way).logits.equal(expected), type(way)
    together = model.predict(ways)
    torch.testing.assert_close(together.logits, expected.expand(len(ways), -1), rtol=1e-5, atol=1e-5)
    assert together.names[:3] == ("a.png", "a.png", "image 2")
    batch = model.predict([np.stack([image, image]), tensor[None]])
    torch.testing.assert_close(batch.logits, expected.expand(3, -1), rtol=1e-5, atol=1e-5)


def test_grey_and_colour_become_what_the_network_takes() -> None:
    grey = noise(9, 11, 1)
    assert classifier().predict(grey).logits.equal(classifier().predict(np.stack([grey] * 3, -1)).logits)
    model = classifier("lenet", 1)
    colour = noise(9, 11)
    expected = model.predict(np.asarray(Image.fromarray(colour).convert("L"))).logits
    for way in (colour, torch.from_numpy(colour).permute(2, 0, 1), Image.fromarray(colour)):
        assert model.predict(way).logits.equal(expected)
    assert model.predict(grey[..., None]).logits.equal(model.predict(grey).logits)
    many = np.stack([grey] * 5)
    assert len(model.predict(many)) == 5, "N x H x W: neither end can be channels"
    clear = np.dstack([colour, np.zeros((9, 11), np.uint8)])
    assert model.predict(clear).logits.equal(model.predict(np.full((9, 11), 255, np.uint8)).logits), "laid over white"
    two = classifier("lenet", 2)
    assert two.predict(noise(28, 28, 2)).logits.equal(
        two.predict(torch.from_numpy(noise(28, 28, 2)).permute(2, 0, 1)).logits
    )
    with pytest.raises(DataError, match="image 0: it has 3 channels, not 2"):
        two.predict(noise(28, 28, 3))


def test_a_turned_photograph_is_upright() -> None:
    model, image = classifier(), Image.fromarray(noise(20, 40))
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save("turned.png", exif=exif)
    assert model.predict(Image.open("turned.png")).logits.equal(model.predict("turned.png").logits)
    assert model.predict("turned.png").logits.equal(model.predict(image.transpose(Image.Transpose.ROTATE_270)).logits)


def test_a_folder_is_read_whole_and_in_any_batches() -> None:
    model, root = classifier(), photos(Path("photos"))
    found = model.predict(root)
    assert sorted(found.names) == sorted(str(path) for path in root.rglob("*.png"))
    assert not found.errors
    for batch_size, workers in ((1, 1), (5, 3), (100, 2)):
        again = model.predict(str(root), batch_size=batch_size, workers=workers)
        assert again.names == found.names
        torch.testing.assert_close(again.logits, found.logits, rtol=1e-5, atol=1e-5)


def test_predicting_a_file_and_evaluating_it_agree() -> None:
    """A folder of photographs larger than the network's input, decoded by both ways."""
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("dark", "light"):
            folder = Path("data", split, name)
            folder.mkdir(parents=True)
            for number in range(6):
                level = (60 if name == "dark" else 180) + rng.integers(-50, 50, (90 + number, 70, 3))
                Image.fromarray(level.astype(np.uint8)).save(folder / f"{number}.jpg")
    run = cnnkit.fit("lenet_bn", "data", epochs=2, batch_size=4, device="cpu", engine="torch", plan="off")
    found = run.model.predict("data/test")
    labels = torch.tensor([CLASSES.index("a") if "dark" in name else 1 for name in found.names])
    loss = torch.nn.functional.cross_entropy(found.logits, labels).item()
    report = run.evaluate()
    assert loss == pytest.approx(report.loss, rel=1e-5)
    assert (found.logits.argmax(1) == labels).double().mean() == report.accuracy


def test_predictions_are_plain_data_tables_and_tensors() -> None:
    model = classifier()
    found = model.predict([noise(28, 28, seed=seed) for seed in range(5)] + ["nowhere.png"])
    assert len(found) == 5 == len(list(found))
    assert found.errors == {"nowhere.png": "no such file"}
    assert found.probabilities.equal(found.logits.softmax(1))
    for row, label, scores in zip(found, found.labels, found.probabilities, strict=True):
        assert set(row[0]) == {"label", "score"}
        assert row[0] == {"label": label, "score": scores.max().item()}
        assert [one["score"] for one in row] == sorted(scores.tolist(), reverse=True)
    assert json.loads(json.dumps(found.to_list(2)))[0] == found[0][:2]
    assert found[1:3].labels == found.labels[1:3]
    assert found[-1] == found[4]
    with pytest.raises(IndexError):
        found[5]
    rows = list(csv.DictReader(io.StringIO(found.to_csv())))
    assert [row["label"] for row in rows] == [*found.labels, ""]
    assert rows[-1]["error"] == "no such file"
    assert float(rows[0]["p_c"]) == pytest.approx(found.probabilities[0, 2].item(), rel=1e-5)
    found.to_csv("found.csv")
    assert Path("found.csv").read_text() == found.to_csv()
    assert "nowhere.png: no such file" in repr(found)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        (3, UsageError, "int is no image: predict takes a path"),
        ({"a": 1}, UsageError, "dict is no image"),
        (b"abc", UsageError, "bytes is no image"),
        ("empty", DataError, "empty: there is no image in this folder"),
    ],
)
def test_what_is_no_image_at_all(given: Any, error: type, words: str) -> None:
    Path("empty").mkdir()
    with pytest.raises(error, match=words):
        classifier().predict(given)


@pytest.mark.parametrize(
    ("image", "reason"),
    [
        (np.zeros((4, 4, 3)) + 7, "pixels must be 0 to 1, not 7 to 7"),
        (np.full((4, 4), np.nan), "pixels must be 0 to 1, not nan to nan"),
        (np.zeros((4, 4), np.int16) - 1, "int16 pixels must be 0 to 255, not -1 to -1"),
        (np.zeros((4, 4), complex), "pixels must be whole numbers or floats"),
        (np.zeros(4, np.uint8), "an image must be H x W or H x W x C, not 4"),
        (torch.zeros(4, dtype=torch.uint8), "an image must be H x W or C x H x W, not 4"),
        (np.zeros((0, 4), np.uint8), "an image must be H x W or H x W x C, not 0 x 4"),
    ],
)
def test_a_bad_array_is_an_error(image: Any, reason: str) -> None:
    """An array is there to be seen; only files turn out to be unreadable."""
    for call in (classifier().predict, classifier().batch):
        with pytest.raises(DataError, match=f"image 1: .*{reason}"):
            call([noise(5, 5), image, noise(6, 5)])


@pytest.mark.parametrize("number", [1, 2, 3, 4, 5])
def test_a_batch_of_grey_arrays_is_a_batch_whatever_its_length(number: int) -> None:
    many = np.stack([noise(9, 11, 1, seed) for seed in range(number)])
    model = classifier("lenet", 1)
    assert len(model.predict(many)) == number
    torch.testing.assert_close(model.predict(many).logits, model.predict(list(many)).logits, rtol=1e-5, atol=1e-5)
    if number in (1, 3, 4):
        with pytest.raises(
            UsageError, match=f"{number} x 9 x 11 may be {number} grey images, or one of {number} channels"
        ):
            classifier().predict(many)
    else:
        assert len(classifier().predict(many)) == number


def test_arrays_and_columns_of_paths_are_paths() -> None:
    for name in ("a.png", "b.png"):
        Image.fromarray(noise(8, 8)).save(name)
    for paths in (np.array(["a.png", "b.png"]), pd.DataFrame({"path": ["a.png", "b.png"]})["path"]):
        assert classifier().predict(paths).names == ("a.png", "b.png")
    with pytest.raises(UsageError, match="there is no image in what is given"):
        classifier().batch([])


def test_a_pil_image_that_cannot_be_read_is_told_too() -> None:
    Image.fromarray(noise(90, 90)).save("a.jpg")
    cut = Image.open(io.BytesIO(Path("a.jpg").read_bytes()[:1500]))
    closed = Image.open("a.jpg")
    closed.close()
    found = classifier().predict([cut, closed, noise(4, 4)])
    assert "corrupt or cut short" in found.errors["image 0"]
    assert "closed" in found.errors["image 1"]
    assert len(found) == 1


def test_explaining_takes_what_predicting_takes() -> None:
    model, image = classifier(), noise(40, 52)
    Image.fromarray(image).save("a.png")
    maps = cnnkit.explain.feature_maps(model, "a.png")
    assert list(maps) == [name for name, _ in model.net.named_children()]
    assert maps["head"].equal(model.predict(image).logits)
    assert cnnkit.explain.filters(model).equal(cnnkit.explain.filters(model.net))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    options = {"epochs": 1, "device": "cpu", "engine": "torch", "plan": "off", "output": folder}
    return cnnkit.fit("lenet", progress=False, **options).path


def test_the_verb_takes_folders_globs_and_standard_input(run: Path, cli: Cli) -> None:
    root = photos(Path("photos"))
    (root / "class0" / "bad.png").write_text("no image")
    names = sorted(str(path) for path in root.rglob("*.png"))
    result = cli("predict", run, root, "--output", "found.csv")
    assert result.code == 3
    assert "cnnkit: photos/class0/bad.png: not an image that can be read" in result.err
    assert "1 of 13 images could not be read" in result.err
    rows = list(csv.DictReader(io.StringIO(Path("found.csv").read_text())))
    assert sorted(row["image"] for row in rows) == names
    result = cli("predict", run, "photos/class1/*.png", "photos/class2/**/*.png", "--json")
    assert result.code == 0, result
    shown = [row["image"] for row in json.loads(result.out)]
    assert sorted(shown) == [name for name in names if "class1/deeper" not in name and "class0" not in name]
    result = cli("predict", run, "photos/none*.png")
    assert (result.code, "photos/none*.png: no such file" in result.err) == (3, True)
    command = [sys.executable, "-m", "cnnkit", "predict", run, "-"]
    good = [name for name in names if "bad" not in name]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, input="\n".join(good) + "\n", capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == good
    done = subprocess.run(command, input="", capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (2, "cnnkit: there is no path on standard input\n")
    result = cli("predict", run, "photos", "--jsn")
    assert (result.code, result.err) == (2, "cnnkit: unknown option --jsn; `cnnkit predict --help` lists them\n")


def test_a_file_with_a_globs_letters_in_its_name_is_a_file(run: Path, cli: Cli) -> None:
    Image.fromarray(noise(8, 8, 1)).save("a[1].png")
    result = cli("predict", run, "a[1].png", "--json")
    assert [row["image"] for row in json.loads(result.out)] == ["a[1].png"]
