"""The operators from scratch: the chapter's values, torch's functions on random cases, gradients, errors."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from cnnkit import ops
from cnnkit.core.errors import UsageError
from cnnkit.core.shape import resolve_padding

X33 = torch.arange(9).reshape(3, 3)
K22 = torch.tensor([[0, 1], [2, 3]])
WIDE = torch.ones(6, 8)
WIDE[:, 2:6] = 0


# --- every number that the chapter prints for 5.1 to 5.4


def test_correlation_matches_chapter_5_1_1() -> None:
    assert ops.corr2d(X33, K22).tolist() == [[19, 25], [37, 43]]


def test_edge_detection_matches_chapter_5_1_3() -> None:
    assert ops.detect_edges(WIDE).tolist() == [[0, 1, 0, 0, 0, -1, 0]] * 6
    assert ops.corr2d(WIDE, torch.tensor([[1.0, -1.0]])).equal(ops.detect_edges(WIDE))
    assert ops.detect_edges(WIDE.t()).count_nonzero() == 0


@pytest.mark.parametrize(
    ("start", "losses"),
    [
        ([0.79894493, -0.77069186], [0.235, 0.041, 0.008, 0.002, 0.000]),
        ([0.0, 0.0], [4.915, 0.825, 0.138, 0.023, 0.004]),
    ],
)
def test_learned_kernel_matches_chapter_5_1_4(start: list[float], losses: list[float]) -> None:
    learned = ops.learn_kernel(WIDE, ops.detect_edges(WIDE), (1, 2), start=torch.tensor([start]))
    assert [round(loss, 3) for loss in learned.losses[1::2]] == losses


def test_learned_kernel_finds_the_edge_kernel() -> None:
    start = torch.tensor([[0.79894493, -0.77069186]])
    kernel = ops.learn_kernel(WIDE, ops.detect_edges(WIDE), (1, 2), start=start).kernel
    torch.testing.assert_close(kernel, torch.tensor([[0.99903595, -0.9960023]]), atol=1e-6, rtol=0)


def test_convolution_flips_the_kernel_of_chapter_5_1_5() -> None:
    assert ops.conv2d(X33, K22).tolist() == [[5, 11], [23, 29]]
    assert ops.conv2d(X33, K22.flip(0, 1)).equal(ops.corr2d(X33, K22))


def test_padding_and_stride_match_chapter_5_2_2() -> None:
    assert ops.corr2d(torch.rand(8, 8), torch.rand(3, 3), stride=2, padding="same").shape == (4, 4)
    assert ops.corr2d(X33, K22, stride=(3, 2), padding=1).tolist() == [[0, 8], [6, 8]]


def test_input_channels_match_chapter_5_3_1() -> None:
    X, K = torch.stack([X33, X33 + 1]), torch.stack([K22, K22 + 1])
    assert ops.corr2d_multi_in(X, K).tolist() == [[56, 72], [104, 120]]


def test_output_channels_match_chapter_5_3_2() -> None:
    X, K = torch.stack([X33, X33 + 1]), torch.stack([K22, K22 + 1])
    Y = ops.corr2d_multi_in_out(X, torch.stack([K, K + 1, K + 2]))
    assert Y.tolist() == [[[56, 72], [104, 120]], [[76, 100], [148, 172]], [[96, 128], [192, 224]]]


def test_one_by_one_convolution_is_a_matrix_product() -> None:
    X, K = torch.rand(3, 3, 3), torch.rand(2, 3, 1, 1)
    assert torch.linalg.vector_norm(ops.corr2d_1x1(X, K) - ops.corr2d_multi_in_out(X, K)) < 1e-6


def test_pooling_matches_chapter_5_4_1() -> None:
    X = X33.float()
    assert ops.pool2d(X, (2, 2)).tolist() == [[4, 5], [7, 8]]
    assert ops.pool2d(X, (2, 2), "avg").tolist() == [[2, 3], [5, 6]]


def test_pooling_options_match_chapter_5_4_2_and_3() -> None:
    X = torch.arange(16).reshape(4, 4)
    assert ops.pool2d(X, 3, stride=3).tolist() == [[10]]
    both = ops.pool2d(torch.stack([X, X + 1])[None], 3, stride=2, padding="same")
    assert both.tolist() == [[[[10, 11], [14, 15]], [[11, 12], [15, 16]]]]
    assert both.dtype == torch.int64


# --- torch's own functions, on random cases

dims, kernels, strides = st.integers(1, 19), st.integers(1, 7), st.integers(1, 4)
paddings = st.one_of(
    st.sampled_from(["valid", "same"]),
    st.integers(0, 3),
    st.tuples(*[st.integers(0, 3)] * 2),
    st.tuples(*[st.integers(0, 3)] * 4),
)


@st.composite
def window_cases(draw: st.DrawFn, dilated: bool = True) -> tuple[tuple[int, int], tuple[int, int], dict[str, object]]:
    size, kernel = (draw(dims), draw(dims)), (draw(kernels), draw(kernels))
    window: dict[str, object] = {"stride": (draw(strides), draw(strides)), "padding": draw(paddings)}
    if dilated:
        window["dilation"] = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    return size, kernel, window


def padded(X: Tensor, kernel: tuple[int, int], window: dict, value: float = 0) -> Tensor:
    """Pad X as a user of torch would, by counting from the output that TensorFlow documents."""
    padding = window["padding"]
    if padding == "same":
        sides = []
        for n, k, s, d in zip(X.shape[-2:], kernel, window["stride"], window.get("dilation", (1, 1)), strict=True):
            total = max(((n + s - 1) // s - 1) * s + (k - 1) * d + 1 - n, 0)
            sides += [total // 2, total - total // 2]
        top, bottom, left, right = sides
    else:
        top, bottom, left, right = resolve_padding(padding, (1, 1), kernel)
    return F.pad(X, (left, right, top, bottom), value=value)


def fits(X: Tensor, kernel: tuple[int, int], window: dict) -> bool:
    grown = padded(X, kernel, window).shape[-2:]
    spans = (d * (k - 1) + 1 for k, d in zip(kernel, window.get("dilation", (1, 1)), strict=True))
    return all(span <= n for span, n in zip(spans, grown, strict=True))


@given(window_cases(), st.integers(1, 3), st.integers(1, 3), st.booleans(), st.integers(0, 2**31))
def test_correlation_equals_torch(case, channels: int, out: int, batched: bool, seed: int) -> None:
    size, kernel, window = case
    generator = torch.Generator().manual_seed(seed)
    X = torch.randn(*([2] if batched else []), channels, *size, generator=generator, dtype=torch.float64)
    K = torch.randn(out, channels, *kernel, generator=generator, dtype=torch.float64)
    if not fits(X, kernel, window):
        with pytest.raises(UsageError, match="larger than the padded input"):
            ops.corr2d_multi_in_out(X, K, **window)
        return
    expected = F.conv2d(padded(X, kernel, window), K, None, window["stride"], 0, window["dilation"])
    torch.testing.assert_close(ops.corr2d_multi_in_out(X, K, **window), expected)
    one = X[..., 0, :, :] if not batched else X[0, 0]
    single = F.conv2d(padded(one[None], kernel, window), K[:1, :1], None, window["stride"], 0, window["dilation"])[0]
    torch.testing.assert_close(ops.corr2d(one, K[0, 0], **window), single)
    torch.testing.assert_close(ops.conv2d(one, K[0, 0].flip(0, 1), **window), single)


@given(window_cases(dilated=False), st.sampled_from(["max", "avg"]), st.integers(0, 2), st.integers(0, 2**31))
def test_pooling_equals_torch(case, mode: str, leading: int, seed: int) -> None:
    size, kernel, window = case
    X = torch.randn(*[2] * leading, *size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    grown = padded(X, kernel, window)
    sides = resolve_padding(window["padding"], size, kernel, window["stride"])
    too_wide = max(sides[:2]) >= kernel[0] or max(sides[2:]) >= kernel[1]
    if too_wide or not fits(X, kernel, window):
        with pytest.raises(UsageError, match=r"smaller than the window|larger than the padded input"):
            ops.pool2d(X, kernel, mode, **window)
        return
    as_batch = grown.reshape(1, -1, *grown.shape[-2:])
    if mode == "max":
        lowest = padded(X, kernel, window, float("-inf")).reshape(as_batch.shape)
        expected = F.max_pool2d(lowest, kernel, window["stride"])
    else:
        ones = padded(torch.ones_like(X), kernel, window).reshape(as_batch.shape)
        expected = F.avg_pool2d(as_batch, kernel, window["stride"]) / F.avg_pool2d(ones, kernel, window["stride"])
    result = ops.pool2d(X, kernel, mode, **window)
    torch.testing.assert_close(result, expected.reshape(result.shape))


@given(st.integers(2, 5), st.integers(1, 4), st.booleans(), st.floats(0.5, 0.99), st.integers(0, 2**31))
def test_batch_norm_equals_torch(n: int, c: int, conv: bool, decay: float, seed: int) -> None:
    g = torch.Generator().manual_seed(seed)
    X = 3 * torch.randn(n, c, *((3, 5) if conv else ()), generator=g, dtype=torch.float64) + 1
    gamma, beta, mean = (torch.randn(c, generator=g, dtype=torch.float64) for _ in range(3))
    variance = torch.rand(c, generator=g, dtype=torch.float64) + 0.5
    for training in (True, False):
        moved_mean, moved_variance = mean.clone(), variance.clone()
        expected = F.batch_norm(X, moved_mean, moved_variance, gamma, beta, training, 1 - decay, 1e-3)
        Y, new_mean, new_variance = ops.batch_norm(
            X, gamma, beta, mean, variance, training=training, decay=decay, epsilon=1e-3
        )
        torch.testing.assert_close(Y, expected)
        torch.testing.assert_close(new_mean, moved_mean)
        count = X.numel() // c
        biased = variance * decay + (moved_variance - variance * decay) * (count - 1) / count
        torch.testing.assert_close(new_variance, biased if training else variance)


# --- exact integers, dtypes, gradients


def test_narrow_integers_neither_wrap_nor_round() -> None:
    X, K = torch.full((5, 5), 255, dtype=torch.uint8), torch.full((5, 5), 255, dtype=torch.uint8)
    assert ops.corr2d(X, K).tolist() == [[25 * 255 * 255]]
    big = torch.tensor([[2**40 + 1, 2**40]])
    assert ops.corr2d(big, torch.tensor([[1, -1]])).tolist() == [[1]]
    assert ops.corr2d_1x1(X[None], torch.full((1, 1, 1, 1), 255, dtype=torch.uint8))[0, 0, 0] == 255 * 255
    assert ops.pool2d(X, 5, "avg").item() == 255
    assert ops.pool2d(-X33 - 1, 2, padding=1).max() == -1


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.complex64])
def test_dtype_is_kept(dtype: torch.dtype) -> None:
    X, K = torch.ones(4, 4, dtype=dtype), torch.ones(2, 2, dtype=dtype)
    assert ops.corr2d(X, K).dtype == dtype
    assert ops.corr2d(X, K)[0, 0] == 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_overflows_no_earlier_than_torch(dtype: torch.dtype) -> None:
    X = (300 * torch.randn(64, 2, 4, 4)).to(dtype)
    one, zero = torch.ones(2), torch.zeros(2)
    Y, _, variance = ops.batch_norm(X, one, zero, zero, one, training=True)
    assert Y.dtype == dtype
    torch.testing.assert_close(
        Y, F.batch_norm(X, None, None, one.to(dtype), zero.to(dtype), True), atol=0.02, rtol=0.01
    )
    assert variance.isfinite().all()
    big = torch.full((8, 8), 60000.0).to(dtype)
    assert ops.pool2d(big, 8, "avg").equal(big[:1, :1])


def test_other_dtypes_are_supported() -> None:
    X = torch.arange(9).reshape(3, 3)
    for dtype in (torch.uint16, torch.int8, torch.bool):
        pooled = ops.pool2d(X.to(dtype), 2, padding=1)
        assert pooled.dtype == dtype
        assert pooled[-1, -1] == torch.tensor(8).to(dtype)
    with pytest.raises(UsageError, match="complex numbers have no maximum"):
        ops.pool2d(X.to(torch.complex64), 2)
    kernel = torch.tensor([1, 2]).view(2, 1, 1, 1)
    for image in (X.float()[None], X.double()[None], X[None]):
        assert ops.corr2d_1x1(image, kernel).equal(ops.corr2d_multi_in_out(image, kernel))
    assert ops.corr2d_1x1(X[None], torch.full((1, 1, 1, 1), 2**60)).dtype == torch.int64


def test_refused_first_input_leaves_the_layer_unbuilt() -> None:
    layer = ops.BatchNormalization()
    with pytest.raises(UsageError, match=r"\(N, C\) or \(N, C, H, W\)"):
        layer(torch.rand(4, 7, 3))
    assert layer(torch.rand(4, 3)).shape == (4, 3)


def test_kernel_learning_is_seeded() -> None:
    Y = ops.detect_edges(WIDE)
    one, same, other = (ops.learn_kernel(WIDE, Y, (1, 2), seed=seed).losses for seed in (1, 1, 2))
    assert one == same != other


def test_meta_device_is_supported() -> None:
    X, K = torch.empty(2, 3, 9, 9, device="meta"), torch.empty(4, 3, 3, 3, device="meta")
    assert ops.corr2d_multi_in_out(X, K, stride=2).shape == (2, 4, 4, 4)
    assert ops.pool2d(X, 3, padding=1).device.type == "meta"


def test_operators_pass_gradcheck() -> None:
    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, dtype=torch.float64, requires_grad=True)

    window = {"stride": (2, 1), "padding": "same", "dilation": (1, 2)}
    check = torch.autograd.gradcheck
    assert check(lambda X, K: ops.corr2d(X, K, **window), (random(5, 6), random(2, 3)))
    assert check(lambda X, K: ops.conv2d(X, K), (random(5, 6), random(2, 3)))
    assert check(lambda X, K: ops.corr2d_multi_in_out(X, K, **window), (random(2, 2, 5, 4), random(3, 2, 2, 3)))
    assert check(ops.corr2d_1x1, (random(3, 2, 2), random(4, 3, 1, 1)))
    assert check(lambda X: ops.pool2d(X, 3, "max", 2, 1), (random(2, 5, 6),))
    assert check(lambda X: ops.pool2d(X, 3, "avg", 2, 1), (random(2, 5, 6),))
    mean, variance = torch.zeros(2, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    for training in (True, False):
        assert check(
            lambda X, g, b, t=training: ops.batch_norm(X, g, b, mean, variance, training=t)[0],
            (random(3, 2, 2, 2), random(2), random(2)),
        )


def test_tied_maxima_share_the_gradient_as_in_torch() -> None:
    X = torch.zeros(1, 1, 4, 4, requires_grad=True)
    (ours,) = torch.autograd.grad(ops.pool2d(X, 2, stride=2).sum(), X)
    (torchs,) = torch.autograd.grad(F.max_pool2d(X, 2).sum(), X)
    assert ours.equal(torchs)


def test_windows_are_views() -> None:
    X = torch.arange(20).reshape(4, 5)
    seen = ops.windows(X, (2, 2), stride=(2, 3))
    assert seen.tolist() == [[[[0, 1], [5, 6]], [[3, 4], [8, 9]]], [[[10, 11], [15, 16]], [[13, 14], [18, 19]]]]
    assert seen.untyped_storage().data_ptr() == X.untyped_storage().data_ptr()


# --- modules


def test_conv2d_module_equals_the_chapter_layer() -> None:
    layer = ops.Conv2D((1, 2))
    assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == {"weight": (1, 2), "bias": (1,)}
    X = torch.rand(3, 1, 5, 6)
    expected = F.conv2d(X, layer.weight[None, None], layer.bias)
    torch.testing.assert_close(layer(X), expected)
    torch.testing.assert_close(layer(X[0]), expected[0])
    torch.testing.assert_close(layer(X[0, 0]), expected[0, 0])
    with pytest.raises(UsageError, match="3 channels and K is for 1"):
        layer(torch.rand(3, 5, 6))


def test_modules_train_inside_a_sequential() -> None:
    net = nn.Sequential(
        ops.Conv2D(3, padding="same"), ops.BatchNormalization(), ops.MultiChannelConv2D(1, 4, 3, stride=2),
        nn.ReLU(), nn.Flatten(), ops.BatchNormalization(num_features=36), nn.Linear(36, 2),
    )  # fmt: skip
    X, y = torch.rand(32, 1, 8, 8), torch.arange(32) % 2
    X[y == 1, :, :4] += 1
    net(X)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    losses = []
    for _ in range(20):
        loss = F.cross_entropy(net(X), y)
        optimizer.zero_grad()
        loss.backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ops.Conv2D((2, 3)),
        lambda: ops.MultiChannelConv2D(2, 3, 2),
        lambda: ops.BatchNormalization(0.8, 1e-4, num_features=2),
        lambda: ops.BatchNormalization(),
    ],
)
def test_state_dict_round_trip_is_exact(make) -> None:
    torch.manual_seed(1)
    one, other = make(), make()
    X = torch.rand(4, 1 if isinstance(one, ops.Conv2D) else 2, 5, 5)
    one(X)
    other.load_state_dict(one.state_dict())
    torch.testing.assert_close(one.eval()(X), other.eval()(X), atol=0, rtol=0)


def test_batch_normalization_module_equals_torch_in_both_modes() -> None:
    ours, X = ops.BatchNormalization(decay=0.9, epsilon=1e-5), torch.randn(64, 3, 4, 4) * 2 + 1
    ours(X)
    torchs = nn.BatchNorm2d(3)
    torchs.load_state_dict(
        {"weight": ours.gamma, "bias": ours.beta, "running_mean": ours.moving_mean, "running_var": ours.moving_variance,
         "num_batches_tracked": torch.tensor(1)}
    )  # fmt: skip
    torch.testing.assert_close(ours.eval()(X), torchs.eval()(X), atol=1e-5, rtol=0)
    torch.testing.assert_close(ours.train()(X), torchs.train()(X), atol=1e-5, rtol=0)


def test_eval_mode_uses_and_keeps_the_moving_statistics() -> None:
    layer = ops.BatchNormalization(num_features=2)
    layer(torch.randn(8, 2) + 5)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    layer.eval()
    a, b = layer(torch.ones(1, 2)), layer(torch.ones(7, 2) * torch.arange(7)[:, None])[1:2]
    assert a.equal(b)
    assert all(before[name].equal(value) for name, value in layer.state_dict().items())
    assert before["moving_mean"].min() > 0.3


# --- pictures


def test_filter_image_matches_a_known_result() -> None:
    image = torch.zeros(1, 6, 8, dtype=torch.uint8)
    image[:, :, 4:] = 200
    edges = ops.filter_image(image, ops.parse_kernel("[[1, -1]]"))
    assert edges.tolist() == [[[0, 0, 0, 255, 0, 0, 0]] * 6]
    blurred = ops.filter_image(image, ops.parse_kernel("blur"))
    assert blurred[0, 0].tolist() == [0, 0, 50, 150, 200, 200]
    assert ops.filter_image(image, ops.parse_kernel("[[2]]")).max() == 255


def test_computing_in_strips_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    image = torch.randint(0, 256, (3, 40, 30), dtype=torch.uint8)
    whole = [ops.filter_image(image, ops.parse_kernel("sharpen"), stride, "same") for stride in (1, 3)]
    expected = F.conv2d(image[:, None].float(), ops.parse_kernel("sharpen")[None, None], padding=1)[:, 0]
    assert whole[0].equal(expected.round().clamp(0, 255).to(torch.uint8))
    monkeypatch.setattr("cnnkit.ops.filters.STRIP", 30 * 9 * 4)
    assert all(
        ops.filter_image(image, ops.parse_kernel("sharpen"), stride, "same").equal(w)
        for stride, w in zip((1, 3), whole, strict=True)
    )


@pytest.mark.parametrize("text", ["[[1, 2], [3]]", "[]", "[1, 2]", "[[1, x]]", "[[NaN]]", '[["a"]]', "[[]]"])
def test_bad_kernel_error_shows_the_syntax(text: str) -> None:
    with pytest.raises(UsageError, match=r"write \[\[1, -1\]\]"):
        ops.parse_kernel(text)


def test_unknown_kernel_error_has_a_hint() -> None:
    with pytest.raises(UsageError, match="did you mean 'sobel-x'"):
        ops.parse_kernel("sobelx")


# --- errors


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.corr2d(torch.ones(2, 2), torch.ones(3, 3)), r"window of 3 x 3 is larger .* 2 x 2"),
        (lambda: ops.corr2d(torch.ones(1, 2, 2), K22), r"X must have 2 dimensions, not 3: \(1, 2, 2\)"),
        (lambda: ops.corr2d(X33, torch.ones(2)), "K must have 2 dimensions"),
        (lambda: ops.conv2d(X33, torch.ones(2)), "K must have 2 dimensions"),
        (lambda: ops.corr2d(X33, K22, stride=0), "stride must be"),
        (lambda: ops.corr2d(X33, K22, dilation=0), "dilation must be"),
        (lambda: ops.corr2d(X33, K22, padding=-1), "padding must be"),
        (lambda: ops.corr2d_multi_in(torch.ones(2, 4, 4), torch.ones(3, 2, 2)), "2 channels and K is for 3"),
        (lambda: ops.corr2d_multi_in_out(torch.ones(4, 4), torch.ones(1, 1, 2, 2)), "X must have 3 to 4 dim"),
        (lambda: ops.corr2d_1x1(torch.ones(3, 4, 4), torch.ones(2, 3, 3, 3)), r"K must be \(O, C, 1, 1\)"),
        (lambda: ops.pool2d(X33, 2, "median"), "unknown pooling mode 'median'"),
        (lambda: ops.pool2d(X33, 2, stride=0), "stride must be"),
        (lambda: ops.pool2d(X33, 2, padding=2), "padding 2 must be smaller than the window 2"),
        (lambda: ops.pool2d(X33[0], 2), "X must have at least 2 dim"),
        (lambda: ops.Conv2D(0), "kernel_size must be"),
        (lambda: ops.Conv2D(2, padding="sam"), "padding must be"),
        (lambda: ops.MultiChannelConv2D(0, 1, 2), "in_channels must be"),
        (lambda: ops.MultiChannelConv2D((1, 2), 1, 2), "in_channels must be an int >= 1"),
        (lambda: ops.BatchNormalization(num_features=2.5), "num_features must be an int >= 1, not 2.5"),
        (lambda: ops.corr2d_multi_in_out(torch.ones(1, 4, 4), torch.ones(0, 1, 2, 2)), "at least one output channel"),
        (lambda: ops.learn_kernel(WIDE, ops.detect_edges(WIDE), (1, 2), steps=0), "steps must be"),
        (lambda: ops.learn_kernel(WIDE, ops.detect_edges(WIDE), (1, 2), lr=1e39, steps=1), "diverges at step 0"),
        (lambda: ops.BatchNormalization(1.5), "decay must be between 0 and 1, not 1.5"),
        (lambda: ops.BatchNormalization(epsilon=0), "epsilon must be above 0"),
        (lambda: ops.BatchNormalization(num_features=2)(torch.ones(4, 3)), r"gamma must be \(3,\)"),
        (lambda: ops.BatchNormalization(num_features=2)(torch.ones(1, 2)), "more than one value per channel"),
        (lambda: ops.BatchNormalization(num_features=2)(torch.ones(4, 2, 3)), r"\(N, C\) or \(N, C, H, W\)"),
        (lambda: ops.learn_kernel(WIDE, WIDE, (1, 2)), "Y must be 6 x 7 for this X"),
        (lambda: ops.learn_kernel(WIDE, WIDE, 1, start=torch.ones(2, 1)), "start must be 1 x 1, not 2 x 1"),
        (
            lambda: ops.learn_kernel(WIDE, ops.detect_edges(WIDE), (1, 2), lr=1e9, steps=99),
            "diverges at step .* lr=1000000000.0 is too large",
        ),
        (lambda: ops.filter_image(X33, K22), "image must have 3 dim"),
    ],
)
def test_errors_name_the_argument_and_value(call, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        call()
