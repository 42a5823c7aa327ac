"""Evaluation: predictions that are kept in the run, of any split, and what they are worth."""

import csv
import io
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

import cnnkit
from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data.images.decode import fitted_size
from cnnkit.experiment import Run, evaluate, evaluation_of, images_of, read_predictions
from cnnkit.experiment.build import Given
from cnnkit.experiment.record import digest_of
from cnnkit.experiment.trained import Trained
from cnnkit.train import World
from helpers.cli import Cli, one_line
from helpers.images import noise_photos, shape_photos
from helpers.processes import run_torchrun
from helpers.shards import write_folder

DIGITS = cnnkit.data.load_dataset("digits")
QUICK = {"epochs": 2, "batch_size": 64, "plan": "off", "progress": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of LeNet on the digits; tests copy it."""
    torch.manual_seed(0)
    return cnnkit.fit("lenet", "digits", output=tmp_path_factory.mktemp("runs"), **(QUICK | {"epochs": 8})).path


@pytest.fixture
def run(trained: Path) -> Path:
    return Path(shutil.copytree(trained, Path("runs/lenet-digits-1")))


def kept(run: Path, split: str = "test") -> list[Path]:
    return sorted(run.glob(f"predictions-{split}-*.npz"))


def test_predictions_are_kept_and_hold_logits_labels_and_digests(run: Path) -> None:
    found = evaluate(run, progress=False)
    [path] = kept(run)
    saved = read_predictions(path)
    assert path.name == f"predictions-test-{saved.data_sha256[:12]}.npz"
    assert DIGITS.test is not None
    assert saved.labels.tolist() == DIGITS.test.labels.tolist()
    assert saved.logits.dtype == np.float32
    assert saved.logits.tolist() == found.predictions.logits.tolist()
    model = cnnkit.load(run)
    with torch.inference_mode():
        logits = model.net(model.preprocess(DIGITS.test.images[:7]))
    assert saved.logits[:7] == pytest.approx(logits.numpy(), abs=1e-5)
    config = json.loads((run / "best/config.json").read_text())
    assert (saved.model_sha256, saved.split_sha256) == (config["model_sha256"], config["split_sha256"])


def test_metrics_are_those_of_scikit_learn_on_the_csv_file(run: Path, cli: Cli) -> None:
    result = json.loads(cli("evaluate", run, "--json", "--csv", "all.csv").out)
    rows = list(csv.DictReader(io.StringIO(Path("all.csv").read_text())))
    assert list(rows[0]) == ["file", "label", "prediction", *(f"p_{name}" for name in "0123456789")]
    labels, answers = ([row[name] for row in rows] for name in ("label", "prediction"))
    shares = np.array([[float(row[f"p_{name}"]) for name in "0123456789"] for row in rows])
    assert result["images"] == len(rows) == 360
    assert result["accuracy"] == accuracy_score(labels, answers)
    assert result["macro_f1"] == pytest.approx(f1_score(labels, answers, average="macro"))
    assert result["loss"] == pytest.approx(log_loss(labels, shares / shares.sum(1, keepdims=True)), rel=1e-4)
    low, high = result["intervals"]["accuracy"]
    assert low < result["accuracy"] < high


def test_digits_after_the_point_follow_the_interval(run: Path) -> None:
    found = evaluate(run, progress=False)
    assert f"accuracy {found.accuracy:.2f} (" in repr(found), "360 images do not justify four digits"
    assert f"{found.accuracy:.4f}" not in repr(found)


@pytest.mark.parametrize(("split", "images"), [("train", 1295), ("validation", 142), ("test", 360)])
def test_every_split_of_a_run_is_its_own(run: Path, split: str, images: int) -> None:
    found = evaluate(run, split=split, progress=False)
    assert found.num_images == images
    [path] = kept(run, split)
    assert read_predictions(path).split == split
    assert (run / "test.json").exists() == (split == "test")
    assert any("too good" in remark for remark in found.remarks) == (split != "test")
    record = json.loads((run / "split.json").read_text())
    rows = {"validation": record["validation"], "test": None}.get(
        split, sorted({*range(1437)} - {*record["validation"]})
    )
    part = DIGITS.test if rows is None else DIGITS.train.subset(torch.tensor(rows))
    assert part is not None
    assert found.predictions.labels.tolist() == part.labels.tolist()


def test_validation_accuracy_is_that_of_training(run: Path) -> None:
    best = Run(run).history.best
    assert best is not None
    found = evaluate(run, split="validation", temperature=False, progress=False)
    assert found.accuracy == pytest.approx(best["val_accuracy"])
    assert found.loss == pytest.approx(best["val_loss"], rel=1e-3)


@pytest.mark.parametrize("batch_size", [1, 7, 359, 360, 1000])
def test_result_does_not_depend_on_the_batch_size(run: Path, batch_size: int) -> None:
    found = evaluate(run, batch_size=batch_size, progress=False)
    expected = evaluate(run, progress=False)
    assert found.predictions.labels.tolist() == expected.predictions.labels.tolist()
    assert found.predictions.logits == pytest.approx(expected.predictions.logits, abs=1e-4)
    assert found.confusion.tolist() == expected.confusion.tolist()
    assert len(kept(run)) == 1


@pytest.mark.parametrize("processes", [2, pytest.param(3, marks=pytest.mark.slow)])
def test_processes_share_the_images(run: Path, processes: int) -> None:
    expected = evaluate(run, progress=False)
    kept(run)[0].unlink()
    done = run_torchrun("evaluate", run, "--json", "--batch-size", 50, processes=processes)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["confusion"] == expected.confusion.tolist()
    saved = read_predictions(kept(run)[0])
    assert saved.labels.tolist() == expected.predictions.labels.tolist()
    assert saved.logits == pytest.approx(expected.predictions.logits, abs=1e-4)


def test_splits_of_image_files_are_found_by_content() -> None:
    shape_photos(Path("photos"), 20)
    run = cnnkit.fit("lenet", "photos", image_size=28, **QUICK)
    record = json.loads((run.path / "split.json").read_text())
    for split in ("train", "validation", "test"):
        assert evaluate(run, split=split, progress=False).predictions.names == tuple(record[split])
    moved = next(iter(record["validation"]))
    gone = list(record["validation"])[1]
    Path("photos", moved).rename(Path("photos", moved).with_name("renamed.png"))
    Path("photos", gone).unlink()
    found = evaluate(run, split="validation", progress=False)
    assert found.num_images == len(record["validation"]) - 1
    assert f"skipping 1 missing validation image of the run: {gone}" in found.remarks
    assert str(Path(moved).with_name("renamed.png")) in found.predictions.names


def test_separate_validation_images_are_found(cli: Cli) -> None:
    shape_photos(Path("photos"), 6)
    shape_photos(Path("others"), 3)
    words = ("--data", "photos", "--validation-data", "others", "--image-size", 28, "--epochs", 1, "--plan", "off")
    assert cli("train", "lenet", *words).code == 0
    found = json.loads(cli("evaluate", "runs/lenet-photos-1/best", "--split", "validation", "--json").out)
    assert found["images"] == 9


def test_shards_have_splits(cli: Cli) -> None:
    assert cli("data", "pack", write_folder(Path("photos")), "shards", "--images-per-shard", 60).code == 0
    run = cnnkit.fit("lenet", "shards", image_size=28, **QUICK)
    sizes = {split: evaluate(run, split=split, progress=False).num_images for split in ("train", "validation", "test")}
    log = (run.path / "log.txt").read_text()
    assert f"{sizes['train']:,} training images, {sizes['validation']:,} validation images" in log


def test_data_from_python_come_with_the_run() -> None:
    images, labels = DIGITS.train.images[:400, 0].numpy(), DIGITS.train.labels[:400].numpy()
    run = cnnkit.fit("lenet", (images, labels), **QUICK)
    parts = {split: run.evaluate(split=split).num_images for split in ("train", "validation", "test")}
    assert sum(parts.values()) == 400
    assert min(parts.values()) > 20
    with pytest.raises(UsageError, match="the network's validation images were passed from Python"):
        evaluate(run.path, split="validation")
    assert evaluate(run.path, (images, labels), split="validation").num_images == parts["validation"]


def test_kept_predictions_are_read_until_network_or_split_change(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = evaluate(run, progress=False)
    calls: list[str] = []
    monkeypatch.setattr(
        Trained, "predict", lambda *arguments, **options: calls.append("predict") or expected.predictions
    )
    assert evaluation_of(run).accuracy == expected.accuracy
    assert calls == []
    config = run / "best/config.json"
    text = config.read_text()
    config.write_text(json.dumps(json.loads(text) | {"split_sha256": "0" * 64}))
    assert Trained.open(run).kept("test") is None
    config.write_text(text)
    assert Trained.open(run).kept("test") is not None
    model = cnnkit.load(run)
    with torch.no_grad():
        model.net[-1].weight.mul_(0.5)
    cnnkit.deploy.save_bundle(run / "best", model.net, model.bundle, {"split.json": (run / "split.json").read_bytes()})
    assert Trained.open(run).kept("test") is None, "they are of other weights"
    config.write_text(text)
    with pytest.raises(CnnkitError, match=r"model\.safetensors: corrupt: its SHA-256 is not the one in config.json"):
        Trained.open(run).kept("test")


def test_predictions_for_other_data_are_not_taken_for_its_own(run: Path) -> None:
    test = DIGITS.test
    assert test is not None
    evaluate(run, (test.images[:90], test.labels[:90]), progress=False)
    assert len(kept(run)) == 1
    assert Trained.open(run).kept("test") is None
    assert not (run / "test.json").exists()
    assert evaluation_of(run, progress=False).num_images == 360
    assert len(kept(run)) == 2


@pytest.mark.parametrize("split", ["train", "validation", "test"])
def test_data_that_have_changed_are_not_its_own(run: Path, split: str) -> None:
    record = run / "best/split.json"
    content = json.loads(record.read_text()) | {"train_sha256": "0" * 64}
    record.write_text(json.dumps(content))
    config = run / "best/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"split_sha256": digest_of(content)}))
    with pytest.raises(DataError, match=r"digits has changed since the network was trained; .* --data"):
        evaluate(run, split=split, progress=False)
    assert kept(run, "test") == []


@pytest.mark.parametrize(
    "content",
    [b"", b"PK", b"not an archive" * 99, None, "compressed", "pickled", "short", "labels"],
    ids=["empty", "cut", "text", "torn", "compressed", "pickled", "too few labels", "labels out of range"],
)
def test_corrupt_predictions_are_reported_and_made_again(
    run: Path, content: bytes | str | None, caplog: pytest.LogCaptureFixture
) -> None:
    expected = evaluate(run, progress=False)
    [path] = kept(run)
    whole = path.read_bytes()
    arrays = dict(np.load(path))
    if isinstance(content, bytes):
        path.write_bytes(content)
    elif content is None:
        path.write_bytes(whole[: len(whole) // 2])
    elif content == "compressed":
        np.savez_compressed(path, **arrays)
    elif content == "pickled":
        np.savez(path, **(arrays | {"labels": arrays["labels"].astype(object)}))
    elif content == "short":
        np.savez(path, **(arrays | {"labels": arrays["labels"][:-1]}))
    else:
        np.savez(path, **(arrays | {"labels": arrays["labels"] + 1}))
    with pytest.raises(CnnkitError, match=r"predictions-test-.*: corrupt \("):
        read_predictions(path)
    assert evaluation_of(run, progress=False).confusion.tolist() == expected.confusion.tolist()
    assert "corrupt" in caplog.text
    assert read_predictions(path).labels.tolist() == expected.predictions.labels.tolist()


def test_files_that_are_not_of_predictions_are_corrupt(run: Path) -> None:
    evaluate(run, progress=False)
    [path] = kept(run)
    whole, arrays = path.read_bytes(), dict(np.load(path))
    facts = json.loads(arrays["facts"].tobytes())

    def altered(**changes: object) -> None:
        text = np.frombuffer(json.dumps(facts | changes).encode(), np.uint8)
        np.savez(path, **(arrays | {"facts": text}))

    def with_member(content: bytes) -> None:
        with zipfile.ZipFile(path, "w") as archive:
            for name in ("logits", "labels", "facts"):
                archive.writestr(f"{name}.npy", content)

    encrypted = bytearray(whole)
    encrypted[whole.index(b"PK\x01\x02") + 8] |= 1
    huge = io.BytesIO()
    np.lib.format.write_array_header_1_0(huge, {"descr": "<f4", "fortran_order": False, "shape": (2**50, 2)})
    for spoil in (
        lambda: with_member(b"text"),
        lambda: with_member(huge.getvalue()),
        lambda: np.savez(path, **(arrays | {"labels": arrays["labels"][0]})),
        lambda: path.write_bytes(encrypted),
        lambda: altered(seconds=0.0),
        lambda: altered(data_sha256="**/x"),
    ):
        spoil()
        assert path.read_bytes() != whole
        with pytest.raises(CnnkitError, match="corrupt"):
            read_predictions(path)


def test_another_bundle_in_a_run_folder_is_not_the_run(run: Path) -> None:
    shutil.copytree(run / "best", run / "old")
    assert evaluate(run / "old", progress=False).num_images == 360
    assert kept(run) == []
    assert not (run / "test.json").exists()


def test_each_process_has_the_device_of_its_rank(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    chosen: list[tuple[object, ...]] = []

    def pick(*arguments: object) -> torch.device:
        chosen.append(arguments)
        return torch.device("cpu")

    monkeypatch.setattr("cnnkit.experiment.evaluating.pick_device", pick)
    evaluate(run, progress=False, world=World(local_rank=3))
    assert chosen == [("auto", 3)]


class Failing(World):
    """A process group whose other process cannot read an image."""

    def all_gather(self, value: Any) -> list[Any]:
        self.gathered.append(value)
        return [value, DataError("photo.png: truncated")]

    gathered: ClassVar[list[Any]] = []


def test_error_in_one_process_is_raised_in_all(run: Path) -> None:
    with pytest.raises(DataError, match=r"photo\.png: truncated"):
        evaluate(run, progress=False, world=Failing(size=2))
    model = cnnkit.load(run)
    with torch.no_grad():
        model.net[-1].weight.fill_(1e38)
    with pytest.raises(CnnkitError, match="the network returns"):
        evaluate(model, progress=False, world=Failing(size=2))
    assert [isinstance(one, CnnkitError) for one in Failing.gathered] == [False, True], "the others are told"


def test_run_without_test_images_is_judged_by_its_validation_images() -> None:
    noise_photos(Path("photos/train"), 8)
    noise_photos(Path("photos/val"), 4)
    run = cnnkit.fit("lenet", "photos", image_size=28, **QUICK)
    with pytest.raises(DataError, match=r"photos has no test images.*--split validation"):
        evaluate(run, progress=False)
    found = evaluation_of(run, progress=False)
    assert found.predictions.split == "validation"
    assert found.remarks[0].endswith("has no test images: these are the validation images")
    assert evaluation_of(run, progress=False).num_images == found.num_images, "from the kept predictions"


def test_network_that_returns_nan_is_reported_with_the_image(run: Path, cli: Cli) -> None:
    model = cnnkit.load(run)
    with torch.no_grad():
        model.net[-1].weight.fill_(1e38)
    cnnkit.deploy.save_bundle(run / "best", model.net, model.bundle)
    shutil.copy(run / "split.json", run / "best/split.json")
    one_line(cli("evaluate", run), 1, "the network returns", "image 0", "overflow")
    assert kept(run) == []


def test_classes_are_matched_by_name(run: Path, cli: Cli) -> None:
    for number, (image, label) in enumerate(zip(DIGITS.train.images[:60], DIGITS.train.labels[:60], strict=True)):
        folder = Path("copies", {0: "zero"}.get(int(label), str(int(label))))
        folder.mkdir(parents=True, exist_ok=True)
        cnnkit.data.write_image(folder / f"{number}.png", image)
    words = ("it has classes that the network does not know: zero", "it has no images of 0", "--allow-class-mismatch")
    one_line(cli("evaluate", run, "--data", "copies"), 3, *words)
    found = json.loads(cli("evaluate", run, "--data", "copies", "--allow-class-mismatch", "--json").out)
    assert found["images"] == int((DIGITS.train.labels[:60] > 0).sum())
    assert "skipping classes that the network does not know: zero" in found["remarks"]


def test_images_behind_predictions_are_read_or_none() -> None:
    shape_photos(Path("photos"), 20)
    run = cnnkit.fit("lenet", "photos", image_size=28, **QUICK)
    found = evaluate(run, progress=False).predictions
    first, second, third = images_of(run, found, [2, 0, 1], 48)
    assert first is not None
    pixels = cnnkit.data.read_image(Path("photos", found.names[2]), 3)
    fitted = fitted_size(*pixels.shape[1:], (48, 48))
    assert first.shape == (*fitted, 3), "without padding"
    small = cnnkit.data.resize_with_pad(pixels[None], fitted)[0].permute(1, 2, 0).numpy()
    assert np.abs(first.astype(float) - small).mean() < 3
    assert second is not None
    assert third is not None
    assert not np.array_equal(second, third)
    Path("photos", found.names[0]).unlink()
    assert [image is None for image in images_of(run, found, [2, 0, 1], 48)] == [False, True, False]
    shutil.rmtree("photos")
    assert images_of(run, found, [0, 1], 48) == [None, None]


def test_images_of_data_without_files_are_found_by_row(run: Path) -> None:
    found = evaluate(run, split="validation", progress=False).predictions
    record = json.loads((run / "split.json").read_text())
    [image] = images_of(run, found, [5], 96)
    assert image is not None
    assert image[..., 0].tolist() == DIGITS.train.images[record["validation"][5], 0].tolist()


def test_images_of_other_data_are_not_shown_behind_predictions() -> None:
    images, labels = DIGITS.train.images[:400, 0].numpy(), DIGITS.train.labels[:400].numpy()
    run = cnnkit.fit("lenet", (images, labels), **QUICK)
    found = run.evaluate().predictions
    assert images_of(run, found, [0], 8)[0] is not None
    other = Run(run.path, Given(data=(255 - images, labels)))
    assert images_of(other, found, [0], 8) == [None]
