"""The pixel limit: of decoded sizes and of headers, in every command and in Python."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import cnnkit
from cnnkit.core.errors import DataError, UsageError
from cnnkit.data import load_dataset, read_image, to_pixels
from helpers.cli import Cli, one_line
from helpers.images import encoded, png_chunk, save_noise
from helpers.measured import RUN, measured

FLAG = "--max-pixels 56000000"


def ihdr(width: int, height: int, colour: int = 2, interlaced: int = 0) -> bytes:
    return png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, colour, 0, 0, interlaced))


def png(*chunks: bytes) -> bytes:
    pixels = png_chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks) + pixels + png_chunk(b"IEND", b"")


def saved(form: str, mode: str = "RGB", **options: object) -> bytearray:
    return bytearray(encoded(form, Image.new(mode, (64, 64)), **options))


def patched(content: bytearray, mark: bytes, behind: int, form: str, *values: int) -> bytes:
    """Return a file with other numbers behind a mark."""
    struct.pack_into(form, content, content.index(mark) + behind, *values)
    return bytes(content)


def gif(screen: tuple[int, int] = (64, 64), frame: tuple[int, int] = (64, 64), disposal: int = 0) -> bytes:
    content = saved("GIF", "P")
    struct.pack_into("<HH", content, 6, *screen)
    at = content.index(b",", 13 + (3 << (content[10] & 7) + 1))
    struct.pack_into("<HH", content, at + 5, *frame)
    return bytes(content[:at]) + b"!\xf9\x04" + bytes([disposal << 2, 0, 0, 0, 0]) + bytes(content[at:])


def tiff(
    width: int, height: int, content: bytes, *more: tuple[int, int], offset: int = 273, compression: int = 8
) -> bytes:
    tags = [(256, width), (257, height), (258, 8), (259, compression), (262, 1), (277, 1), *more]
    tags = sorted(
        [*tags, (offset, 8 + 2 + 12 * (len(tags) + 2) + 4), (324 + 1 if offset == 324 else 279, len(content))]
    )
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + content


def webp(width: int, height: int) -> bytes:
    own = saved("WEBP", "RGBA", lossless=True)[12:]
    canvas = struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    extended = b"VP8X" + struct.pack("<I", 10) + b"\x10\0\0\0" + canvas
    return b"RIFF" + struct.pack("<I", 4 + len(extended) + len(own)) + b"WEBP" + extended + own


def bmp(width: int, height: int) -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, width, height, 1, 24, 0, 0, 0, 0, 0, 0)


def scans(content: bytearray) -> bytes:
    """Return a JPEG whose first scan is of one channel."""
    at = content.index(b"\xff\xda")
    return bytes(content[:at]) + b"\xff\xda\0\x08\x01\x01\0\0\x3f\0" + bytes(content[at + 14 :])


def tall(content: bytearray, mark: bytes, side: int) -> bytearray:
    return bytearray(patched(content, mark, 5, ">HH", side, side))


ZEROS = zlib.compress(bytes(1 << 20), 9)
FILES = {
    "plain.png": png(ihdr(60000, 60000)),
    "interlaced.png": png(ihdr(8000, 8000, interlaced=1)),
    "twice.png": png(ihdr(10, 10), ihdr(60000, 60000)),
    "screen.gif": gif(screen=(65535, 65535)),
    "frame.gif": gif(frame=(65535, 65535)),
    "disposed.gif": gif(frame=(65535, 65535), disposal=2),
    "less.gif": gif(screen=(8000, 8000)),
    "strips.tif": tiff(60000, 60000, ZEROS, (278, 60000)),
    "tile.tif": tiff(64, 64, ZEROS, (322, 65536), (323, 65536), offset=324),
    "raw-tile.tif": tiff(64, 64, bytes(999), (322, 65536), (323, 65536), offset=324, compression=1),
    "canvas.webp": webp(16383, 16383),
    "ispe.avif": patched(saved("AVIF"), b"ispe", 8, ">II", 16000, 16000),
    "ihdr.jp2": patched(saved("JPEG2000"), b"ihdr", 4, ">II", 60000, 60000),
    "huge.bmp": bmp(2**31 - 1, 2**31 - 1),
    "down.bmp": bmp(4, 1 - 2**31),
    "big.ppm": b"P6 60000 60000 255\n",
    "deep.pgm": b"P5 60000 60000 65535\n",
    "progressive.jpg": bytes(tall(saved("JPEG", progressive=True), b"\xff\xc2", 60000)),
    "baseline.jpg": bytes(tall(saved("JPEG"), b"\xff\xc0", 65000)),
    "scans.jpg": scans(tall(saved("JPEG"), b"\xff\xc0", 20000)),
}
CORRUPT = {
    "strip.tif": tiff(64, 64, zlib.compress(bytes(1 << 27), 9), (278, 2**31)),
    "siz.jp2": patched(saved("JPEG2000"), b"\xff\x51", 6, ">II", 60000, 60000),
    "number.ppm": b"P6 99999999999999999999 1 255\n",
    "digits.ppm": b"P2 " + b"9" * 5000 + b" 1 1\n",
    "few.ppm": b"P6 6000 6000 255\n",
    "few.bmp": bmp(6000, 6000),
}


def test_false_headers_allocate_no_memory() -> None:
    for name, content in (FILES | CORRUPT).items():
        Path(name).write_bytes(content)
    result = measured("predict", RUN, *FILES, *CORRUPT)
    assert result.code == 3
    assert result.megabytes < 900, result.megabytes
    lines = {line.split(": ")[1]: line for line in result.err.splitlines() if ": " in line}
    for name in FILES:
        assert "refused: " in lines[name], lines[name]
        assert "pixels are more than max_pixels allows" in lines[name], lines[name]
    for name in CORRUPT:
        assert "corrupt or incomplete" in lines[name], lines[name]
    assert len(result.err.splitlines()) == len(FILES) + len(CORRUPT) + 1


def test_tiff_with_long_tag_list_takes_memory_of_its_file() -> None:
    numbers = 25_000_000
    content = tiff(16, 16, bytes(256), (278, 16), (338, 0), compression=1)
    at = content.index(struct.pack("<HHI", 338, 4, 1))
    entry = struct.pack("<HHII", 338, 3, numbers, len(content))
    Path("long.tif").write_bytes(content[:at] + entry + content[at + 12 :] + bytes(2 * numbers))
    result = measured("predict", RUN, "long.tif")
    assert result.code == 0, result
    assert result.megabytes < 600


def test_pixel_limit_applies_to_the_decoded_jpeg_size() -> None:
    Image.new("RGB", (800, 800)).save("baseline.jpg")
    Image.new("RGB", (800, 800)).save("progressive.jpg", progressive=True)
    assert read_image(Path("baseline.jpg"), size=(28, 28), max_pixels=10_000).shape == (3, 28, 28)
    with pytest.raises(DataError, match="refused: 800 x 800 pixels"):
        read_image(Path("baseline.jpg"), max_pixels=10_000)
    with pytest.raises(DataError, match=r"refused: 800 x 800 pixels .* --max-pixels 640000"):
        read_image(Path("progressive.jpg"), size=(28, 28), max_pixels=10_000)
    assert read_image(Path("progressive.jpg"), size=(28, 28), max_pixels=640_000).shape == (3, 28, 28)


@pytest.fixture
def large() -> Path:
    """A folder of two classes of which one image has 56 million pixels."""
    for number in range(12):
        save_noise(Path("photos", "ab"[number % 2], f"{number}.png"), number, (9, 8), "L")
    Image.new("1", (8000, 7000)).save("photos/a/large.png")
    return Path("photos")


VERBS = (
    "train lenet --data photos --image-size 28 --epochs 1 --batch-size 4",
    "lr-find lenet --data photos --image-size 28 --batch-size 4 --steps 3",
    "data check photos",
    "data pack photos shards",
    f"predict {RUN} photos/a/large.png",
    f"explain {RUN} photos/a/large.png --method occlusion --sanity",
    "features lenet photos/a/large.png",
    "filter photos/a/large.png --kernel blur",
)


@pytest.mark.parametrize("command", VERBS)
def test_every_command_has_the_pixel_limit_and_flag(cli: Cli, large: Path, command: str) -> None:
    refused = cli(*command.split())
    assert refused.code == 3, refused
    assert FLAG in refused.err + refused.out
    allowed = cli(*command.split(), *FLAG.split())
    assert allowed.code == (1 if "lr-find" in command else 0), allowed  # of so few steps no rate is found
    assert "refused" not in allowed.err + allowed.out


def test_refused_image_is_read_after_raising_the_limit(cli: Cli, large: Path) -> None:
    options = {"image_size": (28, 28), "progress": False}
    for skip in (1, 2):  # the cache knows the file
        with pytest.raises(DataError, match=FLAG):
            load_dataset(large, **options)
        assert len(load_dataset(large, on_bad_image="skip", **options).skipped) == 1, skip
    whole = load_dataset(large, max_pixels=56_000_000, **options)
    assert not whole.skipped
    assert len(whole.train) + len(whole.test or ()) == 13
    streamed = load_dataset(large, max_pixels=56_000_000, budget=0, **options)
    assert len(streamed.train.images[:]) == len(whole.train)
    shown = cli("data", "show", "photos", "--image-size", 28)
    assert shown.code == 0, shown


def test_shards_and_evaluation_have_the_pixel_limit(cli: Cli, large: Path) -> None:
    assert cli("data", "pack", "photos", "shards", *FLAG.split()).code == 0
    command = ("train", "lenet", "--data", "shards", "--image-size", 28, "--epochs", 1, "--batch-size", 4)
    one_line(cli(*command), 3, "large", FLAG)
    assert cli(*command, *FLAG.split()).code == 0
    test = Path("other/test")
    large.rename("other-photos")
    Path("other/train").parent.mkdir()
    (test.parent / "train").symlink_to(Path("other-photos").absolute())
    test.symlink_to(Path("other-photos").absolute())
    run = "runs/lenet-shards-1"
    one_line(cli("evaluate", run, "--data", "other"), 3, FLAG)
    assert "refused" not in cli("evaluate", run, "--data", "other", *FLAG.split()).err


def test_python_api_has_the_pixel_limit() -> None:
    model = cnnkit.load(RUN)
    image = Image.new("L", (300, 300))
    image.save("a.png")
    for given in ("a.png", image):
        found = model.predict(given, max_pixels=10_000)
        assert "refused: 300 x 300 pixels" in next(iter(found.errors.values()))
        assert len(model.predict(given, max_pixels=90_000)) == 1
        with pytest.raises(DataError, match="--max-pixels 90000"):
            model.batch(given, max_pixels=10_000)
    with pytest.raises(DataError, match="refused"):
        to_pixels(image, max_pixels=10_000)
    assert to_pixels(np.zeros((300, 300), np.uint8), max_pixels=10_000).shape == (300, 300, 1)  # it is there already
    for bad in (0, -1, 2**31, 1.5):
        with pytest.raises(UsageError, match="max_pixels"):
            model.predict("a.png", max_pixels=bad)  # type: ignore[arg-type]


STARTS = {
    "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n",
    "WMF": b"\xd7\xcd\xc6\x9a\0\0" + bytes(90),
    "ICO": b"\0\0\1\0\1\0" + bytes(90),
    "ICNS": b"icns" + bytes(90),
    "PSD": b"8BPS" + bytes(90),
    "FITS": b"SIMPLE  =                    T" + bytes(90),
    "": b"%PDF-1.4\n",
    "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(90),
    "GRIB": b"GRIB" + bytes(90),
    "BUFR": b"BUFR" + bytes(90),
    "MPEG": b"\0\0\1\xb3" + bytes(90),
    "FPX": b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(90),
    "IM": b"Image type: L\r\nName: x\r\n\x1a" + bytes(600),
}
NAMED = ("PostScript", "WMF", "ICO", "ICNS", "PSD", "FITS")


def test_images_start_no_program(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = tmp_path / "bin" / "gs"
    fake.parent.mkdir()
    fake.write_text(f"#!/bin/sh\ntouch {tmp_path}/mark\n")
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}:{os.environ['PATH']}")
    for number, (name, content) in enumerate(STARTS.items()):
        for folder in ("a", "b"):
            path = Path("photos", folder, f"{number}-{name}.jpg")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    files = sorted(map(str, Path("photos/a").iterdir()))
    found = cli("predict", RUN, *files)
    assert found.code == 3
    for name in NAMED:
        assert f"{name} images are not supported" in found.err
    assert found.err.count("not an image of a supported format") == len(STARTS) - len(NAMED)
    assert cli("data", "check", "photos").code == 3
    one_line(cli("train", "lenet", "--data", "photos", "--image-size", 28), 3)
    one_line(cli("data", "show", "photos", "--image-size", 28), 3)
    one_line(cli("data", "pack", "photos", "out"), 3)
    for path in files:
        one_line(cli("features", "lenet", path), 3)
        one_line(cli("filter", path, "--kernel", "blur"), 3)
    assert not Path(tmp_path, "mark").exists()


def test_jpeg_of_many_scans_is_refused() -> None:
    file = io.BytesIO()
    Image.new("RGB", (64, 64), "red").save(file, "JPEG", progressive=True)
    content = file.getvalue()
    last = content.rfind(b"\xff\xda")
    for scans, sound in ((300, True), (600, False)):
        Path("x.jpg").write_bytes(content[:last] + content[last:-2] * scans + content[-2:])
        if sound:
            assert read_image(Path("x.jpg")).shape == (3, 64, 64)
        else:
            with pytest.raises(DataError, match=r"x\.jpg: refused: it has 6\d\d scans"):
                read_image(Path("x.jpg"))
