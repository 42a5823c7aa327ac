"""`cnnkit filter`: a kernel applied to an image."""

from pathlib import Path
from typing import Literal

from cnnkit.cli.options import MaxPixels
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
    max_pixels: MaxPixels = DEFAULT_MAX_PIXELS,
) -> None:
    """Apply a kernel to an image, channel by channel, and write the result as an image.

    If the weights of the kernel sum to zero, as those of edge detectors do, the absolute result is scaled so that its
    maximum is white. Any other result is clipped to 0-255.

    Parameters
    ----------
    image
        Image file, grey or in colour.
    kernel
        Kernel: blur, edge, sharpen, sobel-x, sobel-y, or weights by row: "[[1, -1]]".
    output
        Output file; by default IMAGE-KERNEL.png in the current folder.
    stride
        Step of the window in pixels.
    padding
        Padding: valid, same, or a number of zeros on each side.
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
        raise UsageError(f"{target} is the input image; choose another --output")
    pixels = read_image(image, max_pixels=max_pixels)
    result = filter_image(pixels, weights, stride, padding)
    write_image(target, result)
    console.say(f"{target}: {by(*pixels.shape)} to {by(*result.shape)}")
