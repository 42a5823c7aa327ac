"""Window arithmetic against literals of the chapter and against torch."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import by, output_size, pair, resolve_padding


def test_output_sizes_match_chapter_5_2() -> None:
    assert output_size((3, 3), (2, 2)) == (2, 2)
    assert output_size((8, 8), 3, padding="same") == (8, 8)
    assert output_size((8, 8), 3, padding="same", stride=2) == (4, 4)
    assert output_size((8, 8), (5, 3), padding=(2, 1)) == (8, 8)
    assert output_size((8, 8), (3, 5), padding=(0, 1), stride=(3, 4)) == (2, 2)


@pytest.mark.parametrize("size", [28, 14, 7, 4, 2])
def test_same_padding_rounds_odd_sizes_up(size: int) -> None:
    assert output_size(size, 3, stride=2, padding="same") == (-(-size // 2), -(-size // 2))


def test_same_padding_puts_the_smaller_half_first() -> None:
    assert resolve_padding("same", 96, 7, stride=2) == (2, 3, 2, 3)
    assert resolve_padding("same", (5, 4), 3, stride=2) == (1, 1, 0, 1)
    assert resolve_padding("same", 4, (2, 1)) == (0, 1, 0, 0)
    assert resolve_padding("same", 4, 1, stride=3) == (0, 0, 0, 0)


def test_padding_modes_resolve_as_documented() -> None:
    assert resolve_padding(1, 5, 3) == (1, 1, 1, 1)
    assert resolve_padding((1, 2), 5, 3) == (1, 1, 2, 2)
    assert resolve_padding((1, 2, 3, 4), 5, 3) == (1, 2, 3, 4)
    assert resolve_padding("valid", 5, 3) == (0, 0, 0, 0)


sizes, kernels, strides = st.integers(1, 19), st.integers(1, 7), st.integers(1, 4)


@given(sizes, sizes, kernels, kernels, strides, strides, st.integers(0, 3), st.integers(1, 3))
def test_output_sizes_equal_torch(h: int, w: int, kh: int, kw: int, sh: int, sw: int, p: int, d: int) -> None:
    if d * (kh - 1) + 1 > h + 2 * p or d * (kw - 1) + 1 > w + 2 * p:
        with pytest.raises(UsageError, match="larger than the padded input"):
            output_size((h, w), (kh, kw), (sh, sw), p, d)
    else:
        shape = F.conv2d(torch.zeros(1, 1, h, w), torch.zeros(1, 1, kh, kw), None, (sh, sw), p, d).shape[-2:]
        assert output_size((h, w), (kh, kw), (sh, sw), p, d) == tuple(shape)


@pytest.mark.parametrize("bad", [0, -1, (1,), (1, 2, 3), 1.5, True, "2"])
def test_invalid_pair_is_named(bad: object) -> None:
    with pytest.raises(UsageError, match=r"stride must be an int or a pair of ints >= 1, not "):
        pair(bad, "stride")


@pytest.mark.parametrize("bad", [-1, "full", (1, 2, 3), (1, -1), 0.5, (1, 2, 3, 4, 5)])
def test_invalid_padding_is_named(bad: object) -> None:
    with pytest.raises(UsageError, match="padding must be"):
        resolve_padding(bad, 5, 3)


def test_by_joins_sizes_with_x() -> None:
    assert by(64, 56, 56) == "64 x 56 x 56"
