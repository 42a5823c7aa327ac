"""The page of a run's report in a real browser."""

import io
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from cnnkit.report import RunReport, run_report
from helpers.browser import POLICY, chromium, shown

Page = Any
CLASSES = 10


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as started:
        yield started


@pytest.fixture(scope="module")
def report(judged: Path) -> RunReport:
    return run_report(judged / "lenet_bn-digits-2", progress=False)


@pytest.fixture(scope="module")
def content(report: RunReport) -> bytes:
    return report.html().encode()


@pytest.fixture
def page(browser: Any, content: bytes) -> Iterator[Page]:
    with shown(browser, content, viewport={"width": 1200, "height": 900}) as opened:
        yield opened
        assert opened.events == []


def violations(page: Page) -> list[str]:
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-core is not installed").Axe()
    found = axe.run(page).response["violations"]
    return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]


def open_all(page: Page) -> None:
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1200), ("dark", 360)])
def test_accessibility_has_no_violations(browser: Any, content: bytes, scheme: str, width: int) -> None:
    with shown(browser, content, color_scheme=scheme, viewport={"width": width, "height": 800}) as page:
        open_all(page)
        assert violations(page) == []


def test_accessibility_check_finds_faint_text(page: Page) -> None:
    page.evaluate("document.querySelector('h1').style.color = '#eee'")
    assert {one.partition(":")[0] for one in violations(page)} == {"color-contrast"}


def test_structure_is_that_of_a_document(page: Page) -> None:
    headings = page.eval_on_selector_all("h1, h2, h3, h4", "them => them.map(it => Number(it.tagName[1]))")
    assert headings[0] == 1
    assert headings.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(headings))
    for landmark in ("header", "nav", "main", "footer"):
        assert page.locator(f"body > {landmark}").count() == 1
    for link in page.locator("nav a").all():
        assert page.locator(link.get_attribute("href")).count() == 1
    ids = page.eval_on_selector_all("[id]", "them => them.map(it => it.id)")
    assert len(set(ids)) == len(ids)


def test_first_key_reaches_the_content(page: Page) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the content"
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"


def test_a_phone_shows_the_whole_width(browser: Any, content: bytes) -> None:
    with shown(browser, content, viewport={"width": 360, "height": 700}) as page:
        open_all(page)
        assert page.evaluate("document.documentElement.scrollWidth") == 360


def test_cells_open_their_images(page: Page, report: RunReport) -> None:
    cells = [cell for group in report.confusion.groups for cell in group.cells]
    assert len(cells) > CLASSES
    assert sum(cell.count for cell in cells) == len(report.evaluation.predictions)
    links = page.locator(".matrix a")
    assert links.count() == len(cells)
    for link in links.all():
        target = page.locator(link.get_attribute("href"))
        assert not target.is_visible()
        link.focus()
        page.keyboard.press("Enter")
        assert target.is_visible()
        assert page.evaluate("document.activeElement.id") == target.get_attribute("id")
        assert page.evaluate("scrollY") > 0
        _, true, guess = target.get_attribute("id").split("-")
        cell = next(one for one in cells if (one.true, one.predicted) == (int(true), int(guess)))
        tiles = target.locator("[role=img]")
        labels = [tile.get_attribute("aria-label") for tile in tiles.all()]
        assert labels == [image.name for image in cell.images]
        if len(labels) < cell.count:
            assert f"{len(labels)} of {cell.count:,} shown" in target.inner_text()
        target.get_by_role("link").click()
        page.evaluate("for (const part of document.querySelectorAll('details')) part.open = false")


@pytest.mark.parametrize("how", [{"java_script_enabled": False}, {}], ids=["scripts off", "policy"])
def test_cells_open_without_scripts(browser: Any, content: bytes, how: dict[str, Any]) -> None:
    with shown(browser, content, POLICY, **how) as page:
        assert not page.locator(".slider").is_visible()
        assert page.locator("th button").count() == 0
        assert page.locator("#thresholds table").last.is_visible()
        for link in page.locator(".matrix a").all()[:8]:
            target = page.locator(link.get_attribute("href"))
            assert not target.is_visible()
            link.click()
            target.wait_for(state="visible")
            assert target.locator("[role=img]").count()
        group = page.locator(".cells > details").last
        assert group.get_attribute("open") is None
        group.locator("summary").first.click()
        group.locator("details summary").first.click()
        assert group.locator("[role=img]").first.is_visible()
        assert page.events == []


