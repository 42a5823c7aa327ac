"""Memory while one image of 50 million pixels is read, file format by file format.

    python benchmarks/decode_memory.py

Each image is read in a process of its own, by one thread, at 224 x 224 and at its full size; what counts is the peak of
the resident memory above that before reading. Results go to benchmarks/results/ as JSON.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

from _lib.report import RESULTS, write

HEIGHT, WIDTH = 7_000, 7_142
SIZES: dict[str, tuple[int, int] | None] = {"224 x 224": (224, 224), "full size": None}
CASES: dict[str, tuple[str, str, dict[str, Any]]] = {  # Pillow's mode, suffix, and how it is saved
    "JPEG": ("RGB", ".jpg", {}),
    "JPEG, progressive, 4:4:4": ("RGB", ".jpg", {"progressive": True, "subsampling": 0}),
    "PNG, grey (L)": ("L", ".png", {}),
    "PNG, 16-bit grey (I;16)": ("I;16", ".png", {}),
    "PNG, RGB": ("RGB", ".png", {}),
    "PNG, palette (P)": ("P", ".png", {}),
    "PNG, palette with transparency": ("P", ".png", {"transparency": 0}),
    "PNG, grey with transparency (LA)": ("LA", ".png", {}),
    "PNG, RGBA": ("RGBA", ".png", {}),
    "TIFF, CMYK, LZW": ("CMYK", ".tif", {"compression": "tiff_lzw"}),
    "TIFF, CMYK, uncompressed": ("CMYK", ".tif", {}),
    "TIFF, floats": ("F", ".tif", {"compression": "tiff_deflate"}),
    "GIF": ("P", ".gif", {}),
    "BMP": ("RGB", ".bmp", {}),
    "AVIF": ("RGB", ".avif", {"speed": 10}),
    "WebP with transparency": ("RGBA", ".webp", {"lossless": True, "method": 0, "quality": 0}),
    "JPEG 2000": ("RGB", ".jp2", {}),
}


def save(name: str, folder: Path) -> Path:
    """Write the image of a case: 71 x 70 random pixels, enlarged."""
    import numpy as np
    from PIL import Image

    mode, suffix, how = CASES[name]
    pixels = np.random.default_rng(0).integers(0, 256, (70, 71, 4), dtype=np.uint8)
    image = Image.fromarray(pixels).resize((WIDTH, HEIGHT), Image.Resampling.NEAREST)
    if mode == "P":
        image = image.convert("RGB").quantize(16 if "transparency" in how else 256)
    elif mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.float32))
    elif mode != "RGBA":
        image = image.convert(mode)
    path = folder / f"image{suffix}"
    image.save(path, **how)
    return path


def peak() -> int:
    """Return the largest resident memory of this process so far, in kB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))


def read(path: str, size: str) -> None:
    """Print the MB that reading the image takes."""
    from cnnkit.data import read_image

    before = peak()
    read_image(Path(path), size=SIZES[size])
    print((peak() - before) / 1024)


def main() -> None:
    """Measure format after format and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--worker", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        read(*options.worker)
        return
    figures: dict[str, dict[str, float]] = {}
    for name in CASES:
        with tempfile.TemporaryDirectory() as folder:
            path = save(name, Path(folder))
            figures[name] = {}
            for size in SIZES:
                command = [sys.executable, __file__, "--worker", str(path), size]
                found = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                figures[name][size] = round(float(json.loads(found)), 1)
        print(name, figures[name], flush=True)
    work = f"{WIDTH:,} x {HEIGHT:,} pixels, 50 million; one thread; Pillow {version('pillow')}"
    write(options.output, "decode_memory", work, figures)


if __name__ == "__main__":
    main()
