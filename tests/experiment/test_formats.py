"""Files of earlier versions: a run of 0.1.0, written by it, still loads, predicts, is measured and goes on."""

import json
import shutil
from pathlib import Path

import pytest
import torch

import cnnkit
from cnnkit.experiment import Run
from helpers.cli import ROOT, Cli

SAVED = ROOT / "tests" / "fixtures" / "run-0.1.0"  # lenet_bn with norm = "by_hand", two epochs on the digits
EXPECTED = json.loads((SAVED / "expected.json").read_text())


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return shutil.copytree(SAVED, tmp_path / "runs" / "lenet_bn-digits-1")


@pytest.mark.parametrize("place", ["", "best"])
def test_it_predicts_as_it_did(run: Path, place: str) -> None:
    found = cnnkit.load(run / place, device="cpu").predict(ROOT / "examples/digits/1793-is-0.png")
    scores = {row["label"]: row["score"] for row in found[0]}
    assert scores == pytest.approx({row["class"]: row["probability"] for row in EXPECTED["0"]}, abs=1e-5)


def test_it_is_measured_as_it_was(run: Path, cli: Cli) -> None:
    report = cnnkit.evaluate(run, device="cpu")
    assert (report.num_images, report.accuracy) == (EXPECTED["test"]["images"], EXPECTED["test"]["accuracy"])
    assert report.loss == pytest.approx(EXPECTED["test"]["loss"], rel=1e-5)
    assert json.loads(cli("runs", "--json").out)[0]["test_accuracy"] == report.accuracy


def test_it_goes_on_as_it_did(run: Path) -> None:
    assert Run(run).config.model_kwargs == {"norm": "by_hand"}
    resumed = cnnkit.fit(resume=run, epochs=3)
    row = resumed.history[2]
    assert {key: row[key] for key in EXPECTED["epoch 3"]} == pytest.approx(EXPECTED["epoch 3"], rel=1e-3)


def test_its_checkpoint_is_what_it_was(run: Path) -> None:
    state = cnnkit.train.checkpoint.load_checkpoint(run / "last.ckpt")
    assert (state["epoch"], state["step"], state["config"]["optimizer"]) == (3, 0, "sgd")
    best = cnnkit.load(run, device="cpu").net.state_dict()
    assert all(torch.equal(best[name], value) for name, value in state["stepper"]["net"].items())
