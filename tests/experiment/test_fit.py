"""Training from Python: networks, data, results, and the same run as the command line."""

import inspect
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from torch import nn

import cnnkit
from cnnkit.core.errors import DataError, UsageError
from cnnkit.experiment import Run, RunConfig
from cnnkit.train import Callback
from helpers.cli import Cli
from helpers.fit import QUICK, figures

DIGITS = cnnkit.data.load_dataset("digits")


IMAGES, LABELS = DIGITS.train.images[:, 0].numpy(), DIGITS.train.labels.numpy()  # N x H x W, uint8


class Numbers(torch.utils.data.Dataset):
    """A data set of one's own, which gives what it is told to make of an image."""

    def __init__(self, make: Callable[[np.ndarray], Any] = Image.fromarray, labels: np.ndarray = LABELS):
        self.make, self.labels = make, labels

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, number: int) -> tuple[Any, Any]:
        return self.make(IMAGES[number]), self.labels[number]


def small_net(classes: int = 10, channels: int = 1) -> nn.Module:
    torch.manual_seed(3)
    return nn.Sequential(nn.Conv2d(channels, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, classes))


def files(root: Path, count: int = 30) -> list[tuple[str, str]]:
    """Write digits as PNG files, and return their paths and names."""
    root.mkdir()
    rows = []
    for number in range(count):
        path = root / f"{number:03}.png"
        Image.fromarray(IMAGES[number]).save(path)
        rows.append((str(path), "even" if LABELS[number] % 2 == 0 else "odd"))
    return rows


def weights(run: Run) -> dict[str, torch.Tensor]:
    return run.model.net.state_dict()


def test_fit_equals_the_command_line_run(cli: Cli) -> None:
    run = cnnkit.fit("lenet", output="python", **QUICK)
    flags = [word for name, value in QUICK.items() for word in (f"--{name.replace('_', '-')}", value)]
    assert cli("train", "lenet", "--output", "shell", *flags).code == 0
    other = Run("shell/lenet-digits-1")
    assert figures(run) == figures(other)
    assert all(weights(run)[name].equal(value) for name, value in weights(other).items())
    for name in ("config.toml", "split.json", "plan.json"):
        assert (run.path / name).read_text() == (other.path / name).read_text(), name
    assert {path.name for path in run.path.iterdir()} == {path.name for path in other.path.iterdir()}


def test_fit_returns_the_run(capsys: pytest.CaptureFixture[str]) -> None:
    run = cnnkit.fit("lenet", progress=False, **QUICK)
    assert capsys.readouterr() == ("", "")
    assert run.config.epochs == 2
    assert isinstance(run.config, RunConfig)
    assert len(run.history) == 2
    assert run.history[1]["epoch"] == 2
    assert [row["epoch"] for row in run.history] == run.history["epoch"] == run.history.columns()["epoch"] == [1, 2]
    assert list(run.history.to_pandas()["val_loss"]) == run.history["val_loss"]
    with pytest.raises(UsageError, match="unknown column 'val_los'; did you mean 'val_loss'"):
        run.history["val_los"]
    best = run.history.best
    assert best is not None
    text = repr(run)
    for words in ("lenet on digits", "2 of 2 epochs", f"{best['val_accuracy']:.4f}", str(run.path)):
        assert words in text
    assert "\n" not in text
    page = run._repr_html_()
    assert "<svg" in page
    assert "batch_size" not in page, "64 is the default"
    assert "engine torch" in page
    assert run.history.plot("loss", "lr")._repr_html_().count("</svg>") == 1
    with pytest.raises(UsageError, match="unknown metric 'los'"):
        run.history.plot("los")
    report = run.evaluate()
    assert report.num_images == 360
    assert (
        report.accuracy == report.to_dict()["accuracy"] == json.loads((run.path / "test.json").read_text())["accuracy"]
    )
    assert report.confusion.sum() == 360
    assert [row["class"] for row in report.per_class] == list("0123456789")
    assert f"accuracy {report.scores.accuracy}" in repr(report)
    assert report._repr_html_().count("<tr>") == 38
    for model in (run, run.path, str(run.path), run.model):
        assert cnnkit.evaluate(model).accuracy == report.accuracy
    assert len(cnnkit.fit(resume=run, epochs=3, progress=False).history) == 3


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("N x H x W", lambda: (IMAGES, LABELS)),
        ("N x H x W x C", lambda: (IMAGES[..., None], LABELS)),
        ("floats", lambda: (IMAGES / 255, LABELS.astype(float))),
        ("tensors", lambda: (torch.from_numpy(IMAGES)[:, None], torch.from_numpy(LABELS))),
        ("tensors of floats", lambda: (torch.from_numpy(IMAGES)[:, None] / 255, torch.from_numpy(LABELS)[:, None])),
        ("double", lambda: ((torch.from_numpy(IMAGES)[:, None] / 255).double(), torch.from_numpy(LABELS).int())),
        ("read only", lambda: (np.frombuffer(IMAGES.tobytes(), np.uint8).reshape(IMAGES.shape), LABELS)),
        ("names", lambda: [IMAGES, [str(label) for label in LABELS]]),
    ],
)
def test_arrays_and_tensors_give_the_same_run(name: str, make: Callable[[], Any]) -> None:
    run = cnnkit.fit("lenet", make(), **QUICK)
    expected = cnnkit.fit("lenet", (IMAGES, LABELS), **QUICK)
    assert run.model.classes == tuple("0123456789")
    assert figures(run) == figures(expected)
    assert run.evaluate().num_images == sum(round(0.1 * n) for n in np.bincount(LABELS))


