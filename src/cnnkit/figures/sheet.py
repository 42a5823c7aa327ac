"""Contact sheets: many small maps as one image."""

import math
from collections.abc import Mapping

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.core.resize import resize
from cnnkit.core.shape import by
from cnnkit.core.text import printable

__all__ = ["contact_sheet", "stack_sheets"]

WIDTH, MAX_SIDE = 1440, 4096  # pixels of a sheet: width to fill with rows, longest side
MIN_TILE, MAX_TILE = 64, 256  # pixels of a tile's longer side
GAP, PAPER, LINE = 4, 255, 128  # a line around each tile, as its edge may be as white as the paper
MARGIN, FONT = 16, 20


def contact_sheet(maps: Tensor, *, symmetric: bool = False, tile: int = MIN_TILE) -> Tensor:
    """Return maps N x H x W, or N x C x H x W, as one image: uint8, 1 or 3 x height x width.

    Three channels are shown as RGB, other channels below each other with one column per map; maps of one channel fill
    rows of up to 1440 pixels.

    uint8 values are shown unscaled. Other maps are each scaled from black (minimum) to white (maximum) over all
    channels; a constant map is black; maps of one pixel are scaled together. `symmetric` shows zero as mid-grey, and
    the value farthest from it as black or white. Each tile has a thin grey frame.

    Maps are enlarged by an integer factor, without smoothing, until the longer side has at least `tile` pixels; those
    of more than 256 are shrunk. Raises UsageError for another rank, no maps, or a sheet side above 4,096 pixels.
    """
    if maps.ndim not in (3, 4) or not maps.numel():
        raise UsageError(f"maps must be non-empty, N x H x W or N x C x H x W, not {tuple(maps.shape)}")
    tiles = maps.detach().cpu()
    tiles = tiles[:, None] if tiles.ndim == 3 else tiles
    tiles = _resized(tiles if tiles.dtype == torch.uint8 else _grey(tiles.float(), symmetric), tile)
    tiles = F.pad(tiles, (1, 1, 1, 1), value=LINE)
    number, channels, *sides = tiles.shape
    height, width = (side + GAP for side in sides)
    if channels in (1, 3):
        rows = math.ceil(number / max(1, (WIDTH + GAP) // width))
        columns = math.ceil(number / rows)
    else:
        rows, columns = channels, number
        tiles = tiles.transpose(0, 1).reshape(-1, 1, *sides)
    if max(rows * height, columns * width) - GAP > MAX_SIDE:
        raise UsageError(f"a sheet of {by(*maps.shape)} needs more than {MAX_SIDE:,} pixels a side; show fewer maps")
    sheet = torch.full((rows * columns, tiles.shape[1], height, width), PAPER, dtype=torch.uint8)
    sheet[: len(tiles), :, :-GAP, :-GAP] = tiles
    sheet = sheet.view(rows, columns, -1, height, width).permute(2, 0, 3, 1, 4)
    return sheet.reshape(-1, rows * height, columns * width)[:, :-GAP, :-GAP].contiguous()


def stack_sheets(sheets: Mapping[str, Tensor]) -> Tensor:
    """Return sheets (uint8, 1 or 3 x height x width), each under its title, stacked into one such image."""
    channels = max(len(sheet) for sheet in sheets.values())
    blocks = [block for title, sheet in sheets.items() for block in (_written(title), sheet)]
    width = max(block.shape[-1] for block in blocks)
    rows = [F.pad(b.expand(channels, -1, -1), (MARGIN, width - b.shape[-1] + MARGIN), value=PAPER) for b in blocks]
    return F.pad(torch.cat(rows, 1), (0, 0, 0, MARGIN), value=PAPER)


def _grey(maps: Tensor, symmetric: bool) -> Tensor:
    """Scale the values of maps N x C x H x W to 0-255; a map with NaN or Inf is black."""
    if symmetric:
        largest = maps.abs().amax((1, 2, 3), keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        maps = (maps / largest + 1) / 2
    else:
        within = (0, 1, 2, 3) if maps.shape[-2:].numel() == 1 else (1, 2, 3)
        maps = maps - maps.amin(within, keepdim=True)
        maps = maps / maps.amax(within, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
    return (maps * 255).round().nan_to_num(0).to(torch.uint8)


def _resized(tiles: Tensor, least: int) -> Tensor:
    longer = max(tiles.shape[-2:])
    if longer > MAX_TILE:
        height, width = (max(1, round(side * MAX_TILE / longer)) for side in tiles.shape[-2:])
        return resize(tiles.float(), (height, width)).round().to(torch.uint8)
    factor = math.ceil(least / longer)
    return tiles.repeat_interleave(factor, -2).repeat_interleave(factor, -1)


def _written(title: str) -> Tensor:
    """Return the title as a strip 1 x height x width."""
    font, title = ImageFont.load_default(FONT), printable(title)
    strip = Image.new("L", (int(font.getlength(title)) + 1, 2 * FONT + MARGIN), PAPER)
    ImageDraw.Draw(strip).text((0, MARGIN + FONT // 2), title, fill=0, font=font)
    return torch.from_numpy(np.array(strip))[None]
