"""From stored images to what a network takes: resized with padding, scaled, normalised, on the batch."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkit.core.errors import UsageError
from cnnkit.core.resize import resize, resize_part
from cnnkit.data.images.decode import fitted_size
from cnnkit.data.storage import Storage, as_storage

__all__ = ["Preprocess", "channel_statistics", "resize_and_crop", "resize_with_pad"]

CHUNK = 256  # images
LONGEST = 8  # times what is asked for: the longer side of an image that is resized whole before it is cut


@dataclass(frozen=True)
class Preprocess:
    """uint8 images N x C x H x W to floats N x C x `image_size`: (x / 255 - mean) / std, on x's device.

    `mean` and `std` have a value per channel, or one for all. The defaults scale to [0, 1]; a std of 1/255
    leaves the raw pixels 0-255. Images are resized whole, with padding; `resize` instead brings the shorter side to
    that many pixels and cuts `image_size` out of the middle, as networks for ImageNet are tested. Where `mean` has more
    values than the images have channels, a grey image is repeated.
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the batch that the network takes."""
        if self.resize is not None:
            images = resize_and_crop(images, self.resize, self.image_size)
        elif not self.keeps_size(*images.shape[-2:]):
            images = resize_with_pad(images, self.image_size)
        batch = images.to(torch.float32)
        scale, shift = _on_device(self, batch.device)
        if self.channels(batch.shape[1]) > batch.shape[1]:
            batch = batch.expand(-1, len(self.mean), -1, -1).contiguous(memory_format=torch.channels_last)
        return batch.mul_(scale).add_(shift)

    def channels(self, stored: int) -> int:
        """Return how many channels the network gets of images that are stored with so many."""
        return max(stored, len(self.mean))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return what a channel's pixels are multiplied by, and what is then added: one value per channel, or one."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return 1 / (255 * std), -mean / std

    def keeps_size(self, height: int, width: int) -> bool:
        """Return whether images of this size are neither resized nor cut."""
        return self.resize is None and (height, width) == self.image_size

    def keeps(self, images: Tensor) -> bool:
        """Return whether the network gets images N x C x H x W in their own size and channels."""
        return self.keeps_size(*images.shape[-2:]) and self.channels(images.shape[1]) == images.shape[1]


@cache
def _on_device(preprocess: Preprocess, device: torch.device) -> list[Tensor]:
    """Keep the scale and the shift where the images are: sending them would make each batch wait for the device."""
    return [values.to(device).view(-1, 1, 1) for values in preprocess.scale_and_shift()]


def channel_statistics(images: Tensor | Storage) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of uint8 images N x C x H x W, where 255 is 1.

    Of images that are not in memory, those of the storage's `sample` count. The standard deviation of a channel that
    never changes is given as 1, so that one can divide by it.
    """
    sample = as_storage(images).sample()
    counts = torch.zeros(sample.shape[1], 256, dtype=torch.int64)
    for chunk in torch.arange(len(sample)).split(CHUNK):
        for row, channel in zip(counts, sample[chunk].unbind(1), strict=True):
            row += torch.bincount(channel.flatten(), minlength=256).cpu()
    levels = torch.arange(256, dtype=torch.float64) / 255
    shares = counts / counts.sum(1, dtype=torch.float64)[:, None]
    means = shares @ levels
    variances = (shares * (levels - means[:, None]) ** 2).sum(1)
    return tuple(means.tolist()), tuple(std or 1.0 for std in variances.sqrt().tolist())


def resize_with_pad(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize images N x C x H x W to fit `size` with their aspect ratio kept, centred on zeros.

    Bilinear, antialiased when shrinking (TensorFlow's function of this name is not). Integers become float32. Raises
    UsageError for other ranks.
    """
    _require_batch(images)
    height, width = images.shape[-2:]
    return _centred(resize(_floats(images), fitted_size(height, width, size)), size)


def resize_and_crop(images: Tensor, shorter: int, size: tuple[int, int]) -> Tensor:
    """Resize images N x C x H x W to a shorter side of `shorter` pixels, and cut `size` out of the middle.

    The longer side is rounded down, as torchvision does; zeros fill what is smaller than `size`. Bilinear, antialiased
    when shrinking. Integers become float32. Of very long images, only the middle is resized. Raises UsageError for
    other ranks.
    """
    _require_batch(images)
    height, width = images.shape[-2:]
    short = min(height, width)
    whole = height * shorter // short, width * shorter // short
    if max(whole) <= LONGEST * max(shorter, *size):
        return _centred(resize(_floats(images), whole), size)
    rows, columns = map(_kept, whole, size)
    return _centred(resize_part(images, whole, rows, columns), size)


def _require_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise UsageError(f"images must be N x C x H x W, not {tuple(images.shape)}")


def _floats(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.to(torch.float32)


def _centred(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pad with zeros to `size` on all sides, or cut to it."""
    (top, bottom), (left, right) = map(_sides, images.shape[-2:], size)
    return F.pad(images, (left, right, top, bottom))


def _sides(pixels: int, wanted: int) -> tuple[int, int]:
    """Return the zeros before and behind an axis, the smaller half first; negative numbers are pixels to cut off.

    Halves of what is cut off are rounded as torchvision does.
    """
    more = wanted - pixels
    before = more // 2 if more >= 0 else -round(-more / 2)
    return before, more - before


def _kept(pixels: int, wanted: int) -> tuple[int, int]:
    """Return which pixels of an axis are not cut off, from one up to another."""
    before, behind = _sides(pixels, wanted)
    return max(0, -before), pixels + min(0, behind)
