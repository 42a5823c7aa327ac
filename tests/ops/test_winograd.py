"""Winograd convolutions against torch in float64: outputs and both gradients."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cnnkit.ops import compiled, winograd
from cnnkit.ops.algorithms import INPUT, OUTPUT, WEIGHT, Window
from cnnkit.ops.tuned import possible
from helpers.compiler import needs_compiler, run_sanitized
from helpers.operators import SHAPES, made

pytestmark = needs_compiler

EXACT = 5e-5  # of the largest number; float32's own is 1.2e-7


def error(found: Tensor, exact: Tensor) -> float:
    assert found.shape == exact.shape
    return float((found.double() - exact).abs().max() / exact.abs().max())


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_winograd_outputs_and_gradients_match_the_definition(shape: tuple, kernel: int, threads: int) -> None:
    torch.set_num_threads(threads)
    x, weight, bias, dy, window = made(shape, kernel)
    assert winograd.is_supported(x, weight, window.stride)
    top, bottom, left, right = window.pads
    inputs, kernels, biases = (tensor.double().requires_grad_() for tensor in (x, weight, bias))
    y = F.conv2d(F.pad(inputs, (left, right, top, bottom)), kernels, biases)
    y.backward(dy.double())
    found = OUTPUT["winograd"](x, weight, bias, window)
    assert found.is_contiguous(memory_format=torch.channels_last)
    assert error(found, y.detach()) < EXACT
    assert error(OUTPUT["winograd"](x, weight, None, window) + bias[:, None, None], y.detach()) < EXACT
    assert error(INPUT["winograd"](dy, x, weight, window), inputs.grad) < EXACT
    assert error(WEIGHT["winograd"](dy, x, weight, window), kernels.grad) < EXACT


def test_winograd_keeps_nan_and_inf_in_their_tiles() -> None:
    x, weight, bias, _, window = made(SHAPES[0], 3)
    x[0, 0, 0, 0] = torch.nan
    y = OUTPUT["winograd"](x, weight, bias, window)
    assert y[0, :, :4, :4].isnan().all()
    assert y[0, :, 4:, 4:].isfinite().all()
    assert y[1].isfinite().all()


@pytest.mark.parametrize(
    ("channels", "outputs", "kernel", "stride", "dtype"),
    [
        (12, 8, 3, 1, torch.float32),
        (8, 12, 3, 1, torch.float32),
        (8, 8, 7, 1, torch.float32),
        (8, 8, 3, 2, torch.float32),
        (8, 8, 3, 1, torch.bfloat16),
        (8, 8, 3, 1, torch.float64),
    ],
)
def test_unsupported_convolutions_use_torch(
    channels: int, outputs: int, kernel: int, stride: int, dtype: torch.dtype
) -> None:
    x = torch.randn(2, channels, 12, 12).to(dtype).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(outputs, channels, kernel, kernel).to(dtype)
    window = Window((kernel, kernel), (stride, stride), (1, 1, 1, 1))
    assert "winograd" not in possible(window, x, weight)
    assert torch.equal(OUTPUT["winograd"](x, weight, None, window), OUTPUT["onednn"](x, weight, None, window))


def test_winograd_gradients_of_no_images_are_zero() -> None:
    x, weight, _, dy, window = made(SHAPES[0], 3)
    assert not WEIGHT["winograd"](dy[:0], x[:0], weight, window).any()
    assert OUTPUT["winograd"](x[:0], weight, None, window).shape == (0, 8, 8, 8)


def test_winograd_is_tried_on_maps_of_at_least_one_tile(monkeypatch: pytest.MonkeyPatch) -> None:
    weight, window = torch.randn(8, 8, 3, 3), Window((3, 3), (1, 1), (1, 1, 1, 1))
    large, small = torch.randn(1, 8, 3, 3), torch.randn(1, 8, 2, 2)
    assert "winograd" in possible(window, large, weight)
    assert "winograd" not in possible(window, small, weight)
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled.library.cache_clear()
    assert "winograd" not in possible(window, large, weight)
    monkeypatch.undo()
    compiled.library.cache_clear()


SANITIZED = """
from itertools import product

import torch
from cnnkit.ops import compiled
from cnnkit.ops.algorithms import INPUT, WEIGHT, OUTPUT
from cnnkit.ops.max_pool import compile_pooling
from helpers.compiler import SANITIZE
from helpers.operators import POOLS, SHAPES, made, maps, results

load = compiled.load
compiled.load = lambda what, source, symbols, flags: load(what, source, symbols, (*flags, *SANITIZE))
assert compiled.library()
for shape, kernel in product(SHAPES, (3, 5)):
    x, weight, bias, dy, window = made(shape, kernel)
    OUTPUT["winograd"](x, weight, bias, window)
    INPUT["winograd"](dy, x, weight, window)
    WEIGHT["winograd"](dy, x, weight, window)
for dtype in (torch.float32, torch.bfloat16):
    for channels, pool in product((8, 16, 40), POOLS.values()):
        net = torch.nn.Sequential(torch.nn.ReLU(), pool())
        assert compile_pooling(net)
        results(net, maps(channels, dtype=dtype))
print("clean")
"""


@pytest.mark.slow
def test_winograd_and_pooling_pass_the_sanitizers() -> None:
    """In the transforms, and in the pooling beside them."""
    run_sanitized(SANITIZED)
