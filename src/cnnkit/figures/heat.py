"""Heat over an image: colours that people with any colour vision can tell apart, blended with the image in grey."""

import numpy as np
from PIL import Image, ImageDraw

__all__ = ["heat_colours", "heat_overlay"]

# red, green and blue at equal distances; each table grows steadily lighter, so that it also reads in grey
WARM = ((30, 15, 70), (90, 25, 120), (155, 45, 120), (215, 80, 85), (245, 130, 50), (252, 185, 50), (255, 230, 80))
ORANGE = ((140, 60, 0), (190, 95, 0), (230, 135, 20), (255, 180, 60))
BLUE = ((0, 60, 150), (20, 100, 195), (60, 145, 230), (110, 190, 255))
FRAME = (86, 180, 233)
OPAQUE = 0.8  # share of the colour where the heat is strongest
FADE = 0.7  # below 1, weak heat shows better
LINE = 150  # pixels of the shorter side per pixel of the frame's line

Box = tuple[int, int, int, int]  # top, left, bottom and right, the last two exclusive


def heat_colours(heat: np.ndarray, signed: bool) -> np.ndarray:
    """Return values from -1 to 1 as RGB, floats 0-255 of shape ... x 3.

    From 0 to 1 they are dark purple to yellow. If `signed`, positive values are brown to orange, negative ones dark to
    light blue.
    """
    if not signed:
        return _from_table(WARM, heat)
    return np.where(heat[..., None] < 0, _from_table(BLUE, -heat), _from_table(ORANGE, heat))


def heat_overlay(image: np.ndarray, heat: np.ndarray, *, signed: bool, box: Box | None = None) -> Image.Image:
    """Return an image (uint8 H x W x C) in grey with its heat (H x W) over it, and a frame around `box`.

    The strongest value, positive or negative, has the lightest colour and hides the image most; where the heat is 0,
    the image alone shows. With other than 1 or 3 channels, their mean is shown.
    """
    colour = Image.fromarray(image) if image.shape[2] == 3 else Image.fromarray(image.mean(2).round().astype(np.uint8))
    grey = np.asarray(colour.convert("L"), dtype=np.float64)[..., None]
    values = heat.astype(np.float64)
    values /= np.abs(values).max(initial=np.finfo(np.float64).tiny)
    share = OPAQUE * np.abs(values)[..., None] ** FADE
    blended = (1 - share) * grey + share * heat_colours(values, signed)
    drawn = Image.fromarray(blended.round().astype(np.uint8))
    if box is not None:
        top, left, bottom, right = box
        width = max(1, min(heat.shape) // LINE)
        ImageDraw.Draw(drawn).rectangle((left, top, right - 1, bottom - 1), outline=FRAME, width=width)
    return drawn


def _from_table(table: tuple[tuple[int, int, int], ...], values: np.ndarray) -> np.ndarray:
    places = np.linspace(0, 1, len(table))
    return np.stack([np.interp(values, places, channel) for channel in np.array(table).T], axis=-1)
