"""Image formats by content, metadata beside the pixels, and formats that are not read."""

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin, TiffImagePlugin

from cnnkit.core.errors import DataError
from cnnkit.data import load_folder, read_image
from cnnkit.data.check.run import diagnose
from cnnkit.data.images.decode import decode_image, read_header, thumbnail, write_image
from cnnkit.data.images.formats import FORMATS, SUFFIXES, Unread, format_of, open_image, unread
from cnnkit.deploy.inputs import each_image
from helpers.images import encoded, png_chunk, smooth_image

try:
    import pillow_heif
except ImportError:
    pillow_heif = None
needs_heif = pytest.mark.skipif(pillow_heif is None, reason="needs pillow-heif")

SIZE = (40, 24)  # height and width
HEIC = (".heic", ".heif", ".hif")
LOSSY = {".webp", ".jpg", ".jpeg", ".mpo", ".avif", *HEIC}
ORIENTATION = 0x0112


def photo(seed: int = 0, size: tuple[int, int] = SIZE) -> Image.Image:
    return smooth_image(seed, size, detail=(5, 4))


def saved(kind: str, image: Image.Image | None = None, **how: Any) -> bytes:
    image = image or photo()
    if kind != "HEIF":
        return encoded(kind, image, **how)
    buffer = io.BytesIO()
    pillow_heif.from_pillow(image).save(buffer, quality=-1, chroma=444, **how)
    return buffer.getvalue()


def header(content: bytes) -> tuple[int, ...]:
    return tuple(read_header(io.BytesIO(content)))[:2]


def write(path: str, content: bytes = b"") -> str:
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Path(path).write_bytes(content)
    return path


# --- what is read


@pytest.mark.parametrize("suffix", [form.suffixes[0] for form in FORMATS if form.opener and form.written])
def test_every_format_is_written_and_read_by_its_suffix(suffix: str) -> None:
    image = read_image(Path(write("x.png", saved("PNG"))))
    write_image(Path(f"x{suffix}"), image)
    found = read_image(Path(f"x{suffix}"))
    assert found.shape == (3, *SIZE)
    assert (found.float() - image).abs().mean() < (30 if suffix == ".gif" else 8 if suffix in LOSSY else 2)
    assert header(Path(f"x{suffix}").read_bytes()) == SIZE


@pytest.mark.parametrize("suffix", [*(suffix for suffix in SUFFIXES if suffix not in HEIC), ".JPG", ".Jp2"])
def test_every_suffix_is_found_in_a_folder(suffix: str) -> None:
    for name in ("a", "b"):
        write(f"photos/{name}/1{suffix}", saved("PNG"))  # the content tells what it is
    assert len(load_folder(Path("photos"), test_fraction=0, progress=False).train) == 2


@pytest.mark.parametrize("how", [{}, {"no_jp2": True}])
@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA", "I;16"])
def test_jpeg_2000_is_read_in_every_mode(mode: str, how: dict[str, bool]) -> None:
    picture = Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257)
    content = saved("JPEG2000", picture if mode == "I;16" else photo().convert(mode), **how)
    grey = mode in ("L", "LA", "I;16")
    expected = np.asarray(photo().convert("L" if grey else "RGB")).reshape(*SIZE, -1)
    assert np.abs(decode_image(content).astype(int) - expected).max() <= 1
    assert read_header(io.BytesIO(content)) == (*SIZE, grey)


def test_first_image_of_mpo_is_read() -> None:
    content = saved("MPO", save_all=True, append_images=[photo(1, (10, 10))], quality=95)
    with Image.open(io.BytesIO(content)) as picture:
        assert picture.format == "MPO"
        assert picture.n_frames == 2
    assert np.abs(decode_image(content).astype(int) - np.asarray(photo())).mean() < 8
    assert header(content) == SIZE


