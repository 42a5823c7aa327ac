"""The content of a run's report: headline, comparisons, sections that are missing, files."""

import json
import re
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import cnnkit
from cnnkit.experiment import Run, RunFolder, evaluation_of
from cnnkit.report import RunReport, run_report
from cnnkit.report.report import report_on
from cnnkit.report.sections.parts import Missing
from helpers.cli import Cli, one_line
from helpers.fit import QUICK
from helpers.images import shape_photos

DIGITS = 360  # test images
MAX_NOTEBOOK = 50_000  # bytes


@pytest.fixture(scope="module")
def report(judged: Path) -> RunReport:
    return run_report(judged / "lenet_bn-digits-2", progress=False)


def test_headline_says_how_good_the_network_is(report: RunReport) -> None:
    predictions = report.evaluation.predictions
    correct = int((predictions.logits.argmax(1) == predictions.labels).sum())
    first, second, third, *_ = report.headline.sentences
    assert 0.8 * DIGITS < correct < DIGITS
    low, high = re.fullmatch(
        rf"{correct} of {DIGITS} images are classified correctly: an accuracy of 0\.\d\d, with a 95 % interval from "
        r"(0\.\d\d) to (0\.\d\d)\.",
        first,
    ).groups()
    assert float(low) < correct / DIGITS < float(high) < float(low) + 0.1
    assert re.fullmatch(
        r"Always answering \d, the most frequent class of the training images, would have an accuracy of 0\.\d\d\.",
        second,
    )
    assert third.startswith("The run before, lenet_bn-digits-1, has an accuracy of 0.")
    assert report.headline.split == "test"


def test_majority_is_the_most_frequent_class_of_the_training_images(report: RunReport) -> None:
    counts = report.data.counts["train"]
    best = counts.index(max(counts))
    labels = report.evaluation.predictions.labels
    assert report.headline.majority.name == str(best)
    assert report.headline.majority.correct == int((labels == best).sum())


def test_comparison_counts_the_images_that_one_run_gets_right(judged: Path, report: RunReport) -> None:
    first, second = (evaluation_of(judged / f"lenet_bn-digits-{number}").predictions for number in (1, 2))
    before, now = (one.predicted == one.labels for one in (first, second))
    earlier = report.headline.earlier
    assert earlier.name == "lenet_bn-digits-1"
    assert earlier.correct == before.sum()
    assert earlier.gained == (now & ~before).sum() > 0
    assert earlier.lost == (before & ~now).sum()
    assert earlier.correct + earlier.gained - earlier.lost == report.headline.correct


def test_first_run_is_compared_with_none(judged: Path) -> None:
    assert run_report(judged / "lenet_bn-digits-1", progress=False).headline.earlier is None


def test_other_data_are_not_compared(run: Path) -> None:
    for kept in (run.parent / "lenet_bn-digits-1").glob("predictions-*.npz"):
        kept.write_bytes(b"corrupt")
    assert run_report(run, progress=False).headline.earlier is None


def test_predictions_of_earlier_weights_are_not_compared(run: Path) -> None:
    config = run.parent / "lenet_bn-digits-1/best/config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | {"model_sha256": "0" * 64}))
    assert run_report(run, progress=False).headline.earlier is None


def test_frequent_mistake_and_weakest_class_are_named(report: RunReport) -> None:
    matrix = report.evaluation.scores.confusion.copy()
    recall = matrix.diagonal() / matrix.sum(1)
    np.fill_diagonal(matrix, 0)
    true, guess = np.unravel_index(matrix.argmax(), matrix.shape)
    words = " ".join(report.headline.sentences)
    assert f"{true} predicted as {guess}, {matrix.max()} of" in words
    assert f"The weakest class: {recall.argmin()}, of whose images {100 * recall.min():.0f} %" in words


@pytest.mark.parametrize(("scale", "words"), [(8.0, "too high"), (0.2, "too low")])
def test_confidence_that_is_not_accuracy_is_named(run: Path, scale: float, words: str) -> None:
    evaluation = evaluation_of(run)
    predictions = replace(evaluation.predictions, logits=evaluation.predictions.logits * np.float32(scale))
    report = report_on(Run(run), replace(evaluation, predictions=predictions, temperature=1.0))
    assert f"Its confidence is {words}" in report.certainty.sentence
    assert report.certainty.sentence in report.headline.sentences


