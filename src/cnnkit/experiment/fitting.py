"""Training from Python: `cnnkit train`, with modules and arrays as well."""

import inspect
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.modules import unwrapped
from cnnkit.core.places import expanded
from cnnkit.data import place
from cnnkit.experiment.build import Given
from cnnkit.experiment.config import RunConfig
from cnnkit.experiment.launch import LATEST, launch
from cnnkit.experiment.run import Run
from cnnkit.experiment.training import PYTHON
from cnnkit.train.callbacks import require_callbacks

__all__ = ["fit"]

GIVEN = ("net", "data", "validation_data", "test_data")


def fit(
    net: str | nn.Module | None = None,
    data: Any = None,
    *,
    validation_data: Any = None,
    test_data: Any = None,
    callbacks: Sequence[Any] = (),
    output: Path | str = "runs",
    resume: str | os.PathLike[str] | bool | None = None,
    allow_changed_data: bool = False,
    progress: bool = True,
    **settings: Any,
) -> Run:
    """Train a network, save everything in a new run folder, and return the run.

    `net` is a name of the zoo (`cnnkit.nets.list_networks()`) or any module that maps images, floats N x C x H x W, to
    logits, N x classes; the module gets the best weights at the end, also inside `torch.compile`, `DataParallel` or
    `DistributedDataParallel`. `data` is a name, a folder of images, a CSV file or tar shards; or a pair (images,
    labels) of arrays or tensors, a list of pairs (path, label), a pandas frame with columns path and label, or a
    map-style `torch.utils.data.Dataset` of pairs (image, label). Images are uint8, or floats from 0 to 1, which are
    stored in 8 bits. `validation_data` and `test_data` take the same; without them, a share of each class is held out.

    `callbacks` are instances of `cnnkit.train.Callback`. `progress` shows a bar in a terminal, a line in a notebook.
    Ctrl-C, or a notebook's stop button, saves a checkpoint and raises `RunInterrupted`; `cnnkit.fit(resume=PATH)`
    resumes, on a CPU bit for bit if the data are unchanged, and resume=True takes the latest run in `output`. Pass
    modules, arrays and data sets again to resume; a digest compares them. If images were deleted, replaced or moved to
    another class, the run resumes only with `allow_changed_data`.

    Raises UsageError for invalid arguments and DataError for unreadable data before a run folder is created;
    CnnkitError if the loss becomes NaN or memory runs out.

    Settings, named like the flags of `cnnkit train`:
    """
    for name in settings:
        if name not in RunConfig.model_fields:
            known = inspect.signature(fit).parameters
            raise unknown("setting", name, known)
    places = {"data": data, "validation_data": validation_data, "test_data": test_data}
    named = {name: place(value) for name, value in places.items() if isinstance(value, str | Path)}
    objects = {name: value for name, value in places.items() if name not in named}
    if net is not None and not isinstance(net, str | nn.Module):
        raise UsageError(f"net must be a name of the zoo or a torch.nn.Module, not {type(net).__name__}")
    require_callbacks(callbacks)
    given = Given(unwrapped(net) if isinstance(net, nn.Module) else None, **objects)
    if isinstance(net, str):
        named["net"] = net
    folder = launch(
        {name: value for name, value in settings.items() if value is not None} | named,
        output=expanded(output),
        resume=None if resume is None or resume is False else expanded(LATEST if resume is True else resume),
        allow_changed_data=allow_changed_data,
        given=given,
        callbacks=callbacks,
        progress=progress,
        face=PYTHON,
    )
    run = Run(folder.path, given)
    if given.net is not None and folder.best.exists():
        given.net.load_state_dict(run.model.net.state_dict())
    return run


def _with_settings(function: Any) -> None:
    """Add each setting of RunConfig to the signature and the docstring of `function`."""
    fields = {name: field for name, field in RunConfig.model_fields.items() if name not in GIVEN}
    own = [p for p in inspect.signature(function).parameters.values() if p.kind != p.VAR_KEYWORD]
    rows = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=field.default, annotation=field.annotation)
        for name, field in fields.items()
    ]
    function.__signature__ = inspect.signature(function).replace(parameters=[*own, *rows])
    lines = [f"{name}\n    {' '.join((field.description or '').split())}" for name, field in fields.items()]
    function.__doc__ = "\n".join([inspect.getdoc(function) or "", "", *lines])


_with_settings(fit)
