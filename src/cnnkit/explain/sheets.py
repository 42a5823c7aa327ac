"""Feature maps of an image as one contact sheet."""

from collections.abc import Iterable
from dataclasses import replace

from torch import Tensor, nn

from cnnkit.core.shape import by
from cnnkit.data import Preprocess
from cnnkit.explain.features import feature_maps
from cnnkit.figures import contact_sheet, stack_sheets

__all__ = ["maps_sheet"]


def maps_sheet(
    net: nn.Module,
    preprocess: Preprocess,
    batch: Tensor,
    title: str,
    *,
    layers: Iterable[str] | None = None,
    channels: int = 16,
) -> tuple[Tensor, dict[str, tuple[int, int]]]:
    """Return a contact sheet of an image as the network sees it, under its title, and of the maps of each stage.

    `batch` is the image, uint8 1 x C x H x W; `layers` are other parts than the stages. Of each part, at most
    `channels` maps are shown, evenly spaced. The second result has, by part, the numbers of maps shown and of all.
    """
    maps = feature_maps(net, preprocess(batch), layers)
    seen = (replace(preprocess, mean=(0.0,), std=(1.0,))(batch) * 255).round().byte()
    sheets = {f"{title}  {by(*seen.shape[1:])}": contact_sheet(seen if len(seen[0]) == 3 else seen[0], tile=128)}
    shown = {}
    for name, [values] in maps.items():
        few = values[_evenly(len(values), channels)]  # evenly, as the first channels of a dense block are its input
        heading = f"{name}  {by(*values.shape)}" + (f", {len(few)} shown" if len(few) < len(values) else "")
        sheets[heading] = contact_sheet(few) if few.ndim == 3 else contact_sheet(few[:, None, None], tile=32)
        shown[name] = len(few), len(values)
    return stack_sheets(sheets), shown


def _evenly(total: int, most: int) -> list[int]:
    shown = min(total, most)
    return [index * total // shown for index in range(shown)]