@needs_heif
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_heic_is_read_by_an_extra(mode: str) -> None:
    path = Path(write("photos/a/x.heic", saved("HEIF", photo().convert(mode))))
    write("photos/b/x.HIF", path.read_bytes())
    expected = np.asarray(photo().convert(mode).convert("RGB")).transpose(2, 0, 1)
    assert np.abs(read_image(path, 3).numpy().astype(int) - expected).mean() < 3
    data = load_folder(Path("photos"), test_fraction=0, progress=False)
    assert data.train.names == ("a/x.heic", "b/x.HIF")
    assert not diagnose(Path("photos"), progress=False).harms
    assert unread(str(path)) is None


HEIC_START = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(100)
WITHOUT_HEIF = """
import sys
sys.modules["pillow_heif"] = None
from pathlib import Path
from cnnkit.core.errors import DataError
from cnnkit.data import load_folder, read_image, scan_folder
from cnnkit.data.check.run import diagnose
from cnnkit.data.images.formats import SUFFIXES, unread
from cnnkit.deploy.inputs import each_image
print(unread("photos/b/2.heic"))
print(scan_folder(Path("photos")).splits["train"].paths)
for finding in diagnose(Path("photos"), progress=False).findings:
    if finding.kind.startswith("un"):
        print(finding.kind, finding.paths, finding.detail)
for what in (
    lambda: read_image(Path("photos/b/2.heic")),
    lambda: [image.read(3, None) for image in each_image("photos/b/2.heic", 3)],
    lambda: load_folder(Path("photos"), progress=False),
):
    try:
        what()
    except DataError as error:
        print(error)
"""


def test_heic_without_the_extra_is_reported_everywhere() -> None:
    for path in ("photos/a/1.png", "photos/b/1.png"):
        write(path, saved("PNG", photo(ord(path[7]))))
    write("photos/b/2.heic", HEIC_START)
    write("photos/b/3.jpg", HEIC_START)
    result = subprocess.run([sys.executable, "-c", WITHOUT_HEIF], capture_output=True, text=True, check=True)
    what = "HEIC images are not supported: pip install 'cnnkit[heic]'"
    assert result.stdout.splitlines() == [
        "Unread(name='HEIC', remedy=\"pip install 'cnnkit[heic]'\")",
        "('a/1.png', 'b/1.png', 'b/3.jpg')",
        f"unread-format ('b/3.jpg',) {what}",
        "unseen ('b/2.heic',) holds a HEIC image: pip install 'cnnkit[heic]'",
        f"photos/b/2.heic: {what}",
        what,
        f"photos: 1 of 3 images cannot be read: b/3.jpg ({what}); inspect them with: cnnkit data check photos, "
        "or skip them with: --on-bad-image skip",
    ]


# --- what is not


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n"