def test_a_link_from_elsewhere_opens_the_cell(browser: Any, content: bytes) -> None:
    with shown(browser, content) as page:
        first = page.locator(".matrix a").first.get_attribute("href")
        page.goto(page.url + first)
        assert page.locator(first).is_visible()


@pytest.mark.parametrize("head", ["class", "precision", "recall", "F1", "ROC-AUC", "images", "predicted"])
def test_classes_are_sorted_by_each_column(page: Page, head: str) -> None:
    table = page.locator("#classes table.sortable")
    column = table.locator("thead th").all_inner_texts().index(head)

    def values() -> list[str]:
        return table.locator("tbody tr").evaluate_all(
            "(rows, column) => rows.map(row => row.cells[column].dataset.value ?? row.cells[column].textContent)",
            column,
        )

    before = values()
    for direction in ("ascending", "descending", "ascending"):
        button = table.get_by_role("button", name=head, exact=True)
        button.focus()
        page.keyboard.press("Enter")
        assert table.locator("thead th").nth(column).get_attribute("aria-sort") == direction
        assert table.locator("[aria-sort]").count() == 1
        assert values() == sorted(before, key=float, reverse=direction == "descending")


def test_slider_says_what_is_answered(page: Page, report: RunReport) -> None:
    slider, output = page.get_by_role("slider"), page.locator("output")
    sentences = report.thresholds.sentences()
    assert output.inner_text() == sentences[0]
    assert f"{len(report.evaluation.predictions):,} of" in sentences[0]
    slider.focus()
    for key, place in (("End", -1), ("ArrowLeft", -2), ("Home", 0), ("ArrowRight", 1)):
        page.keyboard.press(key)
        assert output.inner_text() == sentences[place] == slider.get_attribute("aria-valuetext")
    answered = [one.answered for one in report.thresholds.fine]
    assert answered == sorted(answered, reverse=True)
    assert len(set(sentences)) == len(sentences)


def test_galleries_show_mistakes_and_doubts(page: Page, report: RunReport) -> None:
    tiles = page.locator("#mistakes .tiles figure")
    images = [*report.mistakes.images, *report.uncertain.images]
    assert tiles.count() == len(images) > 20
    for tile, image in zip(tiles.all(), images, strict=True):
        lines = tile.inner_text().split("\n")
        assert lines == [
            image.name,
            f"true: {report.names[image.true]}",
            f"predicted: {report.names[image.predicted]}",
            f"confidence {image.confidence:.3f}",
        ]
        box = tile.locator("[role=img]").bounding_box()
        assert box["width"] == box["height"] > 50
    drawn = page.locator("[role=img].tile-mistakes").evaluate_all(
        "them => them.map(it => getComputedStyle(it).backgroundImage.slice(0, 27))"
    )
    assert set(drawn) == {'url("data:image/webp;base64'}


def test_tiles_show_the_images_they_are_named_by(page: Page, report: RunReport) -> None:
    """Compare each tile's pixels on the screen with the image, which is an enlarged digit."""
    image = report.mistakes.images[0]
    pixels = report.images[image.row]
    tile = page.locator("[role=img].tile-mistakes").first
    tile.scroll_into_view_if_needed()
    factor = tile.bounding_box()["width"] / len(pixels)
    shot = decoded(tile.screenshot())
    middles = [int((place + 0.5) * factor) for place in range(len(pixels))]
    assert abs(shot[middles][:, middles].astype(int) - pixels[..., 0]).max() < 40


def decoded(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(png)).convert("L"))


def test_page_prints(page: Page) -> None:
    printed = page.pdf(format="A4")
    assert printed.startswith(b"%PDF")
    page.emulate_media(media="print")
    assert not page.locator("nav").is_visible()
    assert not page.locator(".slider").is_visible()
    assert page.locator("#summary").is_visible()


def test_plots_have_titles_descriptions_and_tables(page: Page) -> None:
    plots = page.locator("figure.plot")
    assert plots.count() >= 4
    for plot in plots.all():
        drawing = plot.locator("svg[role=img]")
        assert drawing.locator("title").text_content()
        assert len(drawing.locator("desc").text_content()) > 20
        assert plot.locator("table tbody tr").count() > 1


def test_page_is_small(content: bytes) -> None:
    assert 50_000 < len(content) < 2_000_000
    assert b"Left out" not in content
