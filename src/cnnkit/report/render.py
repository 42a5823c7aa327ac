"""The page of a report: one HTML file without any request, readable without scripts."""

from collections.abc import Hashable, Iterable, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from cnnkit import __version__
from cnnkit.core.text import counted, printable
from cnnkit.figures import bar_plot, coverage_plot, line_plot, palette_css, reliability_plot
from cnnkit.report.sections.classes import score_rows
from cnnkit.report.sections.confusion import rows_to_show
from cnnkit.report.sections.parts import Missing
from cnnkit.report.sprites import Budget, Sprites

if TYPE_CHECKING:
    from cnnkit.report.report import RunReport

__all__ = ["MAX_BYTES", "TILE", "notebook", "page"]

Images = dict[Hashable, np.ndarray | None]

MAX_BYTES = 2_000_000  # of a page
MAX_CLASSES, MAX_POINTS = 100, 200  # in the table of classes, in a curve
FEW = 10  # of both in a notebook
LETTERS = 60  # of a name
SHARE = 0.3  # of the bytes left, for each gallery but the last
SMALL_TILE, TILE, LARGE_TILE = 80, 112, 144  # pixels of a feature map or an image of a cell; in a gallery; explained
GALLERIES = ("mistakes", "heat", "uncertain", "maps", "filters", "cells")
CONTENTS = {
    "summary": "Summary",
    "training": "Training",
    "classes": "Classes",
    "confusion": "Confusion matrix",
    "mistakes": "Mistakes and doubts",
    "calibration": "Calibration",
    "thresholds": "Answering only when sure",
    "explanations": "What the network responds to",
    "network": "Network",
    "data": "Data",
    "settings": "Settings and environment",
}


def page(report: "RunReport") -> str:
    """Return the report as an HTML file of at most MAX_BYTES, as far as leaving out images achieves it."""
    folder = files("cnnkit.report") / "page"
    facts = _facts(report, MAX_CLASSES, MAX_POINTS) | {
        "written": f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        "style": (folder / "style.css").read_text("utf-8") + palette_css(),
        "script": (folder / "script.js").read_text("utf-8"),
    }
    text = _render("template.html.j2", facts | {"sheets": dict.fromkeys(GALLERIES), "left_out": []})
    budget = Budget(MAX_BYTES - len(text.encode()))
    sheets = _sheets(report, budget)
    lines = [f"Left out, so that the page has at most {MAX_BYTES / 1e6:g} MB: {line}." for line in budget.left_out]
    return _render("template.html.j2", facts | {"sheets": sheets, "left_out": lines})


def notebook(report: "RunReport") -> str:
    """Return the summary, the classes and the plots as HTML without images and scripts."""
    return _render("notebook.html.j2", _facts(report, FEW, FEW) | {"style": palette_css()})


@cache
def _environment() -> Environment:
    """Return the templates, which make every text printable and escape it."""
    environment = Environment(
        loader=PackageLoader("cnnkit.report", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=lambda value: value if isinstance(value, Markup) else printable(value),
    )
    environment.filters |= {"brief": _brief, "end": _end, "counted": counted}
    environment.tests["missing"] = lambda part: isinstance(part, Missing)
    return environment


def _render(template: str, facts: Mapping[str, Any]) -> str:
    return _environment().get_template(template).render(facts)


def _brief(name: str) -> str:
    """Return a name as one line of at most LETTERS."""
    words = printable(name)
    return words if len(words) <= LETTERS else f"{words[:LETTERS]}…"


def _end(path: str) -> str:
    """Return the end of a path as one line of at most LETTERS."""
    words = printable(path)
    return words if len(words) <= LETTERS else f"…{words[-LETTERS:]}"


def _facts(report: "RunReport", max_classes: int, max_points: int) -> dict[str, Any]:
    """Return what both templates show."""
    return {
        "report": report,
        "names": report.names,
        "contents": CONTENTS,
        "report_plots": _plots(report, max_points),
        "max_classes": max_classes,
        "score_rows": score_rows(report.evaluation.scores),
        "version": __version__,
    }


def _plots(report: "RunReport", max_points: int) -> dict[str, list[str]]:
    curves = []
    if not isinstance(report.training, Missing):
        for panel in report.training.panels(max_points):
            description = f"{panel.title} of the training and the validation images after each epoch."
            curves.append(line_plot(panel, description, name=f"curves-{panel.title.lower()}"))
    reliability = [
        reliability_plot(one.bins, name=f"reliability-{number}", caption=f"Reliability diagram {title}".strip())
        for number, (title, one) in enumerate(report.certainty.columns.items())
    ]
    return {
        "data": _bars(report),
        "training": curves,
        "calibration": reliability,
        "coverage": [coverage_plot(report.thresholds.some(max_points), name="coverage")],
    }


def _bars(report: "RunReport") -> list[str]:
    if isinstance(report.data, Missing) or not report.data.counts:
        return []
    return [bar_plot(report.data.by_class(), "images", name="classes-plot", caption="Images of each class")]


def _sheets(report: "RunReport", budget: Budget) -> dict[str, Sprites | None]:
    """Return the images of each gallery, the most important gallery first; None for one without images."""
    explained, images = report.explanations, report.images
    heat: Images = {}
    maps: Images = {}
    filters: Images = {}
    if not isinstance(explained.heat, Missing):
        for case in explained.heat.cases:
            heat |= {(case.image.row, kind): image for kind, image in zip(("image", "heat"), case.images, strict=True)}
    if not isinstance(explained.maps, Missing):
        for stage in explained.maps.stages:
            maps |= {(stage.name, number): image for number, image in enumerate(stage.images)}
    if not isinstance(explained.filters, Missing):
        filters = dict(enumerate(explained.filters.images))

    def chosen(rows: Iterable[int]) -> Images:
        return {row: images[row] for row in rows if row in images} if report.has_images else {}

    mistakes, uncertain = (chosen(one.row for one in gallery.images) for gallery in (report.mistakes, report.uncertain))
    cells = chosen(rows_to_show(report.confusion, len(images)))
    galleries: dict[str, tuple[str, Images, int, float]] = {
        "mistakes": ("most confident mistakes", mistakes, TILE, SHARE),
        "heat": ("Grad-CAM", heat, LARGE_TILE, SHARE),
        "uncertain": ("least confident correct answers", uncertain, TILE, SHARE),
        "maps": ("feature maps", maps, SMALL_TILE, SHARE),
        "filters": ("filters", filters, SMALL_TILE, SHARE),
        "cells": ("images behind the confusion matrix", cells, SMALL_TILE, 1.0),
    }
    return {key: budget.sprites(f"tile-{key}", *how) for key, how in galleries.items()}
