"""Malicious archives: one clear line, nothing outside the target, no leftovers in the cache."""

import gzip
import io
import os
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cnnkit.core.errors import CnnkitError, DataError
from cnnkit.data import Dataset, load_dataset
from helpers.cli import Cli, one_line
from helpers.images import noise_png
from helpers.measured import small

Members = list[tuple[str, bytes]]


GOOD: Members = [
    (f"{name}/{number}.png", noise_png(10 * number + len(name))) for name in ("cat", "horse") for number in range(4)
]


def as_zip(members: Members, name: str = "x.zip") -> str:
    with zipfile.ZipFile(name, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members:
            archive.writestr(zipfile.ZipInfo(member), content, zipfile.ZIP_DEFLATED)
    return name


def as_tar(members: Members, name: str = "x.tar.gz", **pax: str) -> str:
    with tarfile.open(name, "w:" + name.rpartition(".")[2], format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            info = tarfile.TarInfo(member)
            info.size, info.pax_headers = len(content), pax
            archive.addfile(info, io.BytesIO(content))
    return name


KINDS = pytest.mark.parametrize("kind", [as_zip, as_tar])


def load(name: str) -> Dataset:
    return load_dataset(Path(name), image_size=(8, 8), progress=False)


def refused(name: str, reason: str, error: type[CnnkitError] = DataError) -> None:
    """Assert that an archive is not taken, and leaves nothing."""
    with pytest.raises(error, match=reason) as found:
        load(name)
    assert "\n" not in str(found.value)
    left = [path for path in Path("cache/unpacked").rglob("*") if path.suffix != ".lock"]
    assert not left, left


@KINDS
@pytest.mark.parametrize("name", ["/etc/x.png", "../x.png", "cat/../../x.png", "..\\x.png", "C:\\x.png", "//x/y.png"])
def test_names_outside_the_folder_are_refused(kind: Callable[[Members], str], name: str) -> None:
    refused(kind([*GOOD, (name, b"x")]), "refused: it names a file outside")


def test_pax_header_cannot_rename_outside() -> None:
    refused(as_tar([("cat/a.png", b"x")], path="../../outside.png"), "outside its folder")
    assert not Path("outside.png").exists()


@KINDS
def test_invalid_file_names_are_refused(kind: Callable[[Members], str]) -> None:
    for names, reason in {
        ("a", "a/b.png"): "invalid file name 'a/b.png'",
        ("a/b.png", "a"): "invalid file name 'a'",
        ("n" * 300 + ".png",): "File name too long",
        ("a/" * 90 + "n" * 255 + ".png",): "File name too long",
        ("a/" * 1900 + "x.png",): "refused: it nests a file in 1,901 folders",
        ("./",): r"",
    }.items():
        if reason:
            refused(kind([(name, b"x") for name in names]), reason)
    if kind is as_tar:
        refused(as_tar([("a.png", b"x"), ("./a.png", b"y")]), "two files named")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@KINDS
def test_duplicate_names_are_refused(kind: Callable[[Members], str]) -> None:
    refused(kind([*GOOD, GOOD[0]]), "two files named cat/0.png")


def test_name_existing_on_disk_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """On disks that do not tell A from a, or the two forms of an umlaut, no file is written over another."""
    opened = Path.open

    def folded(self: Path, mode: str = "r", *more: object, **options: object) -> object:
        return opened(self.with_name(self.name.lower()) if "x" in mode else self, mode, *more, **options)  # type: ignore

    monkeypatch.setattr(Path, "open", folded)
    refused(
        as_zip([("cat/A.png", noise_png(1)), ("cat/a.png", noise_png(2))]),
        "two files named cat/a.png|invalid file name",
    )


@pytest.mark.slow
def test_archive_bombs_are_refused_before_unpacking() -> None:
    zeros = bytes(1 << 26)
    with zipfile.ZipFile("bomb.zip", "w") as archive:
        for number in range(20):
            archive.writestr(zipfile.ZipInfo(f"cat/{number}.bmp"), zeros, zipfile.ZIP_BZIP2)
    small(3, ("refused: it unpacks to more than 1,032 times its",), "train", "lenet", "--data", "bomb.zip", most=500)
    with zipfile.ZipFile("lzma.zip", "w", zipfile.ZIP_LZMA) as archive:
        archive.writestr("cat/0.png", noise_png(0))
    refused("lzma.zip", "LZMA within a zip is not supported")
    piece = gzip.compress(bytes(1 << 26), mtime=0)
    head = tarfile.TarInfo("cat/a.bmp")
    head.size = 1 << 40
    Path("bomb.tar.gz").write_bytes(gzip.compress(head.tobuf()) + piece * 4)
    refused("bomb.tar.gz", "refused: it unpacks to more than|takes more than half")
    head.type = b"Z"  # unknown, and passed over
    Path("other.tar.gz").write_bytes(gzip.compress(head.tobuf()) + piece * 4)
    refused("other.tar.gz", "refused: it unpacks to more than")
    head.type, head.size = tarfile.XHDTYPE, 1 << 32
    Path("pax.tar.gz").write_bytes(gzip.compress(head.tobuf(tarfile.GNU_FORMAT)) + piece * 64)
    small(3, ("a header of more than 1,048",), "train", "lenet", "--data", "pax.tar.gz", most=500)


def test_overlapping_entries_are_refused() -> None:
    """Many names for one piece of content, as in a quine or a bomb that needs no nesting."""
    as_zip([("cat/0.bmp", bytes(1 << 26))])
    content = Path("x.zip").read_bytes()
    start = content.rindex(b"PK\5\6")
    entry = content[content.index(b"PK\1\2") : start]
    many = b"".join(entry.replace(b"cat/0.bmp", b"cat/%s.bmp" % bytes([97 + number])) for number in range(26))
    tail = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 26, 26, len(many), content.index(b"PK\1\2"), 0)
    Path("over.zip").write_bytes(content[: content.index(b"PK\1\2")] + many + tail)
    refused("over.zip", "refused|corrupt")


@pytest.mark.parametrize(("offset", "value"), [(24, 10), (24, 10**6), (20, 5), (42, 2**31), (10, 97), (8, 1)])
def test_false_zip_directory_is_refused(offset: int, value: int) -> None:
    """Sizes, packed sizes, places, kinds of compression, encryption."""
    content = bytearray(Path(as_zip(GOOD)).read_bytes())
    at = content.index(b"PK\1\2") + offset
    struct.pack_into("<H" if offset < 20 else "<I", content, at, value)
    if offset < 20:
        struct.pack_into("<H", content, offset - 2, value)
    Path("lies.zip").write_bytes(content)
    refused("lies.zip", "the archive is corrupt or of an unknown kind")


def test_zip64_sizes_are_read_and_limited() -> None:
    with zipfile.ZipFile("big.zip", "w") as archive:
        for name, content in GOOD:
            with archive.open(name, "w", force_zip64=True) as file:
                file.write(content)
    assert len(load("big.zip").classes) == 2
    shutil.rmtree("cache")
    content = bytearray(Path(as_zip(GOOD)).read_bytes())
    at, end = content.index(b"PK\1\2"), content.rindex(b"PK\5\6")
    extra = struct.pack("<HHQ", 1, 8, 1 << 60)
    struct.pack_into("<I", content, at + 24, 2**32 - 1)
    struct.pack_into("<H", content, at + 30, len(extra))
    content[at + 46 + 9 : at + 46 + 9] = extra
    struct.pack_into("<I", content, end + len(extra) + 12, end + len(extra) - at)
    Path("lies.zip").write_bytes(content)
    refused("lies.zip", "refused: it unpacks to more than")


@pytest.mark.slow
def test_too_many_empty_members_are_refused() -> None:
    name, count = b"a/%06d", 100_000
    entries = [(name % number, number) for number in range(count)]
    local = b"".join(struct.pack("<4s5H3I2H", b"PK\3\4", 20, 0, 0, 0, 33, 0, 0, 0, 8, 0) + word for word, _ in entries)
    directory = b"".join(
        struct.pack("<4s6H3I5H2I", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, 8, 0, 0, 0, 0, 0, 38 * number) + word
        for word, number in entries
    )
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 65535, 65535, len(directory), len(local), 0)
    Path("many.zip").write_bytes(local + directory + end)
    small(3, ("refused: it has more than 10,000 empty files",), "train", "lenet", "--data", "many.zip", most=500)
    as_tar([(f"a/{number}.png", b"") for number in range(10_001)])
    refused("x.tar.gz", "refused: it has more than 10,000 empty files")


