"""A run in Python: its settings, history and network."""

import copy
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnkit.core.errors import CnnkitError
from cnnkit.core.places import expanded
from cnnkit.core.text import html, printable
from cnnkit.deploy import Classifier, load
from cnnkit.experiment.build import NOTHING, Given
from cnnkit.experiment.config import RunConfig, resolve
from cnnkit.experiment.evaluating import evaluate
from cnnkit.experiment.evaluation import Evaluation
from cnnkit.experiment.history import History, read_metrics
from cnnkit.experiment.run_folder import RunFolder

__all__ = ["Run"]


class Run:
    """A run, as `cnnkit.fit` returns it; `Run("runs/lenet-digits-1")` opens an earlier one.

    A network and data passed to `fit` are kept for loading and evaluating. Raises UsageError if the folder is not a
    run folder.
    """

    def __init__(self, path: str | os.PathLike[str], given: Given = NOTHING):
        self.folder = RunFolder.open(expanded(path).absolute())
        self.given = given

    def __fspath__(self) -> str:
        """Return the run's folder, so that a run can be passed as a path."""
        return str(self.path)

    @property
    def path(self) -> Path:
        """The run's folder."""
        return self.folder.path

    @cached_property
    def config(self) -> RunConfig:
        """All settings of the run."""
        return resolve(self.folder.settings())

    @property
    def history(self) -> History:
        """The rows of the finished epochs, read from the folder."""
        return History(read_metrics(self.path), self.path.name)

    @cached_property
    def model(self) -> Classifier:
        """The network with the best weights; raises UsageError if none are saved yet."""
        return load(self.path, copy.deepcopy(self.given.net), self.config.device)

    def evaluate(self, data: Any = None, **options: Any) -> Evaluation:
        """Evaluate the best weights on the run's own test images, or on `data`; `options` are `cnnkit.evaluate`'s."""
        return evaluate(self, data, **({"device": self.config.device} | options))

    def __repr__(self) -> str:
        config, history = self.config, self.history
        words = f"{config.net} on {config.data}: {len(history)} of {config.epochs} epochs"
        if history:
            words += f" in {sum(history['seconds']):,.1f} s of training"
        if best := history.best:
            words += f"; best epoch {best['epoch']}"
            metrics = {"accuracy": best["val_accuracy"], "loss": best["val_loss"]}
            shown = [f"{name} {value:.4f}" for name, value in metrics.items() if value is not None]
            words += f", validation {', '.join(shown)}" if shown else ""
        return printable(f"{words}. Folder: {self.path}")

    def _repr_html_(self) -> str:
        changed = {
            name: value
            for name, value in self.config
            if name not in ("net", "data") and value != RunConfig.model_fields[name].default
        }
        settings = ", ".join(f"{name} {value}" for name, value in changed.items())
        try:
            curves = self.history.plot()._repr_html_()
        except CnnkitError:  # no epoch is finished, or matplotlib is missing
            curves = self.history._repr_html_()
        return f"<p>{html(repr(self))}</p><p>Settings: {html(settings)}</p>{curves}"
