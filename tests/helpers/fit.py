"""Options of short trainings from Python, and the metrics of such a run."""

from typing import Any

from cnnkit.experiment import Run
from helpers.training import untimed

QUICK: dict[str, Any] = {"epochs": 2, "batch_size": 64, "device": "cpu", "engine": "torch", "plan": "off"}


def figures(run: Run) -> list[dict[str, Any]]:
    return untimed(run.history)