@pytest.fixture
def mark(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a program leaves that is started to decode an image."""
    for name in ("gs", "gswin64c", "djpeg", "ppmtogif", "sh"):
        program = tmp_path / "programs" / name
        program.parent.mkdir(exist_ok=True)
        program.write_text(f"#!/bin/sh\necho {name} >> {tmp_path}/mark\nexit 1\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}/programs:{os.environ['PATH']}")
    return tmp_path / "mark"


def test_image_formats_start_no_program(mark: Path) -> None:
    subprocess.run(["gs"], check=False)
    assert mark.read_text() == "gs\n", "it would be seen"
    mark.unlink()
    for name in ("a/1.png", "b/1.png"):
        write(f"photos/{name}", saved("PNG"))
    for suffix in (".jpg", ".png", ".eps", ".ps", ""):
        write(f"photos/b/x{suffix}", EPS)
        with pytest.raises(
            DataError, match=r"photos/b/x.*: PostScript images are not supported: convert to JPEG or PNG"
        ):
            read_image(Path(f"photos/b/x{suffix}"))
        with pytest.raises(DataError, match="PostScript images are not supported"):
            read_header(io.BytesIO(EPS))
        (image,) = each_image(f"photos/b/x{suffix}", 3)
        with pytest.raises(DataError, match="PostScript images are not supported"):
            image.read(3, None)
    with pytest.raises(DataError, match=r"2 of 4 images cannot be read: b/x.jpg \(PostScript"):
        load_folder(Path("photos"), progress=False)
    found = diagnose(Path("photos"), progress=False)
    kinds = {finding.paths: finding.kind for finding in found.findings if len(finding.paths) == 1}
    assert {kinds[(f"b/x{suffix}",)] for suffix in (".jpg", ".png")} == {"unread-format"}
    assert {kinds[(f"b/x{suffix}",)] for suffix in (".eps", ".ps", "")} == {"unseen"}
    assert not mark.exists()


@pytest.mark.parametrize("kind", ["ICO", "TGA", "PCX", "SGI", "DDS", "ICNS", "MSP", "SPIDER", "XBM", "PDF"])
def test_other_pillow_formats_are_not_read(kind: str) -> None:
    mode = {"XBM": "1", "MSP": "1", "SPIDER": "F"}.get(kind, "RGB")
    content = saved(kind, photo(0, (16, 16)).convert(mode))
    for read in (decode_image, thumbnail, header):
        with pytest.raises(DataError, match=r"not an image of a supported format|images are not supported"):
            read(content)


def test_pillow_open_is_not_used() -> None:
    sources = Path(sys.modules["cnnkit"].__file__ or "").parent.rglob("*.py")
    assert [path.name for path in sources if "Image.open(" in path.read_text()] == []


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("x.png", saved("PNG"), None),
        ("x.jpg", saved("PNG"), None),
        ("x.txt", b"hello", None),
        ("x", b"hello", None),
        ("x.png", b"", None),
        ("x.nef", b"", None),
        ("x", saved("PNG"), Unread("PNG", "no extension; add .png")),
        ("x.y/x", saved("JPEG"), Unread("JPEG", "no extension; add .jpg")),
        ("x.jpg_large", saved("JPEG"), Unread("JPEG", "wrong extension; rename *.jpg_large to *.jpg")),
        ("x.heic", saved("JPEG"), None if pillow_heif else Unread("JPEG", "wrong extension; rename *.heic to *.jpg")),
        ("x.data", saved("TIFF"), Unread("TIFF", "wrong extension; rename *.data to *.tif")),
        ("x.svg", b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', Unread("SVG", "convert")),
        ("x", b"<svg/>", Unread("SVG", "convert")),
        ("x.jpg", b"8BPS\0\1" + bytes(20), Unread("PSD", "convert")),
        ("x.nef", b"MM\0*" + bytes(60), Unread("RAW", "convert")),
        ("x.DNG", b"II*\0" + bytes(60), Unread("RAW", "convert")),
        ("x.cr2", b"II*\0\x10\0\0\0CR\2\0" + bytes(60), Unread("RAW", "convert")),
        ("x.cr3", b"\0\0\0\x18ftypcrx \0\0\0\1crx isom", Unread("RAW", "convert")),
        ("x.tif", b"II*\0\x10\0\0\0CR\2\0" + bytes(60), Unread("RAW", "convert")),
        ("x.jxl", b"\xff\x0a" + bytes(9), Unread("JPEG XL", "convert")),
    ],
)
def test_unsupported_images_are_recognised_by_signature(name: str, content: bytes, expected: Unread | None) -> None:
    found = unread(write(name, content))
    if expected and expected.remedy == "convert":
        expected = expected._replace(remedy="convert to JPEG or PNG")
    assert found == expected


def test_non_regular_files_are_not_opened() -> None:
    os.mkfifo("pipe")
    Path("link").symlink_to("nowhere")
    Path("folder").mkdir()
    assert [unread(name) for name in ("pipe", "link", "folder", "none")] == [None] * 4


def test_suffixes_and_signatures_belong_to_one_format() -> None:
    suffixes = [suffix for form in FORMATS for suffix in form.suffixes]
    assert len(set(suffixes)) == len(suffixes)
    assert all(suffix == suffix.lower() and suffix[0] == "." for suffix in suffixes)
    for form in FORMATS:
        if form.opener and form.written:
            content = saved(form.written)
            assert format_of(content) is form


# --- orientation


def exif_block(value: int, kind: int = 3, count: int = 1) -> bytes:
    """An EXIF block that says nothing but the orientation, as a short (3), a long (4) or text (2)."""
    entry = struct.pack("<HHII", ORIENTATION, kind, count, value)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + bytes(4)


BLOCKS: dict[str, bytes] = {
    **{str(value): exif_block(value) for value in (*range(12), 65535)},
    "long 6": exif_block(6, 4),
    "text": exif_block(ord("6"), 2, 2),
    "two": exif_block(6 + (6 << 16), 3, 2),
    "corrupt": b"Exif\0\0II*\0\xff\xff\xff\x7f" + bytes(20),
    "nonsense": b"Exif\0\0nonsense",
    "cut": exif_block(6)[:-12],
    "empty": b"Exif\0\0",
}
TURNED = {"5", "6", "7", "8", "long 6"}


def with_exif(kind: str, block: bytes) -> bytes:
    """An image whose EXIF block is this, in one of the places where it may be."""
    if kind in ("JPEG", "WEBP"):
        return saved(kind, exif=block)
    if kind == "PNG":
        content = saved(kind)
        return content[:33] + png_chunk(b"eXIf", block[6:]) + content[33:]
    if kind == "PNG, behind":
        content = saved("PNG", photo())
        return content[:-12] + png_chunk(b"eXIf", block[6:]) + content[-12:]
    lines = b"\nexif\n%8d\n" % len(block) + block.hex().encode()
    content = saved("PNG")
    return content[:33] + png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(lines)) + content[33:]


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "PNG, behind", "PNG, as text", "WEBP"])
@pytest.mark.parametrize("name", BLOCKS)
def test_orientation_outside_1_to_8_is_ignored(kind: str, name: str) -> None:
    """What is neither leaves the image as it is stored; header, pixels and thumbnail agree."""
    content = with_exif(kind, BLOCKS[name])
    upright = decode_image(content)
    assert header(content) == upright.shape[:2] == (SIZE[::-1] if name in TURNED else SIZE)
    plain = decode_image(saved(kind.partition(",")[0])).astype(int)
    if name not in TURNED and name not in ("2", "3", "4"):
        assert np.abs(upright - plain).max() == 0
    elif name in ("6", "long 6"):
        assert np.abs(upright - np.rot90(plain, -1)).max() == 0
    turned = Image.fromarray(upright).resize((12, 12), Image.Resampling.BILINEAR)
    assert np.abs(thumbnail(content).reshape(12, 12, 3).astype(int) - np.asarray(turned)).mean() < 3


@pytest.mark.parametrize("value", [*range(12), 65535])
@pytest.mark.parametrize("kind", [3, 4])
def test_tiff_orientation_tag_is_applied(value: int, kind: int) -> None:
    ifd = TiffImagePlugin.ImageFileDirectory_v2()
    ifd.tagtype[ORIENTATION] = kind
    ifd[ORIENTATION] = value
    content = saved("TIFF", tiffinfo=ifd)
    upright = decode_image(content)
    assert header(content) == upright.shape[:2] == (SIZE[::-1] if 5 <= value <= 8 else SIZE)
    if value == 6:
        assert upright.tolist() == np.rot90(np.asarray(photo()), -1).tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_avif_orientation_comes_from_its_container(orientation: int) -> None:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    exif[0x010E] = "a description"
    content = saved("AVIF", exif=exif, quality=100, subsampling="4:4:4")
    shape = SIZE[::-1] if orientation > 4 else SIZE
    upright = decode_image(content)
    assert header(content) == upright.shape[:2] == shape
    start = content.index(b"MM\0*") if b"MM\0*" in content else content.index(b"II*\0")
    for corrupt in (b"nonsense", b"II*\0\xff\xff\xff\x7f"):
        spoiled = content[:start] + corrupt + content[start + 8 :]
        assert decode_image(spoiled).tolist() == upright.tolist()
        assert header(spoiled) == shape


@needs_heif
@pytest.mark.parametrize("orientation", [*range(12), 65535])
def test_heic_orientation_comes_from_its_container(orientation: int) -> None:
    block = exif_block(orientation)
    content = saved("HEIF", exif=block)
    upright = decode_image(content)
    assert header(content) == upright.shape[:2]
    start = content.index(b"II*\0")
    for corrupt in (b"nonsense", b"II*\0\xff\xff\xff\x7f"):
        spoiled = content[:start] + corrupt + content[start + 8 :]
        assert decode_image(spoiled).tolist() == upright.tolist()
        assert header(spoiled) == upright.shape[:2]


@pytest.mark.parametrize("xmp", ['tiff:Orientation="6"', "<tiff:Orientation>6</tiff:Orientation>"])
@pytest.mark.parametrize("where", ["JPEG", "WEBP", "before", "behind", "compressed"])
def test_xmp_orientation_is_handled(xmp: str, where: str) -> None:
    text = f"<x:xmpmeta>{'.' * 5000}{xmp}</x:xmpmeta>".encode()
    content = saved(where, xmp=text) if where in ("JPEG", "WEBP") else saved("PNG")
    key = b"XML:com.adobe.xmp\0"
    if where == "before":
        content = content[:33] + png_chunk(b"iTXt", key + bytes(4) + text) + content[33:]
    elif where == "behind":
        content = content[:-12] + png_chunk(b"iTXt", key + bytes(4) + text) + content[-12:]
    elif where == "compressed":
        content = content[:33] + png_chunk(b"iTXt", key + b"\1\0\0\0" + zlib.compress(text)) + content[33:]
    assert header(content) == decode_image(content).shape[:2] == SIZE[::-1]


@given(st.binary(max_size=80), st.sampled_from(["JPEG", "PNG", "PNG, behind", "WEBP"]))
def test_image_is_read_with_any_exif_block(noise: bytes, kind: str) -> None:
    for block in (b"Exif\0\0" + noise, exif_block(6)[:20] + noise):
        content = with_exif(kind, block)
        assert header(content) == decode_image(content).shape[:2]
        assert decode_image(content).size == 3 * SIZE[0] * SIZE[1]


# --- what is not pixels


BOMB = zlib.compress(bytes(80 << 20))  # 80 MB of zeros
BESIDE: dict[str, bytes] = {
    "zTXt": png_chunk(b"zTXt", b"Comment\0\0" + BOMB),
    "iTXt": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + BOMB),
    "XMP": png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB),
    "EXIF as text": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB),
    "iCCP": png_chunk(b"iCCP", b"profile\0\0" + BOMB),
    "other compression": png_chunk(b"zTXt", b"Comment\0\7" + BOMB[:50]),
    "tEXt": png_chunk(b"tEXt", b"Comment\0" + bytes(3 << 20)),
    "many": png_chunk(b"tEXt", b"Comment\0" + b"x" * 4000) * 20_000,
    "corrupt": png_chunk(b"zTXt", b"Comment\0\0nonsense"),
    "checksum": png_chunk(b"tEXt", b"Comment\0hello")[:-1] + b"?",
    "short": png_chunk(b"gAMA", b"") + png_chunk(b"cHRM", b"1") + png_chunk(b"pHYs", b"") + png_chunk(b"sRGB", b""),
    "empty": png_chunk(b"tEXt", b"") + png_chunk(b"iTXt", b"") + png_chunk(b"zTXt", b"") + png_chunk(b"eXIf", b""),
    "frames": png_chunk(b"acTL", b"\0\0") + png_chunk(b"fcTL", b"nonsense"),
    "private": png_chunk(b"prVt", bytes(100)),
}


@pytest.mark.parametrize("where", [33, -12])
@pytest.mark.parametrize("name", BESIDE)
@pytest.mark.parametrize("mode", ["L", "RGB", "P", "RGBA", "I;16"])
def test_png_metadata_does_not_change_pixels(name: str, where: int, mode: str) -> None:
    picture = Image.fromarray(np.asarray(photo().convert("L")).astype(np.uint16) * 257)
    plain = saved("PNG", picture if mode == "I;16" else photo().convert(mode))
    content = plain[:where] + BESIDE[name] + plain[where:]
    assert decode_image(content).tolist() == decode_image(plain).tolist()
    assert read_header(io.BytesIO(content)) == read_header(io.BytesIO(plain))


def test_compressed_text_is_not_inflated() -> None:
    code = (
        "import io, resource, sys, zlib; from pathlib import Path; from cnnkit.data.images.decode import decode_image\n"
        "content = Path('x.png').read_bytes()\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for _ in range(20): decode_image(content)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    plain = saved("PNG")
    write("x.png", plain[:33] + b"".join(BESIDE[name] for name in ("zTXt", "iTXt", "XMP", "iCCP")) + plain[33:])
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 20_000, "kilobytes"


def test_png_transparency_is_applied() -> None:
    text = PngImagePlugin.PngInfo()
    text.add_text("Comment", "x" * (2 << 20), zip=True)
    for mode, value in (("L", 7), ("RGB", (1, 2, 3)), ("P", 0)):
        picture = Image.new(mode, (4, 3), value)
        assert decode_image(saved("PNG", picture, transparency=value, pnginfo=text)).min() == 255


@pytest.mark.parametrize("keep", [20, 40, 60, 200, 1000])
def test_truncated_png_is_refused(keep: int) -> None:
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 60, 3), np.uint8))
    content = saved("PNG", noise)
    content = content[:33] + BESIDE["private"] + content[33:]
    with pytest.raises(DataError):
        decode_image(content[:keep])


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


SEGMENTS: dict[str, bytes] = {
    "Photoshop": segment(0xED, b"Photoshop 3.0\x008BIM\x04"),
    "short JFIF": segment(0xE0, b"JFIF\0"),
    "short Adobe": segment(0xEE, b"Adobe"),
    "empty": b"".join(segment(0xE0 + number, b"") for number in range(16)),
    "comments": segment(0xFE, b"x" * 60_000) * 100,
    "profile": segment(0xE2, b"ICC_PROFILE\0\1\xff" + bytes(60_000)) * 50,
    "frames": segment(0xE2, b"MPF\0nonsense"),
    "XMP": segment(0xE1, b"http://ns.adobe.com/xap/1.0/\0" + b"x" * 60_000) * 20,
    "EXIF": segment(0xE1, b"Exif\0\0" + b"x" * 60_000) * 20,
    "FlashPix": segment(0xE2, b"FPXR\0"),
    "fill": b"\xff\xff" + segment(0xE0, b"JFIF\0"),
}


@pytest.mark.parametrize("name", SEGMENTS)
@pytest.mark.parametrize("mode", ["L", "RGB", "CMYK"])
def test_jpeg_metadata_does_not_change_pixels(name: str, mode: str) -> None:
    exif = exif_block(6)
    plain = saved("JPEG", photo().convert(mode), exif=exif)
    content = plain[:2] + SEGMENTS[name] + plain[2:]
    behind = content[:2] + plain[2:20] + SEGMENTS[name] + plain[20:] if plain[2:4] == b"\xff\xe0" else content
    for spoiled in (content, behind):
        if name != "EXIF":  # the second block goes on with the first
            assert decode_image(spoiled).tolist() == decode_image(plain).tolist()
            assert read_header(io.BytesIO(spoiled)) == read_header(io.BytesIO(plain))
        assert header(spoiled) == decode_image(spoiled).shape[:2]


@pytest.mark.parametrize(
    "how", [{"icc_profile": bytes(3 << 20)}, {"exif": b"Exif\0\0" + bytes(3 << 20)}, {"xmp": b"x" * (3 << 20)}]
)
def test_webp_metadata_does_not_change_pixels(how: dict[str, bytes]) -> None:
    assert decode_image(saved("WEBP", **how)).tolist() == decode_image(saved("WEBP")).tolist()
    assert header(saved("WEBP", **how)) == SIZE


def test_opening_leaves_pillow_unchanged() -> None:
    before = PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS
    plain = saved("PNG")
    open_image(io.BytesIO(plain[:33] + BESIDE["zTXt"] + plain[33:]))
    assert before == (PngImagePlugin.MAX_TEXT_CHUNK, PngImagePlugin.MAX_TEXT_MEMORY, Image.MAX_IMAGE_PIXELS)