@pytest.mark.parametrize(
    "make",
    [Image.fromarray, lambda image: image, lambda image: torch.from_numpy(image)[None] / 255, lambda i: i[..., None]],
    ids=["PIL", "array", "tensor", "H x W x C"],
)
def test_custom_dataset_trains_like_its_arrays(make: Callable[[np.ndarray], Any]) -> None:
    run = cnnkit.fit("lenet", Numbers(make), **QUICK, image_size=28)
    arrays = cnnkit.fit("lenet", (torch.nn.functional.pad(torch.from_numpy(IMAGES)[:, None], (0, 0)), LABELS), **QUICK)
    assert len(run.history) == 2
    assert run.model.classes == arrays.model.classes
    assert run.evaluate().num_images == arrays.evaluate().num_images
    assert run.history[1]["train_accuracy"] == pytest.approx(arrays.history[1]["train_accuracy"], abs=0.1)


def test_custom_module_gets_the_best_weights() -> None:
    net = small_net()
    before = net[3].weight.clone()
    run = cnnkit.fit(net, "digits", **QUICK, lr=0.005)
    assert not net[3].weight.equal(before)
    assert type(net[0]) is nn.Conv2d
    assert run.path.name == "sequential-digits-1"
    with pytest.raises(UsageError, match=r"Sequential:[0-9a-f]{16}, which is not in the zoo: pass the module"):
        cnnkit.load(run.path)
    with pytest.raises(UsageError, match="net is not the module that the run was trained with"):
        cnnkit.load(run.path, net=small_net(channels=3))
    loaded = cnnkit.load(run.path, net=small_net(), device="cpu")
    x = torch.rand(2, 1, 8, 8)
    torch.testing.assert_close(loaded.net(x), net.eval()(x), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(run.model.net(x), net(x), rtol=1e-5, atol=1e-5)
    found = cnnkit.evaluate(run.path, net=small_net())
    assert found.accuracy == run.evaluate().accuracy
    with pytest.raises(UsageError, match="remove net"):
        cnnkit.load(cnnkit.fit("lenet", **QUICK).path, net=small_net())


def test_runs_of_one_module_keep_separate_weights() -> None:
    net = small_net()
    first = cnnkit.fit(net, "digits", **QUICK)
    before = {name: value.clone() for name, value in weights(first).items()}
    second = cnnkit.fit(net, "digits", **(QUICK | {"seed": 1}))
    assert not weights(second)["3.weight"].equal(before["3.weight"])
    again = Run(first.path, first.given)
    for run in (first, again):
        assert all(weights(run)[name].equal(value) for name, value in before.items())
    assert net.training, "its mode is its own"


def test_modules_with_shared_or_extra_tensors_train() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Conv2d(1, 4, 3, padding=1)
            self.all = nn.Sequential(self.body, nn.ReLU(), nn.Flatten(), nn.Linear(256, 10))
            self.mask: torch.Tensor | None = None

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if self.mask is None:
                self.mask = torch.ones(x.shape[1:])
            return self.all(x * self.mask)

    run = cnnkit.fit(Tied(), "digits", **QUICK)
    assert run.evaluate().num_images == 360
    assert cnnkit.load(run, net=Tied()).net.body.weight.equal(weights(run)["body.weight"])

    class Picky(Tied):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            assert x.shape[-1] == 28, "28 pixels"
            return super().forward(x)

    with pytest.raises(UsageError, match="does not accept images of 1 x 8 x 8: 28 pixels"):
        cnnkit.fit(Picky(), "digits", **QUICK)


@pytest.mark.parametrize("norm", ["weight_norm", "spectral_norm"])
def test_parametrized_layers_train_and_save(norm: str) -> None:
    torch.manual_seed(0)
    net = small_net()
    net[3] = getattr(nn.utils.parametrizations, norm)(net[3])
    run = cnnkit.fit(net, "digits", **QUICK, lr=0.005)
    assert run.evaluate().accuracy > 0.5
    assert len(cnnkit.fit(net, resume=run, epochs=3).history) == 3


def test_zoo_run_does_not_resume_with_a_module() -> None:
    run = cnnkit.fit("lenet", **QUICK)
    kept = (run.path / "last.ckpt").read_bytes()
    with pytest.raises(UsageError, match=r"not the module that the run was trained with: .*, not lenet"):
        cnnkit.fit(cnnkit.create("lenet"), resume=run, epochs=3)
    assert (run.path / "last.ckpt").read_bytes() == kept


def test_custom_module_accepts_non_square_images() -> None:
    wide = np.concatenate([IMAGES, IMAGES[:, :, :4]], 2)
    net = nn.Sequential(nn.Conv2d(1, 4, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 10))
    run = cnnkit.fit(net, (wide, LABELS), **QUICK)
    assert run.model.preprocess.image_size == (8, 12)
    resumed = cnnkit.fit(net, (wide, LABELS), resume=run.path, epochs=3)
    assert len(resumed.history) == 3


@pytest.mark.parametrize("kind", ["arrays", "data set", "module", "list"])
def test_run_from_python_objects_resumes_bit_exact(kind: str) -> None:
    def given() -> tuple[Any, Any]:
        data: Any = "digits"
        if kind == "arrays":
            data = (IMAGES, LABELS)
        if kind == "data set":
            data = Numbers()
        if kind == "list":
            data = rows
        return (small_net() if kind == "module" else "lenet"), data

    rows = files(Path("photos"))
    options = QUICK | {"schedule": "constant", "augment": ["crop"], "batch_size": 16}
    net, data = given()
    whole = cnnkit.fit(net, data, output="whole", **(options | {"epochs": 3}))
    net, data = given()
    half = cnnkit.fit(net, data, output="half", **options)
    net, data = given()
    if kind == "list":  # which the run folder keeps
        rest = cnnkit.fit(resume=half.path, epochs=3)
    else:
        named = {"net": net} if isinstance(net, nn.Module) else {}
        rest = cnnkit.fit(data=data if kind != "module" else None, resume=half.path, epochs=3, **named)
    assert figures(rest) == figures(whole)
    assert all(weights(rest)[name].equal(value) for name, value in weights(whole).items())


def test_resume_with_other_data_or_module_is_reported() -> None:
    run = cnnkit.fit("lenet", (IMAGES, LABELS), **QUICK)
    with pytest.raises(UsageError, match=r"passed from Python \(python:arrays\); pass them again"):
        cnnkit.fit(resume=run.path, epochs=3)
    other = IMAGES.copy()
    other[0, 0, 0] ^= 1
    with pytest.raises(DataError, match=r"differs from the data that .* was split from"):
        cnnkit.fit(data=(other, LABELS), resume=run.path, epochs=3)
    with pytest.raises(UsageError, match=r"passed from Python"):
        cnnkit.evaluate(run.path)
    own = cnnkit.fit("lenet", Numbers(), **QUICK)
    with pytest.raises(DataError, match=r"differs from the data that .* was split from"):
        cnnkit.fit(data=Numbers(lambda image: 255 - image), resume=own.path, epochs=3)
    mine = cnnkit.fit(small_net(), (IMAGES, LABELS), **QUICK)
    with pytest.raises(UsageError, match="is not in the zoo: pass it again"):
        cnnkit.fit(data=(IMAGES, LABELS), resume=mine.path, epochs=3)
    with pytest.raises(UsageError, match="net is not the module"):
        cnnkit.fit(small_net(channels=3), (IMAGES, LABELS), resume=mine.path, epochs=3)
    same = cnnkit.fit(data=(IMAGES, LABELS), resume=run, augment=(), batch_size=64, epochs=3)
    assert len(same.history) == 3, "the same settings may be given again"
    with pytest.raises(UsageError, match=r"settings of a resumed run cannot change: remove --lr; only --accumulate, "):
        cnnkit.fit(data=(IMAGES, LABELS), resume=run.path, lr=0.1)


def test_run_is_evaluated_on_its_test_part_or_other_data() -> None:
    run = cnnkit.fit("lenet", (IMAGES, LABELS), **QUICK)
    own = run.evaluate()
    again = cnnkit.evaluate(run.path, (IMAGES, LABELS))
    assert (own.num_images, own.loss) == (again.num_images, again.loss)
    more = cnnkit.evaluate(run.path, (IMAGES[:500], LABELS[:500]))
    assert more.num_images == 500
    with pytest.raises(DataError, match=r"arrays: it has no images of 5, 6, 7 and 2 more.*--allow-class-mismatch"):
        run.evaluate((IMAGES[:500], LABELS[:500] % 5))
    few = run.evaluate((IMAGES[:500], LABELS[:500] % 5), allow_class_mismatch=True)
    assert few.remarks == ("no test images of 5, 6, 7, 8, 9: the metrics skip these classes",)
    assert few.remarks[0] in repr(few)
    with pytest.raises(DataError, match="it has classes that the network does not know: 10; it has no images of 0;"):
        run.evaluate((IMAGES[:500], LABELS[:500] + 1))
    known = run.evaluate((IMAGES[:500], LABELS[:500] + 1), allow_class_mismatch=True)
    assert known.num_images == (LABELS[:500] < 9).sum()
    assert "skipping classes that the network does not know: 10" in known.remarks


def test_validation_and_test_data_may_be_separate() -> None:
    test = DIGITS.test
    assert test is not None
    others = (test.images, test.labels)
    run = cnnkit.fit(
        "lenet",
        (IMAGES[:1000], LABELS[:1000]),
        validation_data=(IMAGES[1000:], LABELS[1000:]),
        test_data=others,
        **QUICK,
    )
    log = (run.path / "log.txt").read_text()
    assert f"1,000 training images, {len(IMAGES) - 1000} validation images" in log
    assert run.evaluate().num_images == 360
    saved = (run.path / "config.toml").read_text()
    assert 'validation_data = "python:arrays"' in saved
    with pytest.raises(DataError, match="validation_data: it has classes that the training data lack: x, y"):
        cnnkit.fit("lenet", (IMAGES, LABELS), validation_data=(IMAGES[:4], list("xyxy")), **QUICK)
    with pytest.raises(DataError, match="test_data has images of 3 channels, the training data of 1"):
        cnnkit.fit("lenet", (IMAGES, LABELS), test_data=(np.stack([IMAGES] * 3, -1), LABELS), **QUICK)
    other = cnnkit.fit("lenet", (IMAGES, LABELS), validation_data=Numbers(), test_data=(IMAGES[:, 1:], LABELS), **QUICK)
    assert other.evaluate().num_images == len(IMAGES), "each is brought to the size that the network sees"


def test_test_data_may_lack_classes_and_files() -> None:
    few = DIGITS.train.labels < 3
    run = cnnkit.fit("lenet", (IMAGES, LABELS), test_data=(IMAGES[few], LABELS[few]), **QUICK)
    report = run.evaluate()
    assert report.num_images == few.sum()
    assert [row["support"] for row in report.per_class][3:] == [0] * 7
    with pytest.raises(DataError, match="has no test images"):  # all of it was trained on
        cnnkit.evaluate(run, (IMAGES, LABELS))
    rows = files(Path("photos"))
    Path("bad.png").write_text("no image")
    other = [*files(Path("others")), ("bad.png", "odd")]
    run = cnnkit.fit("lenet", rows, validation_data=other, on_bad_image="skip", **(QUICK | {"batch_size": 8}))
    assert "bad.png: not an image of a supported format" in (run.path / "log.txt").read_text()


def test_path_objects_are_never_dataset_names() -> None:
    files(Path("digits"))
    with pytest.raises(DataError, match="digits holds 30 images, but no folders of classes"):
        cnnkit.fit("lenet", Path("digits"), **QUICK)
    assert len(cnnkit.fit("lenet", "digits", **QUICK).model.classes) == 10


def test_list_frame_and_csv_give_the_same_run(cli: Cli) -> None:
    rows = files(Path("photos"))
    options = QUICK | {"batch_size": 8}
    run = cnnkit.fit("lenet", rows, **options)
    frame = pd.DataFrame(rows, columns=["path", "label"]).assign(more=1)
    assert figures(cnnkit.fit("lenet", frame, **options)) == figures(run)
    frame.to_csv("labels.csv", index=False)
    assert figures(cnnkit.fit("lenet", "labels.csv", **options)) == figures(run)
    assert run.evaluate().num_images == 4 == cnnkit.evaluate(run.path).num_images
    assert cli("evaluate", run.path, "--json").code == 0
    assert (run.path / "data.csv").read_text().splitlines()[:2] == ["path,label", f"{Path(rows[0][0]).absolute()},even"]


def test_two_processes_train_from_python(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np, cnnkit\n"
        "data = cnnkit.data.load_dataset('digits').train\n"
        "pair = (data.images, data.labels)\n"
        "run = cnnkit.fit('lenet', pair, epochs=1, device='cpu', engine='torch', plan='off')\n"
        "print('images', run.evaluate().num_images)\n"
    )
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("images 142") == 2
    assert done.stdout.count("epoch 1/1") == 1
    one = cnnkit.fit("lenet", (IMAGES, LABELS), epochs=1, device="cpu", engine="torch", plan="off", output="one")
    two = Run("runs/lenet-arrays-1")
    assert two.history[0]["train_loss"] == pytest.approx(one.history[0]["train_loss"], rel=1e-4)


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"epoch": 3}, UsageError, "unknown setting 'epoch'; did you mean 'epochs'"),
        ({"epochs": 0}, UsageError, "epochs must be at least 1, not 0"),
        ({"net": 3}, UsageError, "net must be a name of the zoo or a torch.nn.Module, not int"),
        ({"net": None}, UsageError, "no network given"),
        ({"net": "lenett"}, UsageError, "did you mean 'lenet'"),
        ({"data": 3}, UsageError, "data cannot be int: it must be"),
        ({"data": "fotos"}, UsageError, "unknown data set 'fotos'"),
        ({"data": (IMAGES * 1.0, LABELS)}, DataError, r"images: float64 pixels must be 0 to 1, not 0 to 255"),
        ({"data": (IMAGES / np.nan, LABELS)}, DataError, "pixels must be 0 to 1, not nan"),
        ({"data": (IMAGES.astype(int) + 1, LABELS)}, DataError, "int64 pixels must be 0 to 255, not 1 to 256"),
        ({"data": (IMAGES > 3, LABELS)}, DataError, "pixels must be integers or floats, not bool"),
        ({"data": (IMAGES[0], LABELS)}, DataError, "they must be N x H x W"),
        ({"data": (IMAGES, LABELS[1:])}, DataError, "labels must be one for each of 1,437 images, not 1436"),
        ({"data": (IMAGES, LABELS * 0)}, DataError, "all labels are 0: a classifier needs at least two classes"),
        ({"data": (IMAGES, np.where(LABELS == 3, np.inf, LABELS))}, DataError, "labels must be integers or names"),
        ({"data": ""}, UsageError, "data is empty"),
        ({"data": [("a.png", None)]}, DataError, "row 0 of the list: the label is empty"),
        ({"data": (IMAGES, LABELS + 0.5)}, DataError, "labels must be integers or names, not float64"),
        ({"data": Numbers(lambda image: "no image")}, DataError, "item 0 of the data set: "),
        (
            {"data": Numbers(lambda image: image / 3)},
            DataError,
            r"item 0 of the data set: float64 pixels must be 0 to 1",
        ),
        ({"data": Numbers(lambda image: image[9])}, DataError, "item 0 of the data set cannot be read: IndexError"),
        ({"callbacks": Callback()}, UsageError, "callbacks must be a list, not Callback"),
        ({"callbacks": [Callback]}, UsageError, r"write Callback\(\), not Callback"),
        ({"callbacks": [print]}, UsageError, "has none of the methods on_train_begin, on_step_end, on_epoch_end"),
        ({"net": nn.Sequential(nn.Flatten(), nn.LazyLinear(10))}, UsageError, "lazy layers without weights"),
        ({"data": Numbers(labels=np.arange(0))}, UsageError, "the data set Numbers has no items"),
        ({"data": [3, 4]}, UsageError, "data cannot be list"),
        ({"net": nn.Flatten()}, UsageError, "has no parameters"),
        ({"net": small_net(classes=7)}, UsageError, r"outputs \(2, 7\) for 2 images; .* 10 classes of the data"),
        ({"net": small_net(channels=3)}, UsageError, "does not accept images of 1 x 8 x 8: "),
        ({"net": small_net(), "model_kwargs": {"width": 3}}, UsageError, "apply to networks of the zoo"),
        ({"net": None, "resume": "nowhere"}, UsageError, "nowhere is not a run folder"),
        ({"freeze": "foo"}, UsageError, "freeze: no stage or layer matches 'foo'"),
        ({"stage_lr": {"foo": 0.1}}, UsageError, "stage_lr: no stage or layer matches 'foo'"),
        ({"engine": "lanes", "ema": 0.9}, UsageError, "lanes: unsupported settings: ema=0.9"),
        ({"plan": "nowhere.json"}, UsageError, "plan nowhere.json: cannot be read"),
        ({"data_dir": ".", "data": (IMAGES, LABELS)}, UsageError, "data_dir is only for named data sets"),
    ],
)
def test_bad_input_is_one_clear_error_without_leftovers(given: dict[str, Any], error: type, words: str) -> None:
    given = {"net": "lenet"} | given
    with pytest.raises(error, match=words) as caught:
        cnnkit.fit(**given)
    assert "\n" not in str(caught.value)
    assert not Path("runs").exists()


def test_help_lists_every_setting_with_its_text() -> None:
    text, parameters = inspect.getdoc(cnnkit.fit) or "", inspect.signature(cnnkit.fit).parameters
    for name, field in RunConfig.model_fields.items():
        assert name in parameters, name
        if name not in ("net", "data", "validation_data", "test_data"):
            assert f"\n{name}\n    {' '.join((field.description or '?').split())}" in text, name
            assert parameters[name].default == field.default
    assert not any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters.values())


def test_package_imports_fast_and_lists_its_names() -> None:
    code = (
        "import sys, time; start = time.perf_counter(); import cnnkit; seconds = time.perf_counter() - start\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "assert {'fit', 'load', 'create', 'evaluate', 'lanes', 'explain'} <= set(dir(cnnkit))\n"
        "print(seconds)"
    )
    fastest = min(
        float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)
        for _ in range(3)
    )
    assert fastest < 0.3
