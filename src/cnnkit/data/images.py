"""Pictures from files, whatever their mode, as uint8 tensors."""

import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from cnnkit.core.errors import CnnkitError, DataError, UsageError

__all__ = ["read_image", "write_image"]


def read_image(path: Path, channels: int | None = None) -> Tensor:
    """Return the picture as uint8, C x H x W, upright (EXIF orientation applied).

    C is 1 (grey) or 3 (RGB); None keeps what the file has. Palettes are looked up, transparency is laid over
    white, 16-bit grey is scaled to 8 bits, CMYK converted; the first frame counts. Raises DataError for a file
    that is missing, damaged, no picture or absurdly large.
    """
    if channels not in (None, 1, 3):
        raise UsageError(f"channels must be 1 or 3, not {channels}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(path) as file:
                picture = ImageOps.exif_transpose(file)
                picture.load()
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file") from error
    except (IsADirectoryError, PermissionError) as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: not a picture that can be read") from error
    except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
        raise DataError(f"{path}: refused, {error}") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise DataError(f"{path}: the picture is damaged or cut short ({error})") from error
    picture = _eight_bits(picture)
    if channels is None:
        channels = 1 if picture.mode == "L" else 3
    return _to_tensor(picture.convert("L" if channels == 1 else "RGB"))


def write_image(path: Path, image: Tensor) -> None:
    """Write a uint8 image C x H x W (C of 1 or 3) in the format of the path's suffix.

    Raises UsageError for a suffix that names no format, CnnkitError if the file cannot be written.
    """
    array = image[0].numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    try:
        Image.fromarray(np.ascontiguousarray(array)).save(path)
    except (ValueError, KeyError) as error:  # unknown, or known but not to be written
        raise UsageError(f"{path}: no picture format has this suffix; use .png") from error
    except OSError as error:
        raise CnnkitError(f"{path}: cannot be written ({error.strerror or error})") from error


def _eight_bits(picture: Image.Image) -> Image.Image:
    """Return the picture as L or RGB, opaque, with 16-bit and float values brought to 0-255."""
    if picture.mode.startswith("I"):  # 16-bit grey; Pillow's own conversion clips at 255
        values = np.asarray(picture).astype(np.int64)
        scale = 1 if picture.mode == "I" and values.max() <= 255 else 257  # 32 bits may hold any range
        return Image.fromarray((values.clip(0, 255 * scale) // scale).astype(np.uint8))
    if picture.mode == "F":
        values = np.nan_to_num(np.asarray(picture))
        return Image.fromarray((values * (255 if values.max() <= 1 else 1)).clip(0, 255).astype(np.uint8))
    if picture.has_transparency_data:
        grey = picture.mode in ("LA", "La")
        layer = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
        return picture.convert("L" if grey else "RGB")
    return picture.convert("L") if picture.mode in ("1", "L") else picture.convert("RGB")


def _to_tensor(picture: Image.Image) -> Tensor:
    array = np.array(picture)
    return torch.from_numpy(array if array.ndim == 3 else array[..., None]).permute(2, 0, 1)