def test_no_class_is_the_weakest_if_all_are_right(run: Path) -> None:
    evaluation = evaluation_of(run)
    labels = evaluation.predictions.labels
    right = replace(evaluation.predictions, logits=20 * np.eye(10, dtype=np.float32)[labels])
    sentences = report_on(Run(run), replace(evaluation, predictions=right)).headline.sentences
    assert not any("weakest" in sentence for sentence in sentences), sentences


def test_temperature_is_compared_with_none(run: Path) -> None:
    report = report_on(Run(run), replace(evaluation_of(run), temperature=2.0))
    assert report.certainty.before.ece != report.certainty.after.ece
    content = report.html()
    assert "divided by the temperature 2 (" in content
    assert "without temperature" in content
    assert content.count("Reliability diagram w") >= 2


def test_galleries_are_sorted_by_confidence(report: RunReport) -> None:
    mistakes = [one.confidence for one in report.mistakes.images]
    doubts = [one.confidence for one in report.uncertain.images]
    assert mistakes == sorted(mistakes, reverse=True)
    assert doubts == sorted(doubts)
    assert all(one.true != one.predicted for one in report.mistakes.images)
    assert all(one.true == one.predicted for one in report.uncertain.images)
    assert report.mistakes.total + report.uncertain.total == DIGITS


def test_saved_files_have_the_page_and_its_numbers(run: Path) -> None:
    report = run_report(run, progress=False)
    path = report.save()
    assert path == run / "report.html"
    content = path.read_text()
    found = json.loads((run / "report.json").read_text())
    assert content.startswith("<!doctype html>\n")
    assert found["headline"]["accuracy"]["value"] == report.evaluation.accuracy
    assert found["evaluation"]["images"] == DIGITS
    assert [one["count"] for one in found["certainty"]["after"]["bins"]] == [
        one.count for one in report.evaluation.calibration.bins
    ]
    assert len(found["thresholds"]["fine"]) == 100
    assert found["network"]["params"] == sum(weight.numel() for weight in Run(run).model.net.parameters())
    assert found["settings"]["changed"]["net"] == "lenet_bn"
    assert found["data"]["images"]["test"] == DIGITS
    assert found["explanations"]["heat"]["cases"][0]["method"] == "gradcam"
    assert "images" not in found


def test_stages_are_those_of_the_network(run: Path, report: RunReport) -> None:
    net = Run(run).model.net
    assert [row[0] for row in report.network.rows()] == [name for name, _ in net.named_children()]
    assert sum(stage.params for stage in report.network.stages) == report.network.params
    assert report.network.rows()[-1][-1] == "whole image"


