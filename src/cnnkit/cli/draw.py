"""`cnnkit draw`: a network as an SVG diagram."""

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
    """Draw the stages of a network as an SVG diagram, with output shapes, parameters and receptive fields.

    Parameters
    ----------
    net
        Network name (see `cnnkit nets`), run folder or bundle.
    input_size
        Input as channels x height x width, such as 1x28x28; by default the network's own.
    num_classes
        Number of classes; by default the network's own.
    output
        Output file; by default NAME.svg in the current folder, with the network's name.
    """
    from cnnkit.anatomy import draw as diagram
    from cnnkit.cli.anatomy import find_anatomy
    from cnnkit.cli.console import console
    from cnnkit.core.errors import UsageError
    from cnnkit.core.files import write_output
    from cnnkit.core.shape import by
    from cnnkit.core.text import counted

    name, whole, _ = find_anatomy(net, input_size, num_classes)
    target = output or Path(f"{Path(name).resolve().name}.svg")
    if target.suffix.lower() != ".svg":
        raise UsageError(f"{target}: the diagram is SVG; --output must end in .svg")
    write_output(target, diagram(whole, name))
    console.say(f"{target}: {counted(len(whole.stages), 'stage')}, input {by(*whole.input)}")
