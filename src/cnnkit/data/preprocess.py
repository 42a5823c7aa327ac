"""From stored images to a network's input: resizing with padding, scaling, normalisation, on the batch."""

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
LONGEST = 8  # times the target: the longer side of an image up to which it is resized as a whole before cropping


@dataclass(frozen=True)
class Preprocess:
    """uint8 images N x C x H x W to floats N x C x `image_size`: (x / 255 - mean) / std, on x's device.

    `mean` and `std` have a value per channel, or one for all. The defaults scale to [0, 1]; a std of 1/255
    keeps the raw pixels 0-255. Images are resized with padding; with `resize`, the shorter side is resized to that many
    pixels and the centre is cropped to `image_size`, as in evaluation on ImageNet. If `mean` has more values than the
    images have channels, the grey channel is repeated.
    """

    image_size: tuple[int, int]
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    resize: int | None = None

    def __call__(self, images: Tensor) -> Tensor:
        """Return the network's input."""
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
        """Return the channels of the network's input for images stored with `stored` channels."""
        return max(stored, len(self.mean))

    def scale_and_shift(self) -> tuple[Tensor, Tensor]:
        """Return the factor of the pixels and the summand: one value per channel, or one for all."""
        mean, std = torch.tensor(self.mean), torch.tensor(self.std)
        return 1 / (255 * std), -mean / std

    def keeps_size(self, height: int, width: int) -> bool:
        """Return whether images of this size are neither resized nor cropped."""
        return self.resize is None and (height, width) == self.image_size

    def placement(self, height: int, width: int) -> tuple[tuple[int, int], tuple[int, int]]:
        """Return the size that an image is resized to, and the input's row and column where it then begins.

        These are negative where the image is cropped.
        """
        if self.resize is not None:
            size = _shorter_to(height, width, self.resize)
        else:
            size = fitted_size(height, width, self.image_size)
        (top, _), (left, _) = map(_margins, size, self.image_size)
        return size, (top, left)

    def keeps(self, images: Tensor) -> bool:
        """Return whether images N x C x H x W keep their size and channels."""
        return self.keeps_size(*images.shape[-2:]) and self.channels(images.shape[1]) == images.shape[1]


@cache
def _on_device(preprocess: Preprocess, device: torch.device) -> list[Tensor]:
    """Return the scale and shift on a device, cached, as copying them would make each batch wait for the device."""
    return [values.to(device).view(-1, 1, 1) for values in preprocess.scale_and_shift()]


def channel_statistics(images: Tensor | Storage) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and standard deviation of each channel of uint8 images N x C x H x W, where 255 is 1.

    For images that are not in memory, the storage's `sample` is used. The std of a constant channel is returned as 1,
    as it is a divisor.
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
    """Resize images N x C x H x W to a shorter side of `shorter` pixels, and crop the centre to `size`.

    The longer side is rounded down, as in torchvision; smaller images are padded with zeros. Bilinear, antialiased
    when shrinking. Integers become float32. Of very long images, only the middle is resized. Raises UsageError for
    other ranks.
    """
    _require_batch(images)
    height, width = images.shape[-2:]
    whole = _shorter_to(height, width, shorter)
    if max(whole) <= LONGEST * max(shorter, *size):
        return _centred(resize(_floats(images), whole), size)
    rows, columns = map(_kept, whole, size)
    return _centred(resize_part(images, whole, rows, columns), size)


def _shorter_to(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Return the size of an image after resizing its shorter side, the longer one rounded down."""
    short = min(height, width)
    return height * shorter // short, width * shorter // short


def _require_batch(images: Tensor) -> None:
    if images.ndim != 4:
        raise UsageError(f"images must be N x C x H x W, not {tuple(images.shape)}")


def _floats(images: Tensor) -> Tensor:
    return images if images.is_floating_point() else images.to(torch.float32)


def _centred(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Pad with zeros or crop to `size`, centred."""
    (top, bottom), (left, right) = map(_margins, images.shape[-2:], size)
    return F.pad(images, (left, right, top, bottom))


def _margins(pixels: int, wanted: int) -> tuple[int, int]:
    """Return the padding before and after an axis, the smaller half first; negative numbers crop.

    Halves of cropped pixels are rounded as in torchvision.
    """
    more = wanted - pixels
    before = more // 2 if more >= 0 else -round(-more / 2)
    return before, more - before


def _kept(pixels: int, wanted: int) -> tuple[int, int]:
    """Return the start and stop of the pixels of an axis that are not cropped."""
    before, behind = _margins(pixels, wanted)
    return max(0, -before), pixels + min(0, behind)
