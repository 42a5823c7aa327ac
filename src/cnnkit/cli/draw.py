"""`cnnkit draw`: a network as a picture."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

__all__ = ["draw"]


def draw(
    net: str,
    *,
    input_size: Annotated[str | None, Parameter(name="--input")] = None,
    num_classes: int | None = None,
    output: Path | None = None,
) -> None:
    """Draw a network's stages as slabs, with their outputs, parameters and receptive fields, as SVG.

    Parameters
    ----------
    net
        A name from `cnnkit nets`, a run folder or a bundle.
    input_size
        Channels x height x width, such as 1x28x28; without it, the network's own.
    num_classes
        Classes to tell apart; without it, the network's own.
    output
        The file to write; without it, the network's name and .svg, in the current folder.
    """
    from cnnkit.anatomy import draw as picture
    from cnnkit.cli.anatomy import look_into
    from cnnkit.cli.console import console
    from cnnkit.core.errors import UsageError
    from cnnkit.core.files import write_output
    from cnnkit.core.shape import by

    name, whole, _ = look_into(net, input_size, num_classes)
    target = output or Path(f"{Path(name).resolve().name}.svg")
    if target.suffix.lower() != ".svg":
        raise UsageError(f"{target}: the diagram is SVG; give --output a name that ends in .svg")
    write_output(target, picture(whole, name))
    console.say(f"{target}: {len(whole.stages)} stages, input {by(*whole.input)}")
