"""Bundles: a trained network in a folder, as `model.safetensors` and `config.json`, without pickle."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, PlainSerializer, field_validator, model_validator
from safetensors.torch import save
from torch import Tensor, nn

from cnnkit import __version__
from cnnkit.core.errors import CnnkitError, UsageError, reading
from cnnkit.core.files import atomic_write, read_bytes, replace_folder, sha256, write_through
from cnnkit.core.finite import not_finite
from cnnkit.core.limits import MAX_CHANNELS, MAX_CLASSES
from cnnkit.core.modules import unwrapped
from cnnkit.core.schema import Argument, Figure, Mean, Pixels, Share, Std, Temperature, Word, brief, validated
from cnnkit.core.tensors import read_safetensors
from cnnkit.core.text import from_json, to_json, without_passwords
from cnnkit.data.preprocess import Preprocess

__all__ = ["Bundle", "amend_bundle", "find_bundle", "read_bundle", "read_weights", "require_intact", "save_bundle"]

MODEL, CONFIG = "model.safetensors", "config.json"
DataPlace = Annotated[Word, PlainSerializer(without_passwords)]  # a name, path or URL; bundles are shared


class Bundle(BaseModel):
    """Schema of `config.json`: all that is needed to rebuild the network, preprocess images and read its output."""

    model_config = ConfigDict(extra="forbid")

    format: Literal[1] = 1
    net: Word
    arguments: dict[Word, Argument]
    """Arguments of `cnnkit.create` besides the next three fields."""
    in_channels: Annotated[int, Field(strict=True, ge=1, le=MAX_CHANNELS)]
    image_size: tuple[Pixels, Pixels]
    classes: Annotated[tuple[Word, ...], Field(min_length=1, max_length=MAX_CLASSES)]
    mean: Annotated[tuple[Mean, ...], Field(min_length=1, max_length=MAX_CHANNELS)]
    std: Annotated[tuple[Std, ...], Field(min_length=1, max_length=MAX_CHANNELS)]
    """Pixels are normalised as (x / 255 - mean) / std, by channel."""
    resize: Pixels | None = None
    """Pixels of the shorter side before the centre crop; if None, whole images are resized, with padding."""
    temperature: Temperature = 1.0
    """Divisor of the logits before the softmax, fitted on the validation images (`cnnkit calibrate`)."""
    temperature_reason: Word | None = None
    """Why the temperature is 1, "" if it was fitted; None if neither has been tried."""
    data: DataPlace
    data_dir: Word | None
    test_fraction: Share = 0.1
    """Share of a folder without test/ that was held out for testing."""
    validation_data: DataPlace | None = None
    """Path of the validation images, if separate."""
    test_data: DataPlace | None = None
    """Path of the test images, if separate."""
    data_sha256: Word | None = None
    """Digest of data passed from Python, which have no path."""
    split_sha256: Word
    """Digest of the run's split.json."""
    metrics: dict[str, Figure]
    versions: dict[Word, Word]
    model_sha256: Word = ""

    @field_validator("classes")
    @classmethod
    def _different(cls, classes: tuple[str, ...]) -> tuple[str, ...]:
        if twice := [name for name, times in Counter(classes).items() if times > 1]:
            raise ValueError(f"{brief(twice[0])} appears twice")
        return classes

    @model_validator(mode="after")
    def _by_channel(self) -> "Bundle":
        for name, values in {"mean": self.mean, "std": self.std}.items():
            if len(values) not in (1, self.in_channels):
                raise ValueError(f"{name} has {len(values)} values for {self.in_channels} channels")
        return self

    @property
    def preprocess(self) -> Preprocess:
        """The preprocessing of images into the network's input."""
        return Preprocess(self.image_size, self.mean, self.std, self.resize)

    @staticmethod
    def current_versions() -> dict[str, str]:
        """Return the versions of cnnkit and torch."""
        return {"cnnkit": __version__, "torch": torch.__version__}


def save_bundle(path: Path, net: nn.Module, bundle: Bundle, files: Mapping[str, bytes] | None = None) -> None:
    """Write the bundle and other `files` (content by name) to a folder, replacing an earlier bundle.

    Raises CnnkitError, and keeps the earlier one, if writing fails.
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
    """Change fields of a bundle's config.json, such as the path of the data; raises CnnkitError if writing fails."""
    folder, bundle = read_bundle(path)
    atomic_write(folder / CONFIG, to_json(bundle.model_copy(update=changes).model_dump(mode="json")) + "\n")


def find_bundle(path: Path) -> Path:
    """Return the bundle in `path`: the folder itself, or `best/` of a run; raises UsageError if it is neither."""
    for folder in (path, path / "best"):
        if (folder / CONFIG).is_file():
            return folder
    if not path.exists():
        raise UsageError(f"{path}: no such folder; pass a run folder or a bundle")
    if (path / "config.toml").is_file():
        raise UsageError(f"{path} has no finished epoch yet")
    raise UsageError(f"{path} is not a run folder or a bundle: it has no {CONFIG} and no best/")


def read_bundle(path: Path) -> tuple[Path, Bundle]:
    """Return the folder and the content of the bundle in a bundle or run folder.

    Raises UsageError if `path` is neither, CnnkitError if config.json is corrupt.
    """
    folder = find_bundle(path)
    with reading(folder / CONFIG):
        content = from_json(read_bytes(folder / CONFIG))
        if isinstance(content, dict) and content.get("format", 1) != 1:
            raise ValueError(f"it has format {brief(content['format'])}; this version of cnnkit reads format 1")
        return folder, validated(Bundle, content)


def read_weights(folder: Path, bundle: Bundle, net: nn.Module | None = None) -> dict[str, Tensor]:
    """Return the bundle's weights by name.

    If `net` is given, which may be on the meta device, names and shapes are compared with it before any tensor is
    read. Raises CnnkitError for weights that are corrupt, of another network, or not finite.
    """
    model = folder / MODEL
    own = None if net is None else net.state_dict()
    require_intact(folder, bundle)
    try:
        weights = read_safetensors(model, own and {name: tuple(value.shape) for name, value in own.items()})
    except OSError as error:
        raise CnnkitError(f"{model}: cannot be read ({error.strerror})") from error
    except ValueError as error:
        raise CnnkitError(f"{model}: not the weights of {bundle.net}, which {CONFIG} describes: {error}") from error
    for name, value in (own or {}).items():
        if _kind(weights[name]) != _kind(value):
            raise CnnkitError(f"{model}: {name} is {weights[name].dtype}, not {value.dtype} as in the network")
    if found := not_finite(weights):
        raise CnnkitError(f"{model}: the weights contain {found}; train again")
    return weights


def require_intact(folder: Path, bundle: Bundle) -> None:
    """Raise CnnkitError unless the file of the weights is the one that config.json describes."""
    model = folder / MODEL
    try:
        found = sha256(model)
    except OSError as error:
        raise CnnkitError(f"{model}: cannot be read ({error.strerror})") from error
    if found != bundle.model_sha256:
        raise CnnkitError(f"{model}: corrupt: its SHA-256 is not the one in {CONFIG}")


def _kind(tensor: Tensor) -> torch.dtype:
    """Return a tensor's dtype; all floating-point types count as float32."""
    return torch.float32 if tensor.is_floating_point() else tensor.dtype
