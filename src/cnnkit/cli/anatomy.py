"""`cnnkit anatomy`: what a network is made of."""

from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

if TYPE_CHECKING:
    from cnnkit.anatomy import Layer, Stage

__all__ = ["anatomy"]


def anatomy(
    net: str,
    *,
    input_size: Annotated[str | None, Parameter(name="--input")] = None,
    num_classes: int | None = None,
    json: bool = False,
) -> None:
    """Show each stage and layer: output shape, parameters, MACs, and the receptive field so far.

    Parameters
    ----------
    net
        A name from `cnnkit nets`.
    input_size
        Channels x height x width, such as 1x28x28; without it, the network's own.
    num_classes
        Classes to tell apart; without it, the network's own.
    json
        Print JSON.
    """
    from dataclasses import asdict

    import torch

    from cnnkit.anatomy import trace
    from cnnkit.cli.console import page, print_json, table
    from cnnkit.core.shape import by
    from cnnkit.nets import create, entry

    channels, height, width = _size(input_size) if input_size else entry(net).input
    with torch.device("meta"):  # shapes only, no memory
        built = create(net, in_channels=channels, num_classes=num_classes, image_size=(height, width))
    parts = trace(built, (channels, height, width))
    totals = {"params": parts.params, "statistics": parts.statistics, "macs": parts.macs}
    if json:
        stages = [
            asdict(stage) | {"params": stage.params, "statistics": stage.statistics, "macs": stage.macs}
            for stage in parts.stages
        ]
        print_json({"net": net, "input": parts.input, **totals, "stages": stages})
        return
    columns = ["stage", "layer", "output", "params", "MACs", "receptive field", "step"]
    listing = table(columns, text=2)
    for stage in parts.stages:
        listing.add_row(f"[bold]{stage.name}[/]", "", *_cells(stage), end_section=False)
        for layer in stage.layers:
            listing.add_row("", f"{layer.name} {layer.kind}", *_cells(layer), style="dim")
        listing.add_section()
    listing.add_row("total", "", "", f"{parts.params:,}", f"{parts.macs:,}", "", "")
    page.print(f"{net}, input {by(*parts.input)}", listing)
    if parts.statistics:
        page.print(f"and {parts.statistics:,} moving statistics: {parts.params + parts.statistics:,} as Keras counts")


def _cells(row: "Stage | Layer") -> list[str]:
    from cnnkit.core.shape import by

    field = row.receptive
    step = "-" if field.step == (0, 0) else by(*field.step)
    return [by(*row.output), f"{row.params:,}", f"{row.macs:,}", by(*field.size), step]


def _size(text: str) -> tuple[int, int, int]:
    from cnnkit.core.errors import UsageError

    numbers: list[Any] = text.lower().split("x")
    if len(numbers) != 3 or not all(number.isdecimal() and int(number) for number in numbers):
        raise UsageError(f"--input takes channels x height x width, such as 1x28x28, not {text!r}")
    return int(numbers[0]), int(numbers[1]), int(numbers[2])
