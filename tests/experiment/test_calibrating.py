"""The temperature of a bundle: fitted when a run ends or on demand, and applied to probabilities."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import cnnkit
from cnnkit.experiment import RunFolder, calibrate, evaluate
from cnnkit.experiment.trained import Trained
from cnnkit.train import Callback, EpochRecord
from helpers.cli import Cli, one_line
from helpers.images import shape_photos

DIGITS = cnnkit.data.load_dataset("digits")
QUICK = {"plan": "off", "progress": False}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    return cnnkit.fit("lenet", "digits", epochs=8, output=tmp_path_factory.mktemp("runs"), **QUICK).path


@pytest.fixture
def run(trained: Path) -> Path:
    return Path(shutil.copytree(trained, Path("runs/lenet-digits-1")))


def temperature(run: Path) -> float:
    return float(json.loads((run / "best/config.json").read_text())["temperature"])


def test_finished_run_has_the_temperature_that_minimises_the_validation_loss(run: Path) -> None:
    fitted = temperature(run)
    assert fitted != 1
    assert f"temperature {fitted:.3f}, fitted on 142 validation images: log loss " in (run / "log.txt").read_text()
    [path] = run.glob("predictions-validation-*.npz")
    predictions = cnnkit.experiment.read_predictions(path)
    logits, labels = torch.from_numpy(predictions.logits).double(), torch.from_numpy(predictions.labels)
    losses = {
        t: torch.nn.functional.cross_entropy(logits / t, labels).item()
        for t in (fitted, 1.0, fitted * 1.01, fitted / 1.01)
    }
    assert min(losses, key=losses.__getitem__) == fitted


def test_predict_divides_by_the_temperature_and_keeps_the_order(run: Path, cli: Cli) -> None:
    model, fitted = cnnkit.load(run), temperature(run)
    images = list(DIGITS.test.images[:20]) if DIGITS.test else []
    cool, plain = model.predict(images), model.predict(images, temperature=False)
    assert cool.logits.equal(plain.logits)
    assert cool.probabilities.numpy() == pytest.approx((plain.logits / fitted).softmax(1).numpy(), abs=1e-6)
    assert plain.probabilities.equal(plain.logits.softmax(1))
    assert [[one["label"] for one in row] for row in cool] == [[one["label"] for one in row] for row in plain]
    cnnkit.data.write_image(Path("x.png"), images[0])
    words = ("predict", run, "x.png", "--json")
    shares = [
        json.loads(cli(*words, *more).out)[0]["predictions"][0]["probability"] for more in ((), ("--no-temperature",))
    ]
    assert shares == pytest.approx([cool[0][0]["score"], plain[0][0]["score"]], rel=1e-4)


def test_order_of_classes_comes_from_the_logits() -> None:
    logits = torch.tensor([[200.0, 201.0, 199.0], [5.0, 5.0, 5.0], [0.0, 90.0, 91.0]])
    found = cnnkit.deploy.Predictions(("a", "b", "c"), ("x", "y", "z"), logits, {}, 0.01)
    assert ["".join(one["label"] for one in row) for row in found] == ["bac", "abc", "cba"]
    assert found.labels == ["b", "a", "c"]


def test_evaluation_applies_the_temperature_unless_told_otherwise(run: Path, cli: Cli) -> None:
    cool, plain = (json.loads(cli("evaluate", run, "--json", *more).out) for more in ((), ("--no-temperature",)))
    assert cool["accuracy"] == plain["accuracy"]
    assert cool["confusion"] == plain["confusion"]
    assert (cool["temperature"], plain["temperature"]) == (temperature(run), 1)
    assert cool["loss"] != plain["loss"]
    model = evaluate(run, temperature=False, progress=False).predictions
    assert plain["loss"] == pytest.approx(
        torch.nn.functional.cross_entropy(torch.from_numpy(model.logits), torch.from_numpy(model.labels)).item(),
        rel=1e-5,
    )


def test_calibrate_stores_what_training_would_have(run: Path, cli: Cli) -> None:
    fitted = temperature(run)
    config = run / "best/config.json"
    content = json.loads(config.read_text())
    for before in ({}, {"temperature": 3.0}):
        config.write_text(json.dumps({key: value for key, value in content.items() if key != "temperature"} | before))
        result = cli("calibrate", run)
        assert result.code == 0, result.err
        assert f"temperature {fitted:.3f}, fitted on 142 validation images" in result.out
        assert json.loads(config.read_text()) == content
    for path in run.glob("predictions-validation-*"):
        path.unlink()
    assert calibrate(run / "best").temperature == pytest.approx(fitted)


def test_run_that_is_training_is_not_calibrated(run: Path, cli: Cli) -> None:
    with RunFolder(run).locked():
        one_line(cli("calibrate", run), 1, "another process is training")


def test_too_few_validation_images_leave_the_temperature_at_1(cli: Cli) -> None:
    shape_photos(Path("photos"), 20)
    run = cnnkit.fit("lenet", "photos", image_size=28, epochs=1, **QUICK)
    words = "temperature 1: only 6 validation images; at least 50 are needed"
    assert words in (run.path / "log.txt").read_text()
    assert temperature(run.path) == 1
    assert words in cli("calibrate", run.path).out


def test_no_validation_images_leave_the_temperature_at_1(cli: Cli) -> None:
    run = cnnkit.fit("lenet", "digits", epochs=1, validation=0, **QUICK)
    assert "temperature 1: no validation images" in (run.path / "log.txt").read_text()
    found = json.loads(cli("calibrate", run.path, "--json").out)
    assert (found["temperature"], found["images"]) == (1, 0)


def test_temperature_follows_the_weights_of_a_resumed_run() -> None:
    run = cnnkit.fit("lenet", "digits", epochs=2, **QUICK)
    first = temperature(run.path)
    more = cnnkit.fit(resume=run, epochs=8, progress=False)
    whole = cnnkit.fit("lenet", "digits", epochs=8, **QUICK)
    assert temperature(more.path) != first
    assert temperature(whole.path) == pytest.approx(calibrate(whole).temperature)


class Ruin(Callback):
    """Makes the best weights overflow, once they are saved."""

    def __init__(self, output: Path):
        self.output = output

    def on_epoch_end(self, record: EpochRecord) -> None:
        del record
        [best] = self.output.glob("*/best")
        model = cnnkit.load(best)
        with torch.no_grad():
            model.net[-1].weight.fill_(1e38)
        cnnkit.deploy.save_bundle(best, model.net, model.bundle)


def test_failure_to_calibrate_does_not_spoil_a_finished_run() -> None:
    run = cnnkit.fit("lenet", "digits", epochs=1, callbacks=[Ruin(Path("runs"))], **QUICK)
    log = (run.path / "log.txt").read_text()
    assert "the temperature was not fitted: the network returns" in log
    assert "finished 1 epoch" in log
    assert temperature(run.path) == 1


def test_lack_of_memory_does_not_spoil_a_finished_run(monkeypatch: pytest.MonkeyPatch) -> None:
    def predict(*arguments: object, **options: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(Trained, "predict", predict)
    run = cnnkit.fit("lenet", "digits", epochs=1, **QUICK)
    assert "the temperature was not fitted: CUDA out of memory" in (run.path / "log.txt").read_text()


def test_network_from_python_is_calibrated() -> None:
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 10))
    run = cnnkit.fit(net, "digits", epochs=3, **QUICK)
    assert "fitted on 142 validation images" in (run.path / "log.txt").read_text()
    assert run.evaluate().temperature == temperature(run.path) != 1
    assert calibrate(run).temperature == pytest.approx(temperature(run.path))


def test_what_is_no_run_is_reported(cli: Cli) -> None:
    one_line(cli("calibrate", "nothing"), 2, "nothing: no such folder")
