"""Dropout by its definition, since its random numbers differ from torch's."""

import copy

import pytest
import torch

from cnnkit.ops import Dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64], ids=str)
@pytest.mark.parametrize("p", [0.1, 0.5, 0.75])
def test_dropout_zeroes_or_scales_and_keeps_the_mean(p: float, dtype: torch.dtype) -> None:
    x = torch.ones(8, 5, 101, 99, dtype=dtype).contiguous(memory_format=torch.channels_last).requires_grad_()
    y = Dropout(p)(x)
    assert y.dtype == dtype
    assert y.stride() == x.stride()
    kept = y != 0
    torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / (1 - p)), rtol=1e-2 * p, atol=0)
    assert kept.double().mean() == pytest.approx(1 - p, abs=0.004)  # four deviations
    y.sum().backward()
    assert torch.equal(x.grad, y.detach())


def test_dropout_drops_entries_independently() -> None:
    kept = (Dropout(0.5)(torch.ones(1_000_003)) != 0).double() - 0.5
    for lag in (1, 2, 3, 4, 8, 1000):
        assert abs((kept[lag:] * kept[:-lag]).mean()) < 0.001, lag


def test_dropout_is_determined_by_the_seed() -> None:
    found = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        found.append(Dropout(0.3)(torch.ones(1000)))
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])


def test_dropout_in_eval_and_at_extremes_equals_torch() -> None:
    x = torch.randn(3, 4)
    layer = Dropout(0.5)
    assert torch.equal(copy.deepcopy(layer).eval()(x), x)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x), 0 * x)
    exported = torch.export.export(layer.train(), (x,))
    assert "aten.dropout.default" in {str(node.target) for node in exported.graph.nodes}


def test_dropout_accepts_strided_and_empty_input() -> None:
    torch.manual_seed(0)
    x = torch.arange(1.0, 41.0).view(4, 10)[:, ::2]
    y = Dropout(0.5)(x)
    assert torch.equal(y[y != 0], 2 * x[y != 0])
    assert Dropout(0.5)(torch.empty(0, 3)).shape == (0, 3)
