"""How the run was trained: settings, times, the plan of a step, environment."""

from dataclasses import dataclass
from typing import Any

from cnnkit.core.text import shell, to_json
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.predictions import SplitPredictions
from cnnkit.experiment.run import Run
from cnnkit.experiment.run_folder import ENVIRONMENT

__all__ = ["Settings", "settings"]

Rows = list[tuple[str, str]]


@dataclass(frozen=True)
class Settings:
    """Settings that differ from the defaults and the others, times, plan and environment; each by name."""

    changed: dict[str, Any]
    defaults: dict[str, Any]
    times: dict[str, str]
    plan: dict[str, Any]
    environment: dict[str, Any]

    def rows(self, part: str) -> Rows:
        """Return names and values of a part as text."""
        found: dict[str, Any] = getattr(self, part)
        return [(name, _shown(value)) for name, value in found.items()]


def settings(run: Run, predictions: SplitPredictions) -> Settings:
    """Return how a run was trained."""
    every = run.config.model_dump(mode="json")
    unchanged = {name for name, value in run.config if value == RunConfig.model_fields[name].get_default()}
    history = run.history
    seconds = sum(history["seconds"]) if history else 0.0
    times = {
        "training": f"{seconds:,.1f} s in {len(history)} epochs",
        "evaluation": f"{predictions.seconds:,.2f} s for {len(predictions.labels):,} images",
        "images evaluated per second": f"{len(predictions.labels) / max(predictions.seconds, 1e-9):,.0f}",
    }
    return Settings(
        {name: value for name, value in every.items() if name not in unchanged},
        {name: value for name, value in every.items() if name in unchanged},
        times,
        _saved(run, run.folder.plan.name),
        _saved(run, ENVIRONMENT),
    )


def _saved(run: Run, name: str) -> dict[str, Any]:
    """Return the content of a JSON file of the run; {} if there is none."""
    return run.folder.read_json(name) if (run.path / name).is_file() else {}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if value is None or value in ({}, []):
        return "none"
    if isinstance(value, list) and all(isinstance(one, str) for one in value):  # a command, augmentations
        return " ".join(map(shell, value))
    return to_json(value, indent=None) if isinstance(value, dict | list) else str(value)
