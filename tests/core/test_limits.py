"""Files that declare false sizes cost one clear line: sizes are checked before memory is allocated."""

import gzip
import io
import json
import os
import re
import socket
import struct
import tarfile
from pathlib import Path

import pytest

from cnnkit.core.errors import DataError
from cnnkit.data.idx import read_idx
from cnnkit.data.shards.tar import read_tar
from helpers.cli import Cli, one_line
from helpers.images import noise_png
from helpers.measured import RUN, measured, small

GIB = 1 << 30
SLOW = pytest.mark.slow
IDX = "train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"


def idx(*shape: int, code: int = 8) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, code, len(shape), *shape)


def zeros(count: int) -> bytes:
    """Return the gzip of so many zero bytes, made of one piece many times."""
    return gzip.compress(bytes(1 << 26), 1, mtime=0) * (count >> 26)


def png(size: int = 8) -> bytes:
    return noise_png(size, (size, size))


# --- IDX


def test_gzip_bomb_of_idx_file_inflates_to_its_header_size() -> None:
    for name in IDX:
        header = idx(100, 28, 28) if "images" in name else idx(100)
        Path(f"{name}.gz").write_bytes(gzip.compress(header, mtime=0) + zeros(4 * GIB))
    small(
        3,
        ("train-images", "too long", "values take"),
        "train",
        "lenet",
        "--data",
        "mnist",
        "--data-dir",
        ".",
        most=500,
    )


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize(
    ("header", "reason"),
    [
        (idx(2**32 - 1, 2**32 - 1), "refused: 4294967295 x 4294967295 values take"),
        (idx(2**32 - 1, 2**32 - 1, 2**32 - 1, code=0x0E), "refused"),
        (idx(3 * GIB), "refused: .* more than 2,147,483,648"),
        (idx(2 * GIB), "truncated"),
        (idx(60000, 28, 28), "truncated: 60000 x 28 x 28 values take 47,040,000 bytes, there are 0"),
        (idx(*[1] * 255), "truncated: 1 x 1 x 1 x 1 x ... values take 1 bytes"),
        (idx(*[1] * 255) + b"x", "no array has the dimensions"),
        (idx(*[2] * 255), "refused"),
        (idx(0, 28, 28) + b"x", "too long"),
        (idx(), "no dimensions"),
    ],
)
def test_false_idx_header_allocates_no_memory(header: bytes, reason: str, zipped: bool) -> None:
    path = Path("x.idx")
    path.write_bytes(gzip.compress(header) if zipped else header)
    with pytest.raises(DataError, match=reason):
        read_idx(path)


def test_idx_array_may_be_empty_but_must_be_a_regular_file() -> None:
    Path("x.idx").write_bytes(idx(0, 28, 28))
    assert read_idx(Path("x.idx")).shape == (0, 28, 28)
    os.mkfifo("pipe")
    for place in ("pipe", "/dev/zero", "."):
        with pytest.raises(DataError, match="cannot be read"):
            read_idx(Path(place))


# --- tar shards


def header(name: str, size: int, kind: bytes = tarfile.REGTYPE) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.type = size, kind
    return info.tobuf(tarfile.GNU_FORMAT)


