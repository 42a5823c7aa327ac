"""Reading and writing images of every mode, fast paths, and files that are no images."""

import io
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data import read_image, resize_with_pad, write_image
from cnnkit.data.images.decode import decode_image, fitted_size, read_header
from helpers.images import smooth_image

RAMP = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)


def test_grey_and_colour_images_are_read(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "grey.png")
    assert read_image(tmp_path / "grey.png")[0].numpy().tolist() == RAMP.tolist()
    assert read_image(tmp_path / "grey.png", 3).shape == (3, 4, 4)
    Image.fromarray(np.stack([RAMP, RAMP.T, RAMP * 0], -1)).save(tmp_path / "colour.png")
    colour = read_image(tmp_path / "colour.png")
    assert colour.shape == (3, 4, 4)
    assert colour[1].numpy().tolist() == RAMP.T.tolist()
    assert read_image(tmp_path / "colour.png", 1).shape == (1, 4, 4)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(RAMP.astype(np.uint16) * 257).save(path)
    with Image.open(path) as written:
        assert written.mode.startswith("I")
    assert read_image(path)[0].numpy().tolist() == RAMP.tolist()


def test_palette_transparency_is_applied(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    picture.save(tmp_path / "see-through.gif", transparency=1)
    assert read_image(tmp_path / "see-through.gif")[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255]]


def test_alpha_is_composited_over_white(tmp_path: Path) -> None:
    Image.new("RGBA", (1, 1), (0, 0, 0, 51)).save(tmp_path / "alpha.png")
    assert read_image(tmp_path / "alpha.png").flatten().tolist() == [204, 204, 204]
    Image.new("LA", (1, 1), (0, 0)).save(tmp_path / "grey-alpha.png")
    assert read_image(tmp_path / "grey-alpha.png").tolist() == [[[255]]]


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    picture = Image.fromarray(np.vstack([np.full((8, 16), 250, np.uint8), np.zeros((8, 16), np.uint8)]))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: rows are columns
    picture.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    upright = read_image(tmp_path / "turned.jpg")[0]
    assert upright.shape == (16, 16)
    assert upright[:, :7].max() < 40
    assert upright[:, 9:].min() > 200


@pytest.mark.parametrize(("mode", "channels"), [("1", 1), ("L", 1), ("CMYK", 3), ("YCbCr", 3), ("F", 1), ("I", 1)])
def test_other_modes_are_converted(tmp_path: Path, mode: str, channels: int) -> None:
    Image.fromarray(RAMP).convert("RGB").convert(mode).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif").shape == (channels, 4, 4)


