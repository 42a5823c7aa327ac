"""`cnnkit filters`: the weights that a network looks through."""

from pathlib import Path

__all__ = ["filters"]

MAX_SHOWN = 16  # filters and channels, where each channel is a tile


def filters(net: str, *, layer: str | None = None, pretrained: bool = False, output: Path | None = None) -> None:
    """Write the filters of a convolution on one sheet, zero as mid-grey; those of three channels in colour.

    Those of other channels stand in columns, a filter each, with its weights for one channel below the other.

    Parameters
    ----------
    net
        A run folder, a bundle such as its best/, or a name from `cnnkit nets`, which has random weights.
    layer
        A stage or layer, such as conv2 or conv2.0: its first convolution. Without it, the network's first.
    pretrained
        Take torchvision's ImageNet weights (networks named .tv).
    output
        The file to write; without it, the net's name with -filters behind it, in the current folder.
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
        few = (
            f": the first {len(weights)}, {weights.shape[1]} channels of each" if max(total, depth) > MAX_SHOWN else ""
        )
        title += f", each a column{few}"
    target = output or Path(f"{Path(net).resolve().name}-filters.png")
    sheet = contact_sheet(weights, symmetric=True, tile=96 if depth in (1, 3) else 64)
    write_image(target, stack_sheets({title: sheet}))
    console.say(f"{target}: {len(weights)} of {total} filters of {source.label}")
