"""The report on a run: whether its network can be trusted, where it is wrong, and why; as data and as a page."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from cnnkit.core.errors import UsageError
from cnnkit.core.files import atomic_write, write_output
from cnnkit.core.text import to_json, without_passwords
from cnnkit.experiment.evaluating import evaluation_of
from cnnkit.experiment.evaluation import Evaluation
from cnnkit.experiment.images import images_of
from cnnkit.experiment.run import Run
from cnnkit.experiment.split_images import SplitName
from cnnkit.metrics.plain import plain
from cnnkit.report.data_card import DataCard, data_card
from cnnkit.report.render import TILE, notebook, page
from cnnkit.report.sections.certainty import Certainty, Thresholds, certainty, thresholds
from cnnkit.report.sections.classes import ClassTable, class_table
from cnnkit.report.sections.comparison import earlier_run, majority
from cnnkit.report.sections.confusion import Confusion, confusion, rows_to_show
from cnnkit.report.sections.explanations import Explanations, explanations
from cnnkit.report.sections.headline import Headline, headline
from cnnkit.report.sections.judged import Gallery, Judged
from cnnkit.report.sections.network import Network, network
from cnnkit.report.sections.parts import Missing, attempt
from cnnkit.report.sections.settings import Settings, settings
from cnnkit.report.sections.training import Training, training

__all__ = ["RunReport", "report_on", "run_report"]

HTML = "report.html"
MAX_MISTAKES, MAX_UNCERTAIN, MAX_CELL_IMAGES = 36, 18, 600  # images in a gallery; behind the confusion matrix


@dataclass(frozen=True, eq=False)
class RunReport:
    """The sections of a report; Missing stands for those that cannot be shown.

    `images` are those to show by their rows, uint8, H x W x C, None for one that is gone.
    """

    path: Path
    evaluation: Evaluation
    headline: Headline
    classes: ClassTable
    confusion: Confusion
    mistakes: Gallery
    uncertain: Gallery
    certainty: Certainty
    thresholds: Thresholds
    training: Training | Missing
    explanations: Explanations
    network: Network | Missing
    data: DataCard | Missing
    settings: Settings | Missing
    images: dict[int, np.ndarray | None]

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes."""
        return self.evaluation.classes

    @property
    def has_images(self) -> bool:
        """Whether any image can be shown."""
        return any(image is not None for image in self.images.values())

    def html(self) -> str:
        """Return the page: one HTML file of at most 2 MB."""
        return page(self)

    def to_dict(self) -> dict[str, Any]:
        """Return the numbers of all sections as plain data, with the passwords of URLs hidden."""
        parts = ("headline", "mistakes", "uncertain", "certainty", "thresholds", "training", "network", "settings")
        found = {
            "run": str(self.path),
            "evaluation": self.evaluation.to_dict(),
            **{name: plain(getattr(self, name)) for name in parts},
            "explanations": self.explanations.to_dict(),
            "data": self.data.to_dict(),
        }
        return {name: _without_passwords(part) for name, part in found.items()}

    def save(self, output: Path | str | None = None) -> Path:
        """Write report.html, or `output`, and the numbers beside it as JSON; return the path of the page.

        By default into the run folder. Raises UsageError for another suffix and, in the run folder, for another name;
        CnnkitError if a file cannot be written.
        """
        target = self.path / HTML if output is None else Path(output)
        if target.suffix != ".html":
            raise UsageError(f"{target}: a report is an HTML file; choose the suffix .html")
        if target.name != HTML and target.resolve().parent == self.path.resolve():  # its JSON might replace test.json
            raise UsageError(f"{target}: in the run folder a report is called {HTML}; choose another folder")
        write_output(target, self.html().encode())
        atomic_write(target.with_suffix(".json"), to_json(self.to_dict()) + "\n")
        return target

    def __repr__(self) -> str:
        return f"RunReport({self.path.name}: {' '.join(self.headline.sentences)})"

    def _repr_html_(self) -> str:
        return notebook(self)


def run_report(run: Run | str | os.PathLike[str], split: SplitName | None = None, progress: bool = True) -> RunReport:
    """Return the report on a run, by default on its test images or, if it has none, on its validation images.

    Kept predictions are read; the network runs only if there are none of its weights for the split. Nothing is trained.
    Raises UsageError if `run` is not a run folder, and what `cnnkit.evaluate` raises.
    """
    opened = run if isinstance(run, Run) else Run(run)
    return report_on(opened, evaluation_of(opened, split, progress))


def report_on(run: Run, evaluation: Evaluation) -> RunReport:
    """Return the report on an evaluation of a run on its own data."""
    predictions, judged = evaluation.predictions, Judged(evaluation)
    card = attempt(lambda: data_card(run))
    sure = certainty(evaluation, judged)
    found = confusion(evaluation.scores, judged)
    mistakes, uncertain = judged.mistakes(MAX_MISTAKES), judged.uncertain(MAX_UNCERTAIN)
    shown = [image.row for gallery in (mistakes, uncertain) for image in gallery.images]
    rows = list(dict.fromkeys([*shown, *rows_to_show(found, MAX_CELL_IMAGES)]))
    images = images_of(run, predictions, rows, TILE)
    return RunReport(
        run.path,
        evaluation,
        headline(evaluation, sure, found, majority(run.path, card, predictions), earlier_run(run.path, predictions)),
        class_table(evaluation.scores, evaluation.classes),
        found,
        mistakes,
        uncertain,
        sure,
        thresholds(evaluation),
        attempt(lambda: training(run)),
        explanations(run, judged, any(image is not None for image in images)),
        attempt(lambda: network(run.model)),
        card,
        attempt(lambda: settings(run, predictions)),
        dict(zip(rows, images, strict=True)),
    )


def _without_passwords(value: Any) -> Any:
    """Return plain data with the passwords of URLs hidden, as a report may be mailed."""
    if isinstance(value, dict):
        return {name: _without_passwords(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [_without_passwords(one) for one in value]
    return without_passwords(value) if isinstance(value, str) else value