def test_float_images_keep_their_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif").tolist() == [[[0, 127, 255]]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "not an image"), (b"hello", "not an image"), ("cut", "corrupt or incomplete")],
)
def test_bad_file_is_named(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    path = tmp_path / "bad.png"
    if content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


def test_folder_in_place_of_image_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Is a directory"):
        read_image(tmp_path)


def test_oversized_image_is_refused(tmp_path: Path) -> None:
    Image.new("1", (8000, 7000)).save(tmp_path / "bomb.png")
    with pytest.raises(DataError, match=r"refused: 8,000 x 7,000 pixels .* --max-pixels 56000000"):
        read_image(tmp_path / "bomb.png")
    assert read_image(tmp_path / "bomb.png", size=(8, 8), max_pixels=56_000_000).shape == (1, 8, 8)


def test_written_image_reads_back(tmp_path: Path) -> None:
    for image in (
        torch.randint(0, 256, (1, 3, 5), dtype=torch.uint8),
        torch.randint(0, 256, (3, 3, 5), dtype=torch.uint8),
    ):
        write_image(tmp_path / "x.png", image)
        assert read_image(tmp_path / "x.png").equal(image)


def test_write_to_unsupported_path_is_refused(tmp_path: Path) -> None:
    image = torch.zeros(1, 2, 2, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"x\.abc: images cannot be written"):
        write_image(tmp_path / "x.abc", image)
    with pytest.raises(CnnkitError, match=r"cannot write .*x\.png: No such file"):
        write_image(tmp_path / "nowhere" / "x.png", image)
    with pytest.raises(UsageError, match="images cannot be written"):
        write_image(tmp_path / "x.psd", image)
    with pytest.raises(UsageError, match="channels must be 1 or 3, not 2"):
        read_image(tmp_path / "x.png", 2)


# --- of a given size


def difference(path: Path, size: tuple[int, int], channels: int | None = None) -> torch.Tensor:
    """How far the sized picture is from the one that `resize_with_pad` makes of the whole picture, per pixel."""
    whole = read_image(path, channels)
    expected = resize_with_pad(whole[None].float(), size)[0]
    found = read_image(path, channels, size)
    assert found.shape == expected.shape
    assert found.dtype == torch.uint8
    return (found.float() - expected).abs()


@given(*[st.integers(1, 70)] * 2, st.tuples(*[st.integers(1, 70)] * 2), st.sampled_from(["L", "RGB"]))
def test_sized_read_equals_resize_with_pad(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: tuple[int, int], mode: str
) -> None:
    path = tmp_path_factory.mktemp("sized") / "x.png"
    Image.fromarray(np.random.default_rng(1).integers(0, 256, (height, width, 3), np.uint8)).convert(mode).save(path)
    assert difference(path, size).max() <= 1.5


def test_unscaled_images_are_lossless(tmp_path: Path) -> None:
    for suffix in ("png", "jpg"):
        path = tmp_path / f"x.{suffix}"
        smooth_image(size=(20, 31)).save(path)
        for size in ((20, 31), (20, 40), (27, 31)):
            assert not difference(path, size).any()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_rotated_image_is_fitted_upright(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"x.{suffix}"
    smooth_image(size=(301, 203)).save(path, exif=exif, quality=95)
    for size in ((301, 203), (32, 32), (20, 50)):
        assert difference(path, size).max() <= 8 if suffix == "jpg" else 1.5
    with path.open("rb") as file:
        assert read_header(file)[:2] == tuple(read_image(path).shape[1:])


def test_rotated_tiff_with_metadata_is_rotated_once(tmp_path: Path) -> None:
    smooth_image(size=(20, 30)).save(tmp_path / "x.tif", tiffinfo={0x0112: 6, 700: b"<x:xmpmeta/>"})
    assert read_image(tmp_path / "x.tif").shape == (3, 30, 20)
    with (tmp_path / "x.tif").open("rb") as file:
        assert read_header(file) == (30, 20, False)


@pytest.mark.parametrize(
    ("mode", "suffix"),
    [("CMYK", "jpg"), ("P", "png"), ("RGBA", "png"), ("LA", "png"), ("I;16", "png"), ("1", "png"), ("P", "gif")],
)
@pytest.mark.parametrize("channels", [None, 1, 3])
def test_every_mode_is_fitted(tmp_path: Path, mode: str, suffix: str, channels: int | None) -> None:
    path = tmp_path / f"x.{suffix}"
    picture = smooth_image(size=(120, 90), mode="L" if mode == "I;16" else "RGB")
    if mode == "I;16":
        picture = Image.fromarray(np.asarray(picture).astype(np.uint16) * 257)
    elif mode in ("RGBA", "LA"):
        picture.putalpha(smooth_image(size=(120, 90), mode="L"))
    (picture if mode == "I;16" else picture.convert(mode)).save(path)
    assert difference(path, (30, 40), channels).max() <= (6 if suffix == "jpg" else 1.5)
    with path.open("rb") as file:
        assert read_header(file).grey == (read_image(path).shape[0] == 1)


def test_grey_image_with_transparent_value_stays_grey(tmp_path: Path) -> None:
    Image.fromarray(RAMP).save(tmp_path / "x.png", transparency=17)
    expected = RAMP.copy()
    expected[0, 1] = 255
    assert read_image(tmp_path / "x.png").tolist() == [expected.tolist()]


@pytest.mark.parametrize(("height", "width"), [(1001, 903), (900, 1107), (3000, 400)])
@pytest.mark.parametrize("channels", [1, 3])
def test_photo_decoded_at_reduced_size_looks_the_same(tmp_path: Path, height: int, width: int, channels: int) -> None:
    path = tmp_path / "x.jpg"
    smooth_image(size=(height, width), detail=(30, 40)).save(path, quality=92)
    far = difference(path, (100, 100), channels)
    assert far.mean() < 0.6
    assert far.max() < 4


def test_reduced_decoding_of_camera_photo_is_faster(tmp_path: Path) -> None:
    smooth_image(size=(2400, 3200)).save(tmp_path / "x.jpg", quality=92)

    def seconds(size: tuple[int, int] | None) -> float:
        start = time.process_time()
        read_image(tmp_path / "x.jpg", None, size)
        return time.process_time() - start

    whole, small = (min(seconds(size) for _ in range(3)) for size in (None, (224, 224)))
    assert small < whole / 2


@given(st.integers(1, 5000), st.integers(1, 5000), st.tuples(st.integers(1, 300), st.integers(1, 300)))
def test_fitted_size_fits_and_touches_the_target(height: int, width: int, size: tuple[int, int]) -> None:
    inner = fitted_size(height, width, size)
    assert all(1 <= inside <= whole for inside, whole in zip(inner, size, strict=True))
    assert any(inside == whole for inside, whole in zip(inner, size, strict=True))
    assert fitted_size(*inner, size) == inner


# --- the short way through a small PNG


@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from(["L", "RGB"]), st.integers(0, 2**32), st.booleans())
def test_fast_png_decoder_equals_pillow(height: int, width: int, mode: str, seed: int, noise: bool) -> None:
    values = np.random.default_rng(seed).integers(0, 256 if noise else 3, (height, width, 3), np.uint8)
    picture = Image.fromarray(values).convert(mode)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG")
    found = decode_image(buffer.getvalue())
    assert found.tolist() == np.asarray(picture).reshape(height, width, -1).tolist()
    header = read_header(io.BytesIO(buffer.getvalue()))
    assert header == (height, width, mode == "L")


def test_png_with_extra_chunks_uses_pillow() -> None:
    """Text, an orientation behind the pixels, a transparent value: what the short way does not know."""
    text = PngImagePlugin.PngInfo()
    text.add_text("Title", "x")
    for how in ({"pnginfo": text}, {"transparency": 0}):
        buffer = io.BytesIO()
        Image.fromarray(RAMP).save(buffer, "PNG", **how)
        assert decode_image(buffer.getvalue())[1:, :, 0].tolist() == RAMP[1:].tolist()
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PNG")
    content = buffer.getvalue()
    exif = Image.Exif()
    exif[0x0112] = 3
    turned = io.BytesIO()
    Image.fromarray(RAMP).save(turned, "PNG", exif=exif)
    start = turned.getvalue().index(b"eXIf") - 4
    chunk = turned.getvalue()[start : turned.getvalue().index(b"IDAT") - 4]
    behind = content[: content.index(b"IEND") - 4] + chunk + content[content.index(b"IEND") - 4 :]
    assert decode_image(behind)[..., 0].tolist() == RAMP[::-1, ::-1].tolist()


def test_png_with_corrupt_header_is_refused() -> None:
    buffer = io.BytesIO()
    Image.fromarray(RAMP).save(buffer, "PNG")
    content = bytearray(buffer.getvalue())
    assert content[20:24] == b"\0\0\0\4"
    content[23] = 3  # one row less; the checksum knows better
    with pytest.raises(DataError, match="not an image"):
        decode_image(bytes(content))
    with pytest.raises(DataError, match="not an image"):
        read_header(io.BytesIO(bytes(content)))


FORMATS = ["PNG", "JPEG", "MPO", "GIF", "TIFF", "WEBP", "BMP", "PPM", "AVIF", "JPEG2000"]


@given(
    st.sampled_from(FORMATS), st.sampled_from(["L", "RGB"]), st.integers(0, 10**6), st.binary(min_size=1, max_size=8)
)
def test_corrupt_file_is_read_or_refused(kind: str, mode: str, position: int, damage: bytes) -> None:
    """Whatever bytes change, the only error is the one that callers expect."""
    buffer = io.BytesIO()
    smooth_image(size=(24, 24), mode=mode).save(buffer, kind)
    content = bytearray(buffer.getvalue())
    position %= len(content)
    content[position : position + len(damage)] = damage
    for damaged in (bytes(content), bytes(content[:position])):
        for size in (None, (8, 8)):
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(Image, "MAX_IMAGE_PIXELS", 1 << 20)
                try:
                    image = decode_image(damaged, 3, size)
                except DataError:
                    continue
            assert image.shape[2] == 3
            assert size is None or image.shape[:2] == size


def test_large_file_is_read_completely(tmp_path: Path) -> None:
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8))
    picture.save(tmp_path / "x.bmp")
    assert (tmp_path / "x.bmp").stat().st_size > 4 * 2**16
    assert read_image(tmp_path / "x.bmp").permute(1, 2, 0).numpy().tolist() == np.asarray(picture).tolist()
