"""`cnnkit filter`: a kernel over a picture."""

from pathlib import Path
from typing import Literal

from cnnkit.core.limits import DEFAULT_MAX_PIXELS, MAX_CANVAS

__all__ = ["filter"]

MAX_PADDING = 1000  # pixels on each side


def filter(
    image: Path,
    *,
    kernel: str,
    output: Path | None = None,
    stride: int = 1,
    padding: Literal["valid", "same"] | int = "valid",
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> None:
    """Slide a kernel over a picture, each channel on its own, and write the feature map as a picture.

    A kernel whose weights sum to zero shows the strength of its answer, the strongest as white; any other is
    clipped to 0-255.

    Parameters
    ----------
    image
        A picture, grey or in colour.
    kernel
        blur, edge, sharpen, sobel-x, sobel-y, or rows of numbers: "[[1, -1]]".
    output
        The file to write; without it, the picture's name with the kernel's behind it, in the current folder.
    stride
        Pixels that the window moves.
    padding
        valid, same, or zeros on each side.
    max_pixels
        The most pixels that an image may be decoded to; a larger one cannot be read.
    """
    from cnnkit.cli.console import console
    from cnnkit.core.errors import UsageError
    from cnnkit.core.shape import by, count
    from cnnkit.data import read_image, write_image
    from cnnkit.ops import filter_image, parse_kernel

    count(stride, "stride", MAX_CANVAS)
    if not isinstance(padding, str) and not 0 <= padding <= MAX_PADDING:
        raise UsageError(f"padding must be valid, same, or 0 to {MAX_PADDING:,}, not {padding}")
    weights = parse_kernel(kernel)
    label = "kernel" if "[" in kernel else kernel
    target = output or Path(f"{image.stem}-{label}.png")
    if target.exists() and image.exists() and target.samefile(image):
        raise UsageError(f"{target} is the picture itself; give another --output")
    picture = read_image(image, max_pixels=max_pixels)
    result = filter_image(picture, weights, stride, padding)
    write_image(target, result)
    console.say(f"{target}: {by(*picture.shape)} to {by(*result.shape)}")
