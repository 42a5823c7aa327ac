"""Whether the network's confidence can be trusted: calibration, temperature, and answers above a threshold."""

import math
from dataclasses import dataclass

from cnnkit.core.text import counted
from cnnkit.experiment.evaluation import Evaluation
from cnnkit.metrics import Calibration, Coverage, calibration, coverage
from cnnkit.report.sections.judged import Judged

__all__ = ["STEPS", "Certainty", "Thresholds", "certainty", "thresholds"]

STEPS = 100  # of the slider, from a confidence of 0 to just below 1


@dataclass(frozen=True)
class Certainty:
    """The calibration without and with the temperature, and a verdict."""

    temperature: float
    digits: int
    """Digits after the point that the number of images justifies."""
    mean_confidence: float
    before: Calibration
    after: Calibration
    sentence: str
    temperature_sentence: str

    @property
    def columns(self) -> dict[str, Calibration]:
        """The calibrations to compare, by title; one if the temperature is 1."""
        if self.temperature == 1:
            return {"": self.after}
        return {"without temperature": self.before, f"with temperature {self.temperature:.3g}": self.after}

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row for each measure with its values."""
        shown, n = self.columns.values(), self.digits
        return [
            ("expected calibration error (ECE)", *(f"{one.ece:.{n}f}" for one in shown)),
            ("ECE if perfectly calibrated", *(f"{one.band[0]:.{n}f} to {one.band[1]:.{n}f}" for one in shown)),
            ("log loss (nats)", *(f"{one.log_loss:.{n}f}" for one in shown)),
            ("Brier score (0 to 2)", *(f"{one.brier:.{n}f}" for one in shown)),
        ]


@dataclass(frozen=True)
class Thresholds:
    """The answers above each threshold of confidence: few for a table, and STEPS for the slider."""

    few: tuple[Coverage, ...]
    fine: tuple[Coverage, ...]

    def some(self, most: int) -> tuple[Coverage, ...]:
        """Return at most so many of the fine thresholds, evenly spaced, and the last one."""
        step = math.ceil(len(self.fine) / (most - 1))
        return (*self.fine[:-1:step], self.fine[-1])

    def rows(self) -> list[tuple[str, ...]]:
        """Return a row of the table for each threshold."""
        return [
            (
                f"{one.threshold:.2f}",
                f"{one.answered:,}",
                f"{100 * one.share:.1f} %",
                "-" if one.accuracy is None else str(one.accuracy),
            )
            for one in self.few
        ]

    def sentences(self) -> list[str]:
        """Return a sentence for each step of the slider."""
        return [
            f"From {one.threshold:.2f} on, {one.answered:,} of {counted(self.fine[0].answered, 'image')} are answered "
            f"({100 * one.share:.1f} %)" + ("" if one.accuracy is None else f", with an accuracy of {one.accuracy}")
            for one in self.fine
        ]


def certainty(evaluation: Evaluation, judged: Judged) -> Certainty:
    """Return the calibration of an evaluation."""
    after = evaluation.calibration
    predictions, temperature = evaluation.predictions, evaluation.temperature
    before = after if temperature == 1 else calibration(predictions.logits, predictions.labels)
    mean, accuracy = float(judged.confidence.mean()), float(judged.correct.mean())
    digits = evaluation.scores.accuracy.decimals + 1
    most = f"{after.band[1]:.{digits}f}"
    measured = f"ECE {after.ece:.{digits}f}; by chance, a perfectly calibrated network has up to {most}"
    if after.well_calibrated:
        images = counted(after.num_images, "image")
        sentence = f"Nothing in {images} shows that its confidence is wrong ({measured})."
    else:
        too = "high" if mean > accuracy else "low"
        said, found = (f"{value:.{digits - 1}f}" for value in (mean, accuracy))
        sentence = (
            f"Its confidence is too {too}, on average {said}, while {found} of the answers are correct ({measured})."
        )
    if temperature == 1:
        words = f"The temperature is 1 ({evaluation.about_temperature}): confidence is the softmax of the logits."
    else:
        words = (
            f"The logits are divided by the temperature {temperature:.4g} ({evaluation.about_temperature}). On these "
            f"images this changes the log loss from {before.log_loss:.{digits}f} to {after.log_loss:.{digits}f}."
        )
    return Certainty(temperature, digits, mean, before, after, sentence, words)


def thresholds(evaluation: Evaluation) -> Thresholds:
    """Return the answers above each threshold."""
    predictions = evaluation.predictions
    some = predictions.logits, predictions.labels, evaluation.temperature
    fine = coverage(*some, [step / STEPS for step in range(STEPS)])
    return Thresholds(tuple(coverage(*some)), tuple(fine))
