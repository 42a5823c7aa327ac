"""`cnnkit features`: what a network makes of a picture."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from cnnkit.core.limits import DEFAULT_MAX_PIXELS

__all__ = ["features"]


def features(
    net: str,
    image: Path,
    *,
    layer: Annotated[list[str] | None, Parameter(negative=())] = None,
    channels: int = 16,
    pretrained: bool = False,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    output: Path | None = None,
    device: str = "auto",
) -> None:
    """Write a picture as a network sees it and the feature maps of its stages, on one sheet.

    Each map is spread from black, its lowest value, to white, its highest.

    Parameters
    ----------
    net
        A run folder, a bundle such as its best/, or a name from `cnnkit nets`, which has random weights.
    image
        A picture of any size and mode.
    layer
        A stage or layer, such as conv2 or conv2.0; give it again for more. Without it, every stage.
    channels
        The most maps to show of each, evenly spread.
    pretrained
        Take torchvision's ImageNet weights (networks named .tv).
    max_pixels
        The most pixels that an image may be decoded to; a larger one cannot be read.
    output
        The file to write; without it, the picture's name with -features behind it, in the current folder.
    device
        cpu, cuda, cuda:1, mps, or auto.
    """
    from cnnkit.cli.console import console
    from cnnkit.cli.source import open_net
    from cnnkit.core.device import pick_device
    from cnnkit.core.errors import UsageError
    from cnnkit.core.shape import by, count
    from cnnkit.data import read_image, write_image
    from cnnkit.explain import feature_maps
    from cnnkit.figures import contact_sheet, stack_sheets

    def evenly(total: int, most: int) -> "list[int]":
        shown = min(total, most)
        return [index * total // shown for index in range(shown)]

    count(channels, "channels")
    target = output or Path(f"{image.stem}-features.png")
    if target.exists() and image.exists() and target.samefile(image):
        raise UsageError(f"{target} is the picture itself; give another --output")
    where = pick_device(device)
    source = open_net(net, where, pretrained)
    batch = read_image(image, source.in_channels, max_pixels=max_pixels)[None].to(where)
    maps = feature_maps(source.net, source.preprocess(batch), layer)
    seen = (replace(source.preprocess, mean=(0.0,), std=(1.0,))(batch) * 255).round().byte()
    sheets = {f"{image.name}  {by(*seen.shape[1:])}": contact_sheet(seen if len(seen[0]) == 3 else seen[0], tile=128)}
    shown = []
    for name, [values] in maps.items():
        few = values[evenly(len(values), channels)]  # the first of a dense block's channels are its input
        title = f"{name}  {by(*values.shape)}" + (f", {len(few)} of them" if len(few) < len(values) else "")
        sheets[title] = contact_sheet(few) if few.ndim == 3 else contact_sheet(few[:, None, None], tile=32)
        shown.append(f"{name} {len(few)} of {len(values)}")
    write_image(target, stack_sheets(sheets))
    console.say(f"{target}: {', '.join(shown)} maps of {source.label}")
