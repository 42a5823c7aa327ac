"""Metrics of a classifier from its logits, with their uncertainty: scores, calibration, temperature."""

from cnnkit.metrics.bootstrap import Averages
from cnnkit.metrics.calibration import Bin, Calibration, calibration
from cnnkit.metrics.coverage import Coverage, coverage
from cnnkit.metrics.intervals import Estimate, wilson
from cnnkit.metrics.scores import ClassScores, Scores, score
from cnnkit.metrics.softmax import probabilities
from cnnkit.metrics.temperature import TemperatureFit, fit_temperature

__all__ = [
    "Averages",
    "Bin",
    "Calibration",
    "ClassScores",
    "Coverage",
    "Estimate",
    "Scores",
    "TemperatureFit",
    "calibration",
    "coverage",
    "fit_temperature",
    "probabilities",
    "score",
    "wilson",
]
