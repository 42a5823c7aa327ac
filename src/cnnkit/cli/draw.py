"""`cnnkit draw`: a network as an SVG diagram."""

from pathlib import Path

from cnnkit.cli.options import AnyNet, InputSize, NumClasses

__all__ = ["draw"]


def draw(
    net: AnyNet,
    *,
    input_size: InputSize = None,
    num_classes: NumClasses = None,
    output: Path | None = None,
) -> None:
    """Draw a network as an SVG diagram of its stages, with output shapes, parameters and receptive fields.

    Parameters
    ----------
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