@pytest.mark.slow
def test_huge_zip_directory_is_refused() -> None:
    with Path("wide.zip").open("wb") as file:
        file.truncate(3 << 30)
        file.seek(0, os.SEEK_END)
        file.write(struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 3 << 30, 0, 0))
    small(3, ("corrupt",), "train", "lenet", "--data", "wide.zip", most=600)


def test_archive_without_images_is_named_in_the_error() -> None:
    as_zip([("notes.txt", b"no image")])
    with pytest.raises(DataError, match=r"^x\.zip has no folder of images") as found:
        load("x.zip")
    assert "cache" not in str(found.value)


def test_encrypted_member_is_named() -> None:
    content = bytearray(Path(as_zip([("cat/a.png", noise_png(1))])).read_bytes())
    content[content.index(b"PK\x01\x02") + 8] |= 1
    Path("x.zip").write_bytes(content)
    refused("x.zip", "cat/a.png is encrypted; unpack it yourself")


def test_skipped_members_are_logged(caplog: pytest.LogCaptureFixture) -> None:
    with tarfile.open("x.tar.xz", "w:xz") as archive:
        for name, content in [*GOOD, ("cat/inner.zip", b"PK"), ("more.tar.gz", b"")]:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE):
            info = tarfile.TarInfo(f"cat/{kind.decode()}.png")
            info.type, info.linkname = kind, "/etc/passwd"
            archive.addfile(info)
    assert len(load("x.tar.xz").classes) == 2
    assert "x.tar.xz: links or devices skipped: 4" in caplog.text
    assert "x.tar.xz: nested archives not unpacked: 2" in caplog.text
    assert all(path.is_file() or path.is_dir() for path in Path("cache/unpacked").rglob("*"))


def test_full_disk_is_not_reported_as_data_error(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    as_zip(GOOD)
    used = shutil.disk_usage(".")
    monkeypatch.setattr("shutil.disk_usage", lambda path: used._replace(free=20_000))
    one_line(cli("train", "lenet", "--data", "x.zip"), 1, "more than half of the free disk")
