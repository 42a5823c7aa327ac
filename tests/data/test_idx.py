"""The IDX reader: every value type, plain and compressed, and every malformed file."""

import gzip
import struct
from pathlib import Path
from tempfile import NamedTemporaryFile

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from cnnkit.core.errors import DataError
from cnnkit.data.idx import TYPES, read_idx


def idx(array: np.ndarray, code: int = 0x08) -> bytes:
    """Return the array as an IDX payload."""
    header = struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
    return header + array.astype(TYPES[code]).tobytes()


def parsed(payload: bytes) -> np.ndarray:
    with NamedTemporaryFile() as file:
        Path(file.name).write_bytes(payload)
        return read_idx(Path(file.name))


@given(
    st.sampled_from(sorted(TYPES)).flatmap(
        lambda code: st.tuples(
            st.just(code),
            arrays.arrays(np.dtype(TYPES[code]).newbyteorder("="), arrays.array_shapes(max_dims=4, max_side=4)),
        )
    )
)
def test_idx_round_trip_is_exact(case: tuple[int, np.ndarray]) -> None:
    code, array = case
    read = parsed(idx(array, code))
    assert read.dtype == array.dtype
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, array)


def test_big_endian_values_match_literal() -> None:
    payload = bytes.fromhex("0000 0b02 00000001 00000002 0001 ff00")
    np.testing.assert_array_equal(parsed(payload), [[1, -256]])


def test_gzip_is_recognised_by_content(tmp_path: Path) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 2, 2)
    for name, content in {"plain.gz": idx(array), "packed": gzip.compress(idx(array))}.items():
        (tmp_path / name).write_bytes(content)
        np.testing.assert_array_equal(read_idx(tmp_path / name), array)


GOOD = idx(np.arange(12, dtype=np.uint8).reshape(3, 2, 2))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "starts with nothing"),
        (b"\0\0\x08", "starts with 00 00 08"),
        (b"\x89PNG\r\n\x1a\n", "starts with 89 50 4e 47"),
        (b"\0\0\x07\x01\0\0\0\0", "type code 07 is unknown"),
        (b"\0\0\x08\0", "no dimensions"),
        (GOOD[:10], "header is truncated"),
        (GOOD[:-1], "truncated: 3 x 2 x 2 values take 12 bytes, there are 11"),
        (GOOD + b"!", "too long: 3 x 2 x 2 values take 12 bytes, there are more"),
        (struct.pack(">HBB3I", 0, 8, 3, 2**32 - 1, 2**32 - 1, 2**32 - 1), "refused: .* more than 2,147,483,648"),
        (b"\0\0\x08" + bytes([65]) + b"\0\0\0\1" * 65 + b"!", "no array has the dimensions"),
        (struct.pack(">HBB4I", 0, 8, 4, 0, *[2**32 - 1] * 3), "no array has the dimensions"),
        (gzip.compress(GOOD, mtime=0)[:-4], "gzip data is corrupt or truncated"),
        (gzip.compress(GOOD, mtime=0)[:12] + b"\xff" * 20, "not an IDX file: it starts with 00 07 ff ff"),
        (gzip.compress(GOOD, mtime=0)[:-8] + b"\0" * 8, "gzip data is corrupt"),
    ],
)
def test_malformed_file_is_named(tmp_path: Path, content: bytes, reason: str) -> None:
    path = tmp_path / "train-images-idx3-ubyte"
    path.write_bytes(content)
    with pytest.raises(DataError, match=reason) as caught:
        read_idx(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere: cannot be read"):
        read_idx(tmp_path / "nowhere")
