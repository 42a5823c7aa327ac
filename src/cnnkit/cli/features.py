"""`cnnkit features`: the feature maps of an image as a contact sheet."""

from pathlib import Path

from cnnkit.cli.options import AnyNet, Device, MaxPixels, Pretrained
from cnnkit.core.limits import DEFAULT_MAX_PIXELS

__all__ = ["features"]


def features(
    net: AnyNet,
    image: Path,
    *,
    layer: list[str] | None = None,
    channels: int = 16,
    pretrained: Pretrained = False,
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
    output: Path | None = None,
    device: Device = "auto",
) -> None:
    """Show a network's feature maps for an image on a contact sheet, by stage.

    The sheet starts with the image as the network sees it. Each map is scaled from black (its minimum) to white (its
    maximum).

    Parameters
    ----------
    image
        Image file of any size and mode.
    layer
        Stage or layer, such as conv2 or conv2.0; repeat it for more. By default all stages.
    channels
        Show at most this many maps per layer, evenly spaced.
    output
        Output file; by default IMAGE-features.png in the current folder.
    """
    from cnnkit.cli.console import console
    from cnnkit.cli.source import open_net
    from cnnkit.core.device import pick_device
    from cnnkit.core.errors import UsageError
    from cnnkit.core.shape import count
    from cnnkit.data import read_image, write_image
    from cnnkit.explain.sheets import maps_sheet

    count(channels, "channels")
    target = output or Path(f"{image.stem}-features.png")
    if target.exists() and image.exists() and target.samefile(image):
        raise UsageError(f"{target} is the input image; choose another --output")
    where = pick_device(device)
    source = open_net(net, where, pretrained)
    batch = read_image(image, source.in_channels, max_pixels=max_pixels)[None].to(where)
    sheet, maps = maps_sheet(source.net, source.preprocess, batch, image.name, layers=layer, channels=channels)
    write_image(target, sheet)
    shown = ", ".join(f"{name} {few} of {total}" for name, (few, total) in maps.items())
    console.say(f"{target}: {shown} maps of {source.label}")
