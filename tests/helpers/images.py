"""Image files of noise, of smooth colours and of shapes, and the bytes of image files."""

import io
import random
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

SHAPES = ("bar", "disc", "square")  # the classes of shape_photos


def encoded(kind: str, image: Image.Image, **options: object) -> bytes:
    """Return the bytes of an image file of Pillow's format `kind`."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def noise_png(seed: int, size: tuple[int, int] = (8, 8)) -> bytes:
    """Return a grey PNG of noise."""
    return encoded("PNG", Image.fromarray(np.random.default_rng(seed).integers(0, 256, size, np.uint8)))


def save_noise(path: Path | str, seed: int | None = None, size: tuple[int, int] = (12, 12), mode: str = "RGB") -> Path:
    """Write an image of noise, with its path as seed by default, so that no two are alike."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    draw = np.random.default_rng(zlib.crc32(str(path).encode()) if seed is None else seed)
    Image.fromarray(draw.integers(0, 256, size if mode == "L" else (*size, 3), np.uint8)).save(path)
    return path


def noise_photos(
    root: Path | str = "photos", count: int = 30, classes: tuple[str, ...] = ("cat", "dog"), **how: object
) -> Path:
    """Write `count` images of noise in a folder for each class; `how` are options of save_noise."""
    for name in classes:
        for number in range(count):
            save_noise(Path(root, name, f"{number:02}.png"), **how)
    return Path(root)


def world_readable_photos(root: Path, count: int = 24) -> Path:
    """Write images of noise of two classes, a and b, in folders and files that every user may read."""
    for number in range(count):
        path = root / "ab"[number % 2] / f"{number}.png"
        save_noise(path, number, (16, 16))
        for folder in (root, path.parent):
            folder.chmod(0o755)
        path.chmod(0o644)
    return root


def smooth_image(
    seed: int = 0, size: tuple[int, int] = (150, 200), mode: str = "RGB", detail: tuple[int, int] = (6, 8)
) -> Image.Image:
    """Return an image as photographs are, without noise from pixel to pixel; `size` is height and width."""
    coarse = np.random.default_rng(seed).integers(0, 256, (*detail, 3), np.uint8)
    return Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC).convert(mode)


def draw_shape(path: Path, kind: str, seed: int) -> None:
    """Draw a dark shape on a bright ground, or the other way round, in a photo of any size."""
    chance = random.Random(seed)
    size = (chance.randint(40, 90), chance.randint(40, 90))
    ground, shape = ((chance.randint(180, 255),) * 3, (chance.randint(0, 70),) * 3)
    image = Image.new("RGB", size, ground)
    side = min(size) // 2
    left, top = (chance.randint(0, extent - side) for extent in size)
    box = (left, top, left + side, top + (side if kind != "bar" else side // 4))
    pen = ImageDraw.Draw(image)
    (pen.ellipse if kind == "disc" else pen.rectangle)(box, fill=shape)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def shape_photos(folder: Path, count: int) -> Path:
    """Draw `count` photos of each class of SHAPES, every other one as JPEG."""
    for number, kind in enumerate(SHAPES):
        for seed in range(count):
            draw_shape(folder / kind / f"{seed:02}.{'jpg' if seed % 2 else 'png'}", kind, 100 * number + seed)
    return folder
