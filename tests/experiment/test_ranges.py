"""Absurd settings, plans, splits and saved metrics: one line, and no endless memory or time."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import cnnkit
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.text import from_json, from_toml, to_json
from cnnkit.experiment.run import Run
from cnnkit.train.autotune.plan import read_plan
from helpers.cli import Cli, one_line

DEEP, LONG = "[" * 20_000, "9" * 5_000

TOO_MUCH = {
    "epochs": 10**9,
    "batch-size": 2**31,
    "accumulate": 2**40,
    "lr": 1e300,
    "weight-decay": 1e300,
    "warm-up": 1e300,
    "lr-step": 10**12,
    "lr-power": 1e300,
    "clip": 1e300,
    "mixup": 1e300,
    "cutmix": 1e300,
    "patience": 10**12,
    "max-time": 1e300,
    "skip-nan": 2**70,
    "checkpoint-steps": 2**70,
    "checkpoint-minutes": 1e300,
    "keep": 100_000_000,
    "image-size": 10**9,
    "workers": 10**9,
    "min-images": 2**70,
    "seed": 2**40,
    "validation": 1.5,
    "test": 7,
    "stage-lr.head": 1e300,
    "augment": "crop:1000000000",
    "ema": 2,
}


@pytest.mark.parametrize("name", TOO_MUCH)
def test_settings_have_upper_bounds(cli: Cli, name: str) -> None:
    word = name.replace("-", "_") if name != "augment" else "padding"
    for value in (TOO_MUCH[name], "9" * 4_000):
        if name != "augment" or value == TOO_MUCH[name]:
            one_line(cli("train", "lenet", f"--{name}", value), 2, word)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["train", "vgg11", "--model-kwargs.width", 10**9], "vgg11 with {'width': 1000000000} cannot be built"),
        (["train", "vgg11", "--model-kwargs.width", 20_000], "GiB are free"),
        (["bench", "vgg11", "--model-kwargs.width", 20_000], "GiB are free"),
        (
            ["train", "lenet_bn", "--model-kwargs.decay", 1e300],
            "model_kwargs.decay must be a number from -1e9 to 1e9, true, false or a word, not 1e+300",
        ),
        (["train", "lenet_bn", "--model-kwargs.decay", DEEP], "model_kwargs.decay"),
        (["train", "lenet_bn", "--model-kwargs.decay", "NaN"], "model_kwargs.decay"),
        (["train", "lenet_bn", "--model-kwargs.decay", "9" * 4_000], "model_kwargs.decay"),
        (["train", "alexnet", "--image-size", 8_192], "GiB are free"),
        (["bench", "lenet", "--batch-size", 10**12], "batch_size"),
        (["lr-find", "lenet", "--high", 1e300], "--high"),
        (["lr-find", "lenet", "--steps", 10**12], "--steps"),
        (["anatomy", "lenet", "--input", "1x1000000000x1000000000"], "--input"),
        (["draw", "lenet", "--num-classes", 10**12], "--num-classes"),
        (["filter", "x.png", "--kernel", DEEP], "rows of numbers"),
        (["filter", "x.png", "--kernel", f"[[1{'0' * 400}]]"], "rows of numbers"),
        (["train", "lenet", "--plan", "plan.json"], "plan.json is not a valid plan: nested too deeply"),
        (["train", "-c", "deep.toml"], "deep.toml: not a TOML file (nested too deeply)"),
        (["train", "-c", "long.toml"], "long.toml: not a TOML file (a number has too many digits)"),
        (["train", "-c", "hex.toml"], "hex.toml: not a TOML file (a number has too many digits)"),
        (["train", "-c", "date.toml"], "model_kwargs.decay"),
        (["sweep", "lenet", "-c", "deep.toml", "--trials", 1], "nested too deeply"),
        (["sweep", "lenet", "-c", "long.toml", "--trials", 1], "too many digits"),
        (["sweep", "lenet", "-c", "wide.toml", "--trials", 1], "[space] lr: high"),
        (["sweep", "lenet", "-c", "steps.toml", "--trials", 1], "[space] lr: "),
        (["sweep", "lenet", "-c", "dates.toml", "--trials", 1], "lr must be"),
        (["sweep", "lenet", "-c", "dates.toml", "--trials", 10**9], "--trials"),
    ],
)
def test_oversized_settings_are_one_line(cli: Cli, arguments: list[Any], words: str) -> None:
    Path("plan.json").write_text(DEEP)
    Path("deep.toml").write_text(f"lr = {DEEP}")
    Path("long.toml").write_text(f"epochs = {LONG}")
    Path("hex.toml").write_text(f"epochs = 0x{LONG}")
    Path("date.toml").write_text('net = "lenet_bn"\nmodel_kwargs.decay = 1979-05-27')
    Path("wide.toml").write_text("[space]\nlr = {low = 1.0, high = 1e300}")
    Path("steps.toml").write_text("[space]\nlr = {low = 1.0, high = 1e15, step = 1e-300}")
    Path("dates.toml").write_text("[space]\nlr = [1979-05-27, 1979-05-28]")
    result = cli(*arguments)
    one_line(result, 2, words)
    assert len(result.err) < 8_000


PLANS = [LONG, "[]", '"x"', "null", '{"threads": -1}', '{"threads": 1000000000}', '{"threads": "2"}', '{"compiled": 3}']


@pytest.mark.parametrize("content", [*PLANS, '{"convolutions": {"conv1": ["x", "y", "z"]}}', '{"engine": 1}', "\xff"])
def test_plan_values_are_validated(content: str) -> None:
    Path("plan.json").write_bytes(content.encode("latin-1"))
    with pytest.raises(UsageError, match=r"plan\.json is not a valid plan: ") as caught:
        read_plan(Path("plan.json"))
    assert "\n" not in str(caught.value)


@pytest.fixture
def run(cli: Cli) -> Path:
    assert cli("train", "lenet", "--epochs", 1).code == 0
    return Path("runs/lenet-digits-1")


def spoilt(file: str, content: str | dict[str, Any]) -> Callable[[Path], None]:
    def write(run: Path) -> None:
        place = run / file
        facts = content if isinstance(content, str) else json.dumps(json.loads(place.read_text()) | content)
        place.write_text(facts)

    return write


SPLITS = {
    "deep": DEEP,
    "long": LONG,
    "a list": "[]",
    "parts in words": {"validation": "x"},
    "rows in floats": {"validation": [1.5]},
    "rows below none": {"validation": [-1]},
    "a seed in words": {"split_seed": "x"},
    "digests of one part": {"train": {"a.png": "0"}},
    "digests as numbers": {"train": {"a.png": 0}, "validation": {}, "test": {}},
}


@pytest.mark.parametrize("name", SPLITS)
def test_split_values_are_validated(cli: Cli, run: Path, name: str) -> None:
    for place in ("split.json", "best/split.json"):
        spoilt(place, SPLITS[name])(run)
    one_line(cli("train", "--resume", run), 1, "split.json: corrupt (")
    one_line(cli("evaluate", run), 1, "split.json: corrupt (")


@pytest.mark.parametrize(
    "content", [DEEP, LONG, "[]", "{}", '{"in_channels": 0, "mean": [0], "std": [1], "source": "", "loaded": ""}']
)
def test_initial_weights_record_is_validated(cli: Cli, run: Path, content: str) -> None:
    (run / "start.json").write_text(content)
    one_line(cli("train", "--resume", run, "--epochs", 2), 1, "start.json: corrupt (")


def test_json_output_is_valid_json(cli: Cli, run: Path) -> None:
    """A training that diverged has null in its rows; rows of earlier versions have NaN."""
    rows = run / "metrics.jsonl"
    row = json.loads(rows.read_text()) | {"train_loss": float("nan")}
    rows.write_text(json.dumps(row) + "\n")
    opened = Run(run)
    assert opened.history["train_loss"] == [None]
    assert opened.history.best == row | {"train_loss": None}
    assert repr(opened.history).count(" - ") == 1
    assert repr(opened.history.plot("loss"))
    assert cli("plot", run).code == 0
    shown = cli("runs", "--json")
    assert json.loads(shown.out, parse_constant=pytest.fail)[0]["state"] == "done"
    opened.folder.add_metrics(row)
    assert json.loads(rows.read_text().splitlines()[1], parse_constant=pytest.fail)["train_loss"] is None
    assert to_json({"a": [float("inf"), (1.5, float("nan"))]}, indent=None) == '{"a": [null, [1.5, null]]}'


def test_unprintable_numbers_are_refused() -> None:
    for read in (from_json, lambda text: from_toml(f"a = {text}".encode())):
        with pytest.raises(ValueError, match=r"^a number has too many digits$"):
            read(LONG)
        with pytest.raises(ValueError, match=r"^nested too deeply$"):
            read(DEEP)


def test_unknown_home_is_one_line() -> None:
    with pytest.raises(UsageError, match="~nobody-has-this/run: no such folder"):
        cnnkit.load("~nobody-has-this/run")
    with pytest.raises(CnnkitError, match="~nobody-has-this"):
        cnnkit.fit("lenet", weights="~nobody-has-this/x.pth", progress=False)
