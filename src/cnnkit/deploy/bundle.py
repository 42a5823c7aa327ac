"""A trained net in a folder: `model.safetensors` and a `config.json` that says everything else. No pickle."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, ValidationError, field_serializer
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from cnnkit import __version__
from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.files import atomic_write, replace_folder, sha256, utf8_path, write_through
from cnnkit.core.modules import unwrapped
from cnnkit.core.text import from_json, to_json
from cnnkit.data.preprocess import Preprocess

__all__ = ["Bundle", "amend_bundle", "find_bundle", "give_own_weights", "read_bundle", "read_weights", "save_bundle"]

MODEL, CONFIG = "model.safetensors", "config.json"


class Bundle(BaseModel):
    """What `config.json` says: enough to rebuild the net, feed it, and read its answer."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    net: str
    arguments: dict[str, Any]
    """Of `cnnkit.create`, beyond the three below."""
    in_channels: int
    image_size: tuple[int, int]
    classes: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    """Pixels enter as (x / 255 - mean) / std, by channel."""
    resize: int | None = None
    """Pixels of the shorter side, before the middle is cut out; without it images are resized whole, with padding."""
    data: str
    data_dir: str | None
    test_fraction: float = 0.1
    """Share of a folder without test/ that was set aside for testing."""
    test_data: str | None = None
    """Where the test images are, if not with the others."""
    data_sha256: str | None = None
    """Of data handed in from Python, which have no place to be found at again."""
    split_sha256: str
    """Of the run's split.json: which images were never trained on."""
    metrics: dict[str, float | int | bool | None]
    versions: dict[str, str]
    model_sha256: str = ""

    @field_serializer("metrics")
    def _finite(self, metrics: dict[str, float | int | bool | None]) -> dict[str, float | int | bool | None]:
        """JSON has neither NaN nor Inf."""
        return {name: value if value is None or math.isfinite(value) else None for name, value in metrics.items()}

    @property
    def preprocess(self) -> Preprocess:
        """What turns images into the net's input."""
        return Preprocess(self.image_size, self.mean, self.std, self.resize)

    @staticmethod
    def current_versions() -> dict[str, str]:
        """Return the versions of what a net is made with."""
        return {"cnnkit": __version__, "torch": torch.__version__}


def save_bundle(path: Path, net: nn.Module, bundle: Bundle, files: Mapping[str, bytes] | None = None) -> None:
    """Write the bundle in the place of an earlier one, with other `files` in its folder, by their names.

    Raises CnnkitError, and keeps the earlier one, if the disk does not take it.
    """

    weights = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in unwrapped(net).state_dict().items()
    }

    def fill(folder: Path) -> None:
        write_through(folder / MODEL, save(weights))
        card = bundle.model_copy(update={"model_sha256": sha256(folder / MODEL)})
        write_through(folder / CONFIG, to_json(card.model_dump(mode="json")) + "\n")
        for name, content in (files or {}).items():
            write_through(folder / name, content)

    replace_folder(path, fill)


def amend_bundle(path: Path, **changes: Any) -> None:
    """Change what a bundle says of itself, such as where its data are; raises CnnkitError if it cannot be written."""
    folder, bundle = read_bundle(path)
    atomic_write(folder / CONFIG, to_json(bundle.model_copy(update=changes).model_dump(mode="json")) + "\n")


def find_bundle(path: Path) -> Path:
    """Return the bundle in `path`: the folder itself, or `best/` of a run; raises UsageError if it is neither."""
    for folder in (path, path / "best"):
        if (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        raise UsageError(f"{path}: no such folder; give a run folder or a bundle")
    reason = "the run has no best/ yet" if (path / "config.toml").is_file() else f"it has no {CONFIG} and no best/"
    raise UsageError(f"{path} is not a run folder or a bundle: {reason}")


def read_bundle(path: Path) -> tuple[Path, Bundle]:
    """Return the bundle's folder, and what is said in it, from a bundle or a run folder.

    Raises UsageError if `path` is neither, CnnkitError if the description is corrupt.
    """
    folder = find_bundle(path)
    try:
        return folder, Bundle.model_validate(from_json((folder / CONFIG).read_bytes()))
    except (ValueError, OSError) as error:
        raise CnnkitError(f"{folder / CONFIG}: the bundle's description is damaged ({_first(error)})") from error


def read_weights(folder: Path, bundle: Bundle) -> dict[str, Tensor]:
    """Return the bundle's weights by name; raises CnnkitError if they are corrupt."""
    model = folder / MODEL
    try:
        if sha256(model) != bundle.model_sha256:
            raise CnnkitError(f"{model}: corrupt: its SHA-256 is not the one in {CONFIG}")
        with utf8_path(model) as path:
            return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CnnkitError(f"{model}: cannot be read ({_first(error)})") from error


def give_own_weights(folder: Path, bundle: Bundle, net: nn.Module) -> None:
    """Give `net` the bundle's weights; raises CnnkitError if they are corrupt or another net's."""
    try:
        net.load_state_dict(read_weights(folder, bundle))
    except RuntimeError as error:
        raise CnnkitError(f"{folder / MODEL}: the weights are not those of {bundle.net} ({_first(error)})") from error


def _first(error: Exception) -> str:
    if isinstance(error, ValidationError):
        row = error.errors()[0]
        return f"{'.'.join(map(str, row['loc']))}: {row['msg']}".removeprefix(": ")
    return (isinstance(error, OSError) and error.strerror) or str(error).splitlines()[0]
