"""Reports on classes with hostile names, on many classes and on few images."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import cnnkit
from cnnkit.experiment import Evaluation, Run
from cnnkit.report import run_report
from cnnkit.report.report import report_on
from helpers.browser import POLICY, chromium, shown
from helpers.fit import QUICK
from helpers.images import save_noise

HOSTILE = (
    "<img src=x onerror=alert(1)>",
    "'\"><script>alert(2)<",
    "\u202egnp.exe\nnew line \x1b[31m",
    "\u05e9\u05dc\u05d5\u05dd \u0645\u0631\u062d\u0628\u0627",
    "w" * 200,
    "{{ 7 * 7 }} {% raw %} </style>".replace("/", "\u2044"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on classes of these names, with files of such names."""
    folder = tmp_path_factory.mktemp("hostile")
    for name in HOSTILE:
        for number in range(12):
            save_noise(folder / "photos" / name / f"{number} <b>&amp;.png", size=(28, 28), mode="L")
    how = QUICK | {"epochs": 1, "progress": False, "output": folder / "runs"}
    return cnnkit.fit("lenet", data=folder / "photos", test=0.3, **how).path


@pytest.mark.parametrize("policy", ["", POLICY], ids=["scripts on", "policy"])
def test_names_stay_text(browser: Any, hostile: Path, policy: str) -> None:
    content = run_report(hostile, progress=False).html()
    assert "\x1b" not in content
    assert "\u202e" not in content
    with shown(browser, content.encode(), policy) as page:
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        assert page.locator("img, b, iframe").count() == 0
        assert page.locator("script").count() == 2
        text = page.locator("#classes table").first.inner_text()
        assert "<img src=x onerror=alert(1)>" in text
        assert "'\"><script>alert(2)<" in text
        assert "\\u202egnp.exe\\nnew line \\x1b[31m" in text
        assert HOSTILE[3] in text
        assert "{{ 7 * 7 }} {% raw %}" in text
        assert f"{'w' * 60}\u2026" in text
        assert page.locator("#classes bdi").count() >= len(HOSTILE)
        assert page.locator("#mistakes figcaption").first.inner_text().partition("\n")[0].endswith(" <b>&amp;.png")
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.events == []


def test_accessibility_has_no_violations_with_such_names(browser: Any, hostile: Path) -> None:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    with shown(browser, run_report(hostile, progress=False).html().encode()) as page:
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
        assert [one["id"] for one in axe.run(page).response["violations"]] == []


def made_up(run: Path, classes: int, images: int, seed: int = 0) -> Evaluation:
    """Return an evaluation of so many images, most of which are right, as if the run's network had so many classes."""
    draw = np.random.default_rng(seed)
    labels = draw.integers(0, classes, images)
    logits = draw.standard_normal((images, classes), np.float32)
    logits[np.arange(images), labels] += 3
    predictions = Run(run).evaluate(progress=False).predictions
    names = tuple(f"class {number} {'x' * 250}" for number in range(classes))
    return Evaluation(replace(predictions, classes=names, logits=logits, labels=labels))


def test_many_classes_stay_below_the_cap(browser: Any, run: Path) -> None:
    report = report_on(Run(run), made_up(run, 10_000, 2_000))
    content = report.html().encode()
    assert len(content) < 2_000_000
    with shown(browser, content) as page:
        assert page.locator(".matrix").count() == 0
        pairs = page.locator("#confusion table.sortable tbody tr")
        assert pairs.count() == 50
        counts = [int(row) for row in pairs.locator("td:nth-child(3)").all_inner_texts()]
        assert counts == sorted(counts, reverse=True)
        wrong = report.evaluation.scores.cells
        assert counts == sorted((wrong[wrong[:, 0] != wrong[:, 1]][:, 2]).tolist(), reverse=True)[:50]
        assert "100 of 10,000 classes with the lowest recall" in " ".join(page.inner_text("#classes").split())
        assert page.locator("#classes table.sortable tbody tr").count() == 100
        for link in pairs.locator("a").all()[:5]:
            link.click()
            assert page.locator(link.get_attribute("href")).is_visible()
        assert page.events == []
    assert len(report.to_dict()["evaluation"]["classes"]) == 10_000


def test_undefined_values_are_sorted_last(browser: Any, run: Path) -> None:
    with shown(browser, report_on(Run(run), made_up(run, 10, 8)).html().encode()) as page:
        cells = page.locator("#classes table.sortable tbody tr > :nth-child(3)")
        undefined = cells.all_inner_texts().count("-")
        assert 1 <= undefined < 10
        for _ in ("ascending", "descending"):
            page.locator("#classes").get_by_role("button", name="recall").click()
            texts = cells.all_inner_texts()
            assert texts[-undefined:] == ["-"] * undefined
            assert "-" not in texts[:-undefined]


def test_thirty_classes_have_a_matrix(run: Path) -> None:
    content = report_on(Run(run), made_up(run, 30, 20_000)).html()
    assert len(content.encode()) < 1_500_000  # so that there is room for images
    assert content.count('class="matrix"') == 1
    assert len(re.findall(r'<td class="s\d+">', content)) == 30 * 30
    assert 'class="matrix"' not in report_on(Run(run), made_up(run, 31, 3_000)).html()


@pytest.mark.parametrize("images", [1, 2])
def test_few_images_are_reported(run: Path, images: int) -> None:
    report = report_on(Run(run), made_up(run, 10, images))
    assert report.headline.images == images
    assert "There are none." in report.html()
    assert None in [one.recall for one in report.classes.rows]
