"""`cnnkit filters`: the filters of a convolution as a contact sheet."""

from pathlib import Path

from cnnkit.cli.options import AnyNet, Pretrained

__all__ = ["filters"]

MAX_SHOWN = 16  # filters, and channels per filter, if each channel is a tile


def filters(
    net: AnyNet, *, layer: str | None = None, pretrained: Pretrained = False, output: Path | None = None
) -> None:
    """Show the filters of a convolution on a contact sheet, with zero as mid-grey.

    Filters of three channels are shown in colour, filters of more channels as columns with a tile for each channel.

    Parameters
    ----------
    layer
        Stage or layer, such as conv2 or conv2.0; its first convolution is shown. By default the network's first.
    output
        Output file; by default NAME-filters.png in the current folder, with the network's name.
    """
    from cnnkit.cli.console import console
    from cnnkit.cli.source import open_net
    from cnnkit.core.shape import by
    from cnnkit.data import write_image
    from cnnkit.explain import filters as weights_of
    from cnnkit.figures import contact_sheet, stack_sheets

    source = open_net(net, pretrained=pretrained)
    weights = weights_of(source.net, layer)
    total, depth = weights.shape[:2]
    title = f"{layer or 'first convolution'}  {total} filters of {by(*weights.shape[1:])}"
    if depth not in (1, 3):
        weights = weights[:MAX_SHOWN, :MAX_SHOWN]
        few = f": the first {len(weights)}, {weights.shape[1]} channels each" if max(total, depth) > MAX_SHOWN else ""
        title += f", one column each{few}"
    target = output or Path(f"{Path(net).resolve().name}-filters.png")
    sheet = contact_sheet(weights, symmetric=True, tile=96 if depth in (1, 3) else 64)
    write_image(target, stack_sheets({title: sheet}))
    console.say(f"{target}: {len(weights)} of {total} filters of {source.label}")
