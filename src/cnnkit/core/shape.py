"""The arithmetic of a sliding window: padding, stride and dilation to output sizes (chapter 5.2)."""

from collections.abc import Sequence
from typing import Literal

from cnnkit.core.errors import UsageError

__all__ = ["Padding", "Pads", "Pair", "by", "count", "output_size", "pair", "resolve_padding", "same_padding"]

Pair = int | tuple[int, int]
Pads = tuple[int, int, int, int]
Padding = Pair | Pads | Literal["valid", "same"]


def pair(value: int | Sequence[int], name: str, minimum: int = 1) -> tuple[int, int]:
    """Return `value` as (vertical, horizontal); an int applies to both.

    Raises UsageError, naming the argument, for anything but one or two ints of at least `minimum`.
    """
    values = (value, value) if isinstance(value, int) else _several(value)
    if len(values) != 2 or not all(_is_int(v) and v >= minimum for v in values):
        raise UsageError(f"{name} must be an int or a pair of ints >= {minimum}, not {value!r}")
    return values[0], values[1]


def count(value: int, name: str, most: int = 2**31 - 1) -> int:
    """Return `value`; raises UsageError, naming the argument, unless it is an int from 1 to `most`."""
    if not _is_int(value) or value < 1:
        raise UsageError(f"{name} must be an int >= 1, not {value!r}")
    if value > most:
        raise UsageError(f"{name} must be at most {most:,}, not {value}")
    return value


def resolve_padding(padding: Padding, size: Pair, kernel: Pair, stride: Pair = 1, dilation: Pair = 1) -> Pads:
    """Return the rows and columns that `padding` adds: (top, bottom, left, right).

    An int pads all sides, a pair is (vertical, horizontal), four ints are (top, bottom, left, right).
    "valid" adds none. "same" makes the output ceil(size / stride), as in TensorFlow: of an odd total, the smaller
    half goes first.

    >>> resolve_padding("same", size=96, kernel=7, stride=2)
    (2, 3, 2, 3)
    """
    if padding == "valid":
        return 0, 0, 0, 0
    if padding == "same":
        named = {"size": size, "kernel": kernel, "stride": stride, "dilation": dilation}
        axes = zip(*(pair(value, name) for name, value in named.items()), strict=True)
        (top, bottom), (left, right) = (same_padding(n, d * (k - 1) + 1, s) for n, k, s, d in axes)
        return top, bottom, left, right
    if not isinstance(padding, str):
        pads = (padding,) * 4 if isinstance(padding, int) else _several(padding)
        if len(pads) == 2:
            pads = (pads[0], pads[0], pads[1], pads[1])
        if len(pads) == 4 and all(_is_int(pad) and pad >= 0 for pad in pads):
            return pads
    raise UsageError(
        "padding must be 'valid', 'same', an int >= 0, a pair (vertical, horizontal) "
        f"or four ints (top, bottom, left, right), not {padding!r}"
    )


def same_padding(size: int, span: int, stride: int) -> tuple[int, int]:
    """Return the "same" padding before and after an axis of `size` pixels, for a window that spans `span` of them.

    Nothing is checked, and `size` may be a symbolic int of torch, on which nothing may branch: the padding may then be
    negative, which crops pixels in the gaps between windows.

    >>> same_padding(96, span=7, stride=2), same_padding(97, span=7, stride=2)
    ((2, 3), (3, 3))
    """
    total = (size - 1) // stride * stride + span - size
    if span < stride and isinstance(size, int):  # the last window may end before the axis does
        total = max(total, 0)
    before = total // 2 if span >= stride else (total + stride) // stride * total // 2  # max(total, 0) // 2
    return before, total - before


def output_size(
    size: Pair, kernel: Pair, stride: Pair = 1, padding: Padding = 0, dilation: Pair = 1
) -> tuple[int, int]:
    """Return the height and width of the output of a window of size `kernel` (chapter 5.2).

    Per axis: floor((n + p - d (k - 1) - 1) / s) + 1, where p counts both sides.
    Raises UsageError if the window is larger than the padded input.

    >>> output_size((3, 3), (2, 2)), output_size(8, 3, stride=2, padding="same")
    ((2, 2), (4, 4))
    """
    size, kernel = pair(size, "size"), pair(kernel, "kernel")
    stride, dilation = pair(stride, "stride"), pair(dilation, "dilation")
    pads = resolve_padding(padding, size, kernel, stride, dilation)
    padded = size[0] + pads[0] + pads[1], size[1] + pads[2] + pads[3]
    span = dilation[0] * (kernel[0] - 1) + 1, dilation[1] * (kernel[1] - 1) + 1
    if span[0] > padded[0] or span[1] > padded[1]:
        raise UsageError(
            f"the window of {by(*span)} is larger than the padded input of {by(*padded)}; "
            "use a smaller kernel or dilation, more padding or a larger input"
        )
    return (padded[0] - span[0]) // stride[0] + 1, (padded[1] - span[1]) // stride[1] + 1


def by(*sizes: int) -> str:
    """Return sizes as text.

    >>> by(64, 56, 56)
    '64 x 56 x 56'
    """
    return " x ".join(map(str, sizes))


def _several(value: object) -> tuple[int, ...]:
    return tuple(value) if isinstance(value, Sequence) and not isinstance(value, str) else ()


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
