"""Pictures of every mode that users have, and files that are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from cnnkit.core.errors import CnnkitError, DataError, UsageError
from cnnkit.data import read_image, write_image

RAMP = np.arange(0, 256, 17, dtype=np.uint8).reshape(4, 4)


def test_grey_and_colour(tmp_path: Path) -> None:
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


def test_palette_and_its_transparency(tmp_path: Path) -> None:
    picture = Image.new("P", (2, 1))
    picture.putpalette([255, 0, 0, 0, 0, 255])
    picture.putpixel((1, 0), 1)
    picture.save(tmp_path / "palette.png")
    assert read_image(tmp_path / "palette.png")[:, 0].T.tolist() == [[255, 0, 0], [0, 0, 255]]
    picture.save(tmp_path / "see-through.gif", transparency=1)
    assert read_image(tmp_path / "see-through.gif")[:, 0].T.tolist() == [[255, 0, 0], [255, 255, 255]]


def test_alpha_lies_over_white(tmp_path: Path) -> None:
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
def test_other_modes(tmp_path: Path, mode: str, channels: int) -> None:
    Image.fromarray(RAMP).convert("RGB").convert(mode).save(tmp_path / "x.tif")
    assert read_image(tmp_path / "x.tif").shape == (channels, 4, 4)


def test_float_pictures_keep_their_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save(tmp_path / "f.tif")
    assert read_image(tmp_path / "f.tif").tolist() == [[[0, 127, 255]]]


@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "no such file"), (b"", "not a picture"), (b"hello", "not a picture"), ("cut", "damaged or cut short")],
)
def test_a_bad_file_is_named(tmp_path: Path, content: bytes | str | None, reason: str) -> None:
    path = tmp_path / "bad.png"
    if content == "cut":
        Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64), np.uint8)).save(path)
        content = path.read_bytes()[:2000]
    if isinstance(content, bytes):
        path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_image(path)
    assert str(caught.value).startswith(str(path))


def test_a_folder_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_image(tmp_path)


def test_an_absurdly_large_picture_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("1", (300, 300)).save(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)
    with pytest.raises(DataError, match="refused"):
        read_image(tmp_path / "bomb.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 60_000)  # only a warning to Pillow
    with pytest.raises(DataError, match="refused"):
        read_image(tmp_path / "bomb.png")


def test_what_is_written_reads_back(tmp_path: Path) -> None:
    for image in (
        torch.randint(0, 256, (1, 3, 5), dtype=torch.uint8),
        torch.randint(0, 256, (3, 3, 5), dtype=torch.uint8),
    ):
        write_image(tmp_path / "x.png", image)
        assert read_image(tmp_path / "x.png").equal(image)


def test_writing_to_the_wrong_place(tmp_path: Path) -> None:
    image = torch.zeros(1, 2, 2, dtype=torch.uint8)
    with pytest.raises(UsageError, match=r"x\.abc: no picture format"):
        write_image(tmp_path / "x.abc", image)
    with pytest.raises(CnnkitError, match="cannot be written"):
        write_image(tmp_path / "nowhere" / "x.png", image)
    with pytest.raises(UsageError, match="no picture format"):
        write_image(tmp_path / "x.psd", image)
    with pytest.raises(UsageError, match="channels must be 1 or 3, not 2"):
        read_image(tmp_path / "x.png", 2)