def shard(*members: tuple[str, bytes], first: bytes = b"", size: int = 0) -> str:
    """Write a tar of members behind `first`, a header whose content of `size` bytes takes no room on the disk."""
    with Path("x-0.tar").open("wb") as file:
        file.write(first)
        file.truncate(file.tell() + -(-size // 512) * 512)
        file.seek(0, os.SEEK_END)
        with tarfile.open(fileobj=file, mode="w") as tar:
            for name, content in members:
                info = tarfile.TarInfo(name)
                info.size = len(content)
                tar.addfile(info, io.BytesIO(content))
    return "x-0.tar"


GOOD = ("good.png", png()), ("good.cls", b"1"), ("more.png", png(9)), ("more.cls", b"0")


LONG_NAME = header("././@LongLink", 1, tarfile.GNUTYPE_LONGNAME) + bytes(512)


@pytest.mark.parametrize(
    ("first", "size", "reason"),
    [
        (header("a.cls", 6 * GIB), 6 * GIB, None),
        pytest.param(header("a.json", 6 * GIB), 6 * GIB, None, marks=SLOW),
        pytest.param(
            header("a.png", 6 * GIB), 6 * GIB, "it has no .cls|has 6,442,450,944 bytes", marks=pytest.mark.slow
        ),
        (header("././@PaxHeader", 3 * GIB, tarfile.XHDTYPE), 3 * GIB, "a header of more than"),
        pytest.param(
            header("././@PaxHeader", 3 * GIB, tarfile.XGLTYPE), 3 * GIB, "a header of more than", marks=pytest.mark.slow
        ),
        (header("././@LongLink", 3 * GIB, tarfile.GNUTYPE_LONGNAME), 3 * GIB, "a header of more than"),
        pytest.param(
            header("././@LongLink", 3 * GIB, tarfile.GNUTYPE_LONGLINK),
            3 * GIB,
            "a header of more than",
            marks=pytest.mark.slow,
        ),
        (
            (header("././@LongLink", 1, tarfile.GNUTYPE_LONGNAME) + bytes(512)) * 3000,
            0,
            "a corrupt header|a header of more than",
        ),
        pytest.param(header("a.bin", 8 * GIB), 8 * GIB, None, marks=SLOW),
    ],
)
def test_false_tar_sizes_allocate_no_memory(first: bytes, size: int, reason: str | None) -> None:
    place = shard(*GOOD, first=first, size=size)
    result = measured("train", "lenet", "--data", place, "--image-size", 28, "--epochs", 1, "--on-bad-image", "skip")
    assert result.megabytes < 800, result
    found = read_tar(place)
    told = " ".join([found.error, *(f"{name}: {why}" for name, why in found.problems)])
    if reason:
        assert re.search(reason, told), told
    else:
        assert found.labels == [1, 0]


def test_label_size_is_limited() -> None:
    deep = b'{"class": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    bad = {
        "large.cls": b"x" * (1 << 20) + b"x",
        "deep.json": deep,
        "digits.json": b'{"class": ' + b"9" * 5000 + b"}",
        "spaces.json": b" " * (1 << 21),
    }
    samples = [(f"{name.partition('.')[0]}.png", png(number + 10)) for number, name in enumerate(bad)]
    pairs = [pair for sample, label in zip(samples, bad.items(), strict=True) for pair in (sample, label)]
    found = read_tar(shard(*GOOD, *pairs, ("long.png", png(30)), ("long.cls", b"7" * 5000)))
    assert not found.error
    reasons = dict(found.problems)
    assert reasons["large.png"] == "refused: its label has 1,048,577 bytes, more than 1,048,576"
    assert "nested too deeply" in reasons["deep.png"]
    assert "its label cannot be read" in reasons["digits.png"]
    assert "refused: its label" in reasons["spaces.png"]
    assert found.labels == [1, 0, "7" * 5000]  # a name, as no class has such a number


def test_negative_size_and_corrupt_number_are_refused() -> None:
    block = bytearray(header("a.png", 0))
    block[124:136] = b"\xff" * 12  # -1 in base 256
    block[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(block))[0]
    found = read_tar(shard(*GOOD, first=bytes(block)))
    assert "at byte 0" in found.error or "corrupt at byte 0" in found.error, found.error
    huge = bytearray(header("a.bin", 0))
    huge[124:136] = b"\x80" + b"\x7f" * 11
    huge[148:156] = b"%06o\0 " % tarfile.calc_chksums(bytes(huge))[0]
    assert read_tar(shard(*GOOD, first=bytes(huge))).error


def test_sparse_tar_members_are_skipped() -> None:
    with tarfile.open("x-0.tar", "w", format=tarfile.PAX_FORMAT) as tar:
        info = tarfile.TarInfo("a.png")
        info.pax_headers = {"GNU.sparse.map": f"0,1,{10**15},1", "GNU.sparse.size": str(10**15)}
        info.size = 2
        tar.addfile(info, io.BytesIO(b"xx"))
        for name, content in GOOD:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    assert read_tar("x-0.tar").labels == [1, 0]


@pytest.mark.slow
def test_tar_members_are_not_kept_in_memory() -> None:
    with Path("x-0.tar").open("wb") as file:
        file.write(b"".join(header(f"{number}.txt", 0) for number in range(200_000)) + bytes(1024))
    small(3, ("x-0.tar",), "train", "lenet", "--data", "x-0.tar", "--image-size", 28, most=400)


# --- what is no regular file


def test_predict_continues_after_bad_file() -> None:
    os.mkfifo("pipe.png")
    server = socket.socket(socket.AF_UNIX)
    server.bind("socket.png")
    Path("good.png").write_bytes(png())
    Path("link.png").symlink_to("/dev/zero")
    with Path("sparse.png").open("wb") as file:
        file.truncate(2 * GIB)
    bad = ("/dev/zero", "pipe.png", "socket.png", "/proc/self/mem", "link.png", "sparse.png", "/dev/stdin", "gone.png")
    result = measured("predict", RUN, *bad, "good.png", "--json")
    server.close()
    assert result.code == 3
    assert result.megabytes < 800
    lines = result.err.splitlines()
    assert len(lines) == len(bad) + 1
    assert all(line.startswith("cnnkit: ") for line in lines), lines
    assert sum("not a regular file" in line for line in lines) >= 3
    assert "sparse.png: refused: it has 2,147,483,648 bytes, more than 1,073,741,824" in result.err
    answers = json.loads(result.out)
    assert [row["image"] for row in answers if "predictions" in row] == ["good.png"]


@pytest.mark.parametrize("name", ["pipe.png", "/dev/zero"])
def test_image_commands_refuse_non_files(name: str) -> None:
    os.mkfifo("pipe.png")
    small(3, ("not a regular file",), "features", "lenet", name)
    small(3, ("not a regular file",), "filter", name, "--kernel", "blur")


@pytest.mark.slow
def test_data_that_is_no_regular_file_is_refused() -> None:
    os.mkfifo("list.csv")
    Path("zero.csv").symlink_to("/dev/zero")
    os.mkfifo("images.zip")
    os.mkfifo("x-0.tar")
    for data in ("list.csv", "zero.csv", "images.zip", "x-0.tar", "/dev/zero", "./list.csv"):
        small(3, (), "train", "lenet", "--data", data)
    Path("photos/images").mkdir(parents=True)
    Path("photos/images/a.png").write_bytes(png())
    os.mkfifo("photos/labels.csv")
    os.mkfifo("photos/images/b.png")
    small(3, ("photos",), "train", "lenet", "--data", "photos")
    result = measured("data", "check", "photos")
    assert result.code == 3
    assert "not a regular file" in result.out


def test_endless_table_header_is_refused() -> None:
    for name in ("cat", "dog"):
        Path("photos", name).mkdir(parents=True)
        Path("photos", name, "a.png").write_bytes(png())
    with Path("photos/labels.csv").open("wb") as file:
        file.truncate(4 * GIB)
    result = measured("data", "check", "photos")
    assert result.megabytes < 500, result
    small(3, ("more than 268,435,456 bytes",), "train", "lenet", "--data", "photos/labels.csv")


# --- numbers


@pytest.mark.parametrize(
    "command",
    [
        "predict RUN good.png --batch-size 1000000000000",
        "predict RUN good.png --workers 1000000000",
        "predict RUN good.png --max-pixels 0",
        "predict RUN good.png --max-pixels 1000000000000",
        "predict RUN good.png --top 0",
        "data check photos --workers 1000000000",
        "data check photos --max-pixels -1",
        "data show digits --image-size 10000000",
        "data show digits --count 1000000000",
        "data show digits --count 1000 --image-size 4096",
        "data show digits --seed 99999999999999999999999",
        "data pack photos out --megabytes 1000000000000",
        "data pack photos out --workers 1000000000",
        "data pack photos out --images-per-shard 0",
        "evaluate RUN --workers 1000000000",
        "evaluate RUN --max-pixels 99999999999999",
        "features RUN good.png --channels 1000000000000",
        "features RUN good.png --max-pixels 0",
        "filter good.png --kernel blur --stride 99999999999999999999",
        "filter good.png --kernel blur --padding 1000000",
        "train lenet --max-pixels 0",
    ],
)
def test_settings_beyond_any_memory_are_usage_errors(cli: Cli, command: str) -> None:
    Path("photos/cat").mkdir(parents=True)
    Path("good.png").write_bytes(png())
    words = [str(RUN) if word == "RUN" else word for word in command.split()]
    one_line(cli(*words), 2)


def test_predict_accepts_limits_beyond_the_data(cli: Cli) -> None:
    Path("good.png").write_bytes(png())
    assert cli("predict", RUN, "good.png", "--top", 10**12, "--batch-size", 60_000, "--workers", 1000).code == 0
