"""Parameters that several verbs share, with their help."""

from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

__all__ = [
    "AnyNet",
    "ConfigFile",
    "Device",
    "Images",
    "InputSize",
    "Json",
    "MaxPixels",
    "Net",
    "NumClasses",
    "OnBadImage",
    "Pretrained",
    "Temperature",
    "Trained",
    "Workers",
]

Trained = Annotated[Path, Parameter(help="Run folder, or a bundle such as its best/.")]
Net = Annotated[str | None, Parameter(help="Network name; `cnnkit nets` lists them.")]
AnyNet = Annotated[
    str, Parameter(help="Network name (see `cnnkit nets`; its weights are random), run folder or bundle.")
]
Pretrained = Annotated[bool, Parameter(help="Use torchvision's ImageNet weights (networks named .tv).")]
Images = Annotated[
    str,
    Parameter(
        allow_leading_hyphen=True,
        help="Image files of any size and mode, folders (searched recursively), globs such as `photos/*/*.jpg`, "
        "or - to read paths from standard input, one per line.",
    ),
]
InputSize = Annotated[
    str | None,
    Parameter("--input", help="Input as channels x height x width, such as 1x28x28; by default the network's own."),
]
NumClasses = Annotated[int | None, Parameter(help="Number of classes; by default the network's own.")]
ConfigFile = Annotated[
    Path | None, Parameter(alias="-c", help="TOML file with settings, such as a run's config.toml; flags override it.")
]
OnBadImage = Annotated[
    Literal["error", "skip"], Parameter(help="Stop if an image cannot be read, or skip the image and report it.")
]
Temperature = Annotated[
    bool, Parameter(help="Divide the logits by the temperature that was fitted on the validation images.")
]
MaxPixels = Annotated[int, Parameter(help="Treat images that decode to more pixels than this as unreadable.")]
Workers = Annotated[int | None, Parameter(help="Number of threads that decode images; by default one per processor.")]
Device = Annotated[str, Parameter(help="Device: cpu, cuda, cuda:1, mps or auto.")]
Json = Annotated[bool, Parameter(help="Print JSON.")]