def test_nothing_is_trained_and_kept_predictions_are_read(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"}
    monkeypatch.setattr("cnnkit.experiment.evaluating.evaluate", None)
    run_report(run, progress=False).save()
    after = {path: path.read_bytes() for path in run.rglob("*") if path.is_file() and path.suffix != ".lock"}
    assert {path.name for path in after.keys() - before.keys()} <= {"report.html", "report.json"}
    assert {path: after[path] for path in before} == before


def test_predictions_are_made_if_none_are_kept(run: Path) -> None:
    for kept in run.glob("predictions-*.npz"):
        kept.unlink()
    assert run_report(run, progress=False).headline.images == DIGITS
    assert len(list(run.glob("predictions-test-*.npz"))) == 1


def test_split_can_be_chosen(run: Path) -> None:
    report = run_report(run, "validation", progress=False)
    assert report.headline.split == "validation"
    assert any("validation images" in remark for remark in report.headline.remarks)
    assert report.headline.remarks[0] in report.html()


def test_without_captum_the_rest_is_shown(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "captum"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "captum", None)
    report = run_report(run, progress=False)
    assert isinstance(report.explanations.heat, Missing)
    content = report.html()
    assert "pip install &#34;cnnkit[explain]&#34;" in content
    assert "conv1, map 1" in content
    assert "filter 1" in content


def test_deleted_images_are_named() -> None:
    shape_photos(Path("photos"), 20)
    made = cnnkit.fit("lenet", data="photos", **QUICK, progress=False)
    made.evaluate(progress=False)
    whole = run_report(made, progress=False)
    assert len(whole.images) == 6
    row, name = next((image.row, image.name) for image in (*whole.mistakes.images, *whole.uncertain.images))
    Path("photos", name).unlink()
    partly = run_report(made, progress=False)
    assert [key for key, image in partly.images.items() if image is None] == [row]
    tiles = [re.findall(r'class="tile-(?:mistakes|uncertain|cells)"', one.html()) for one in (whole, partly)]
    assert len(tiles[0]) == len(tiles[1]) == 12  # each in a gallery and in a cell
    shutil.rmtree("photos")
    report = run_report(made, progress=False)
    assert not report.has_images
    content = report.html()
    assert "The images cannot be read any more" in content
    assert all(image.name in content for image in whole.mistakes.images)
    assert report.headline.accuracy == whole.headline.accuracy


def test_missing_metrics_and_environment_are_said(run: Path) -> None:
    for name in ("metrics.jsonl", "environment.json", "plan.json"):
        (run / name).unlink(missing_ok=True)
    report = run_report(run, progress=False)
    assert isinstance(report.training, Missing)
    content = report.html()
    assert "metrics.jsonl has no finished epoch" in content
    assert "Environment: nothing is recorded." in content


def test_passwords_stay_in_the_run(run: Path) -> None:
    folder = RunFolder(run)
    folder.write_settings(folder.settings() | {"test_data": "https://me:hush@host/x-000.tar"})
    path = run_report(run, progress=False).save()
    for file in (path, path.with_suffix(".json")):
        content = file.read_text()
        assert "https://me:***@host/x-000.tar" in content
        assert "hush" not in content


def test_notebook_shows_it_without_scripts_and_images(report: RunReport) -> None:
    content = report._repr_html_()
    assert 5_000 < len(content.encode()) < MAX_NOTEBOOK
    assert "<script" not in content
    assert "data:image" not in content
    for sentence in report.headline.sentences:
        assert sentence in content
    assert content.count("<svg viewBox") >= 4
    assert "lenet_bn-digits-2" in repr(report)


def test_notebook_is_small_for_a_long_run_on_many_classes(run: Path) -> None:
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    lines = [json.dumps(rows[0] | {"epoch": epoch, "train_loss": 1 / epoch}) for epoch in range(1, 1001)]
    (run / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    evaluation = evaluation_of(run)
    draw = np.random.default_rng(0)
    logits = draw.standard_normal((1000, 200), np.float32)
    names = tuple(f"{number} {'&' * 250}" for number in range(200))
    predictions = replace(evaluation.predictions, logits=logits, labels=draw.integers(0, 200, 1000), classes=names)
    report = report_on(Run(run), replace(evaluation, predictions=predictions))
    assert len(report._repr_html_().encode()) < MAX_NOTEBOOK
    assert len(report.html().encode()) < 2_000_000


def test_command_prints_the_headline(cli: Cli, run: Path) -> None:
    done = cli("report", run)
    assert (done.code, done.err) == (0, "")
    *sentences, last = done.out.splitlines()
    assert len(sentences) >= 5
    assert re.fullmatch(rf"{run}/report\.html: 0\.\d\d MB", last)
    other = cli("report", run, "--output", "mine.html", "--split", "validation", "--json")
    assert json.loads(other.out)["headline"]["split"] == "validation"
    assert Path("mine.html").exists()
    assert Path("mine.json").exists()


def test_unusable_arguments_are_refused(cli: Cli, run: Path) -> None:
    one_line(cli("report", run / "best"), 2, "is not a run folder")
    one_line(cli("report", "nowhere"), 2, "nowhere")
    one_line(cli("report", run, "--output", "page.pdf"), 2, "page.pdf", ".html")
    one_line(cli("report", run, "--output", run / "test.html"), 2, "test.html", "report.html")
    one_line(cli("report", run, "--output", "no/such/page.html"), 1, "cannot write")
    shutil.rmtree(run / "best")
    one_line(cli("report", run), 2, "no finished epoch")
