"""Search spaces: parsed, and checked before the first trial."""

import sys
from pathlib import Path

import optuna
import pytest

from cnnkit.experiment.sweep.space import Choices, Range, parse_space
from helpers.cli import Cli, one_line
from helpers.sweep import LR, search, write

optuna.logging.set_verbosity(optuna.logging.ERROR)


def test_space_is_parsed() -> None:
    space = parse_space(
        {
            "lr": {"low": 1e-4, "high": 0.1, "log": True},
            "batch_size": {"low": 32, "high": 256, "step": 32},
            "momentum": {"low": 0.1, "high": 0.7, "step": 0.2},
            "net": ["lenet", "lenet_bn"],
            "augment": [[], ["flip", "crop"]],
            "stage_lr.head": [1.0, 2.0],
            "model_kwargs": {"dropout": {"low": 0, "high": 0.5}},
        },
        ("stage_lr", "model_kwargs"),
    )
    assert space == {
        "lr": Range(low=1e-4, high=0.1, log=True),
        "batch_size": Range(low=32, high=256, step=32),
        "momentum": Range(low=0.1, high=0.7, step=0.2),
        "net": Choices(("lenet", "lenet_bn")),
        "augment": Choices(([], ["flip", "crop"])),
        "stage_lr.head": Choices((1.0, 2.0)),
        "model_kwargs.dropout": Range(low=0, high=0.5),
    }
    study = optuna.create_study()
    seen: dict[str, set] = {name: set() for name in space}
    for _ in range(60):
        trial = study.ask()
        for name, dimension in space.items():
            value = dimension.suggest(trial, name)
            seen[name].add(tuple(value) if isinstance(value, list) else value)
    assert seen["batch_size"] == set(range(32, 257, 32))
    assert {type(value) for value in seen["batch_size"]} == {int}
    assert {round(value, 9) for value in seen["momentum"]} == {0.1, 0.3, 0.5, 0.7}
    assert seen["augment"] == {(), ("flip", "crop")}
    assert all(1e-4 <= value <= 0.1 for value in seen["lr"])
    assert sum(value < 3e-3 for value in seen["lr"]) > 15, "as many below the geometric mean as above"
    assert {type(value) for value in seen["model_kwargs.dropout"]} == {float}


@pytest.mark.parametrize(
    ("space", "words"),
    [
        ("", ["[space] must be a table of settings"]),
        ("learning_rate = [0.1]", ["unknown setting 'learning_rate'", "lr"]),
        ("optimiser = ['sgd']", ["did you mean 'optimizer'?"]),
        ("optimizer = ['sgd', 'adamm']", ["unknown optimizer 'adamm'", "did you mean 'adam'?"]),
        ("net = ['lenet', 'lenett']", ["unknown network 'lenett'", "did you mean 'lenet'?"]),
        ("augment = [['flip'], ['flap']]", ["'flap'", "did you mean 'flip'?"]),
        ("recipe = ['default', 'bset']", ["did you mean 'best'?"]),
        ("device = ['cpu', 'tpux']", ["unknown device 'tpux'"]),
        ("lr = {low = 0, high = 0.1}", ["lr must be greater than 0, not 0"]),
        ("momentum = {low = 0.5, high = 1.0}", ["momentum must be less than 1, not 1.0"]),
        ("batch_size = {low = 8.0, high = 64.0}", ["batch_size must be an integer"]),
        ("keep = {low = 1.0, high = 3.0}", ["keep must be an integer"]),
        ("optimizer = {low = 1, high = 2}", ["optimizer"]),
        ("lr = {low = 1e-3, hihg = 0.1}", ["[space] lr:", "unknown setting 'hihg'; did you mean 'high'?"]),
        ("lr = {low = 1e-3}", ["[space] lr: high"]),
        ("lr = {low = '1', high = 2}", ["[space] lr: low"]),
        ("lr = {low = 0.1, high = 0.01}", ["low must be below high, not 0.1 and 0.01"]),
        ("clip = {low = 0.0, high = 1.0, log = true}", ["[space] clip: log needs a low above 0"]),
        ("batch_size = {low = 32, high = 250, step = 32}", ["high must be low plus a multiple of step, such as 224"]),
        ("batch_size = {low = 32, high = 64, step = 0.5}", ["step must be an integer"]),
        ("lr = 0.1", ["[space] lr takes a list of choices, or a range", "not 0.1"]),
        ("lr = []", ["[space] lr takes a list of choices"]),
        ("lr = [0.1, 0.1]", ["[space] lr repeats a choice"]),
        ("'stage_lrs.head' = [1.0]", ["unknown table in [space] 'stage_lrs'; did you mean 'stage_lr'?"]),
        ("stage_lr.head = ['much']", ["stage_lr.head must be a number, not 'much'"]),
        ("epochs = [1, 2]", ["epochs: both fixed and in [space] of space.toml"]),
        ("lr = [", ["space.toml: not a TOML file"]),
    ],
)
def test_wrong_space_is_refused_before_the_first_trial(cli: Cli, space: str, words: list[str]) -> None:
    net = [] if space.startswith("net") else ["lenet"]
    one_line(cli("sweep", *net, "-c", write(space, "epochs = 2"), "--trials", 2), 2, *words)
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--lr", "0.1"], 2, ["lr: both fixed and in [space]"]),
        (["--batch-size", "0"], 2, ["batch_size must be an integer from 1 to 2,147,483,647, or auto, not '0'"]),
        (["--timeout", "0"], 2, ["--timeout must be above 0, not 0"]),
        (["--name", "a/b"], 2, ["--name 'a/b' is not a valid folder name"]),
        (["--name", ".."], 2, ["--name '..'"]),
        (["--pruner", "medain"], 2, ["medain"]),
        (["--data", "nowhere"], 2, ["unknown data set 'nowhere'"]),
        (["--data", "no/where"], 3, ["no/where"]),
        (["--pretrained", "--raw-pixels"], 2, ["raw_pixels cannot be combined with pretrained weights"]),
        (["--validation", "0"], 2, ["needs validation images"]),
        (["--storage", "mysql://host/db"], 2, ["--storage takes sqlite:///FILE", "not 'mysql://host/db'"]),
        (["--storage", "sqlite://"], 2, ["--storage takes"]),
        (["--storage", "study.txt"], 2, ["or a file that ends in .journal or .log, not 'study.txt'"]),
    ],
)
def test_error_common_to_all_trials_ends_the_sweep_at_once(
    cli: Cli, arguments: list[str], code: int, words: list[str]
) -> None:
    one_line(cli("sweep", "-c", write(LR), "--trials", 2, *arguments), code, *words)
    assert not Path("runs").exists()


def test_sweep_requires_a_network_and_trials(cli: Cli) -> None:
    one_line(cli("sweep", "-c", write(LR), "--trials", 0), 2, "--trials must be from 1 to 1,000,000, not 0")
    one_line(cli("sweep", "-c", write(LR, "epochs = 1"), "--trials", 1), 2, "no network given", "cnnkit sweep NET")
    assert search(cli, "lenet", "--trials", 1)[0]["state"] == "complete"


def test_missing_optuna_error_says_what_to_install(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    one_line(cli("sweep", "-c", write(LR), "--trials", 1), 1, 'package optuna: pip install "cnnkit[search]"')
