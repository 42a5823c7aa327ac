"""A run as Python sees it: its settings, its history, its network."""

import copy
import os
from functools import cached_property
from pathlib import Path
from typing import Any

from cnnkit.core.errors import CnnkitError
from cnnkit.core.limits import DEFAULT_MAX_PIXELS
from cnnkit.core.places import expanded
from cnnkit.core.text import html, printable
from cnnkit.data import is_handed_in
from cnnkit.data.reading import BadImage
from cnnkit.deploy import Classifier, load
from cnnkit.experiment.build import NOTHING, Given
from cnnkit.experiment.config import RunConfig, resolve
from cnnkit.experiment.evaluation import Evaluation, evaluate, keep_figures
from cnnkit.experiment.history import History, read_metrics
from cnnkit.experiment.run_folder import RunFolder

__all__ = ["Run"]


class Run:
    """What `cnnkit.fit` returns; `Run("runs/lenet-digits-1")` opens an earlier one.

    What was handed in to `fit` is remembered, and used to load and to evaluate. Raises UsageError if the folder is no
    run.
    """

    def __init__(self, path: str | os.PathLike[str], given: Given = NOTHING):
        self.folder = RunFolder.open(expanded(path).absolute())
        self._given = given

    def __fspath__(self) -> str:
        """Return the run's folder: a run stands wherever its path may."""
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
        """A row for each finished epoch, read from the folder."""
        return History(read_metrics(self.path), self.path.name)

    @cached_property
    def model(self) -> Classifier:
        """The network with its best weights; raises UsageError before there are any."""
        return load(self.path, copy.deepcopy(self._given.net), self.config.device)

    def evaluate(
        self,
        data: Any = None,
        *,
        data_dir: Path | str | None = None,
        on_bad_image: BadImage = "error",
        workers: int | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        progress: bool = True,
    ) -> Evaluation:
        """Measure the best weights on the run's own test images, or on `data`, as `cnnkit.evaluate` does.

        Of the run's own data, the folder keeps the figures as test.json.
        """
        own, bundle = data is None, self.model.bundle
        if own and is_handed_in(bundle.test_data or bundle.data):
            data = self._given.test_data if bundle.test_data else self._given.data
        found = evaluate(
            self.model,
            data,
            data_dir=data_dir,
            on_bad_image=on_bad_image,
            workers=workers,
            max_pixels=max_pixels,
            progress=progress,
        )
        if own:
            keep_figures(self.folder, found)
        return found

    def __repr__(self) -> str:
        config, history = self.config, self.history
        words = f"{config.net} on {config.data}: {len(history)} of {config.epochs} epochs"
        if history:
            words += f" in {sum(history['seconds']):,.1f} s of training"
        if best := history.best:
            words += f"; the best is epoch {best['epoch']}"
            figures = {"accuracy": best["val_accuracy"], "loss": best["val_loss"]}
            told = [f"{name} {value:.4f}" for name, value in figures.items() if value is not None]
            words += f", with validation {' and '.join(told)}" if told else ""
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
        except CnnkitError:  # no epoch is finished, or there is no matplotlib
            curves = self.history._repr_html_()
        return f"<p>{html(repr(self))}</p><p>Settings: {html(settings)}</p>{curves}"
