"""The sanity check: methods that depend on the weights pass, an edge detector does not."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.stats import spearmanr
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.data import Preprocess, load_named
from cnnkit.explain import sanity
from cnnkit.explain.sanity import MAX_LAYERS, spearman
from cnnkit.nets import create

LAYERS = ["head", "dense.3", "dense.1", "conv2.0", "conv1.0"]


def edges(net: nn.Module, x: Tensor, target: int) -> Tensor:
    laplace = torch.tensor([[-1.0, -1, -1], [-1, 8, -1], [-1, -1, -1]]).view(1, 1, 3, 3)
    return F.conv2d(x, laplace, padding=1).abs()[0, 0]


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Tensor]:
    """LeNet after some seconds on the digits, and six of them that it knows."""
    torch.manual_seed(0)
    torch.set_num_threads(1)
    digits = load_named("digits")
    x, y = Preprocess((28, 28))(digits.train.images[:1200]), digits.train.labels[:1200]
    net = create("lenet", activation="relu")
    optimizer = torch.optim.Adam(net.parameters(), 2e-3)
    for _ in range(6):
        for rows in torch.randperm(len(x)).split(32):
            optimizer.zero_grad()
            F.cross_entropy(net(x[rows]), y[rows]).backward()
            optimizer.step()
    known = (net.eval()(x).argmax(1) == y).nonzero().flatten()
    assert len(known) > 1100
    return net, x[known[:6]]


@pytest.mark.parametrize("method", ["gradcam", "integrated-gradients"])
def test_methods_that_read_the_weights_pass(trained: tuple[nn.Module, Tensor], method: str) -> None:
    net, x = trained
    weights, random = {key: value.clone() for key, value in net.state_dict().items()}, torch.get_rng_state()
    found = sanity(net, x, method, draws=2)
    assert found.passed, found.verdict
    assert [row.layer for row in found.layers] == LAYERS
    assert abs(found.correlation) < 0.3
    assert "passed" in found.verdict
    assert all(value.equal(weights[key]) for key, value in net.state_dict().items())
    assert torch.get_rng_state().equal(random)
    assert sanity(net, x, method, draws=2) == found


def test_edge_detector_fails(trained: tuple[nn.Module, Tensor]) -> None:
    found = sanity(*trained, edges, draws=1)
    assert not found.passed
    assert [row.correlation for row in found.layers] == pytest.approx([1.0] * 5)
    assert found.verdict.startswith("failed: ")
    assert found.to_dict()["method"] == "edges"
    assert "edges shows little of what the network has learned" in found._repr_html_()


def test_inverted_heat_resembles_the_original(trained: tuple[nn.Module, Tensor]) -> None:
    net, x = trained

    def inverted(some: nn.Module, image: Tensor, target: int) -> Tensor:
        same = some.state_dict()["head.weight"].equal(net.state_dict()["head.weight"])
        return image[0, 0] if same else -image[0, 0]

    found = sanity(net, x, inverted, draws=1)
    assert found.correlation == pytest.approx(-1)
    assert not found.passed


def test_layers_are_randomised_from_the_top(trained: tuple[nn.Module, Tensor]) -> None:
    """A method that shows one layer's weights changes when this layer has been randomised."""
    net, x = trained

    def second(some: nn.Module, image: Tensor, target: int) -> Tensor:
        return some.conv2[0].weight[:, 0].reshape(16, 25)

    found = sanity(net, x[:1], second, draws=1)
    correlations = [row.correlation for row in found.layers]
    assert correlations[:3] == pytest.approx([1.0] * 3)
    assert max(map(abs, correlations[3:])) < 0.3


def test_deep_networks_are_randomised_by_stages() -> None:
    found = sanity(create("resnet18", image_size=32), torch.rand(1, 1, 32, 32), "gradcam", draws=1)
    assert [row.layer for row in found.layers] == ["head", "conv5", "conv4", "conv3", "conv2", "stem"]
    assert len(found.layers) < MAX_LAYERS


def test_what_cannot_be_checked_is_refused() -> None:
    net, x = create("lenet"), torch.rand(1, 1, 28, 28)
    with pytest.raises(CnnkitError, match="the heat of image 0 is constant"):
        sanity(net, x, lambda net, x, target: torch.zeros(28, 28))
    with pytest.raises(UsageError, match="the network has no weights"):
        sanity(nn.Sequential(nn.AdaptiveAvgPool2d(2), nn.Flatten()), x, edges)
    with pytest.raises(UsageError, match="unknown method"):
        sanity(net, x, "edges")
    with pytest.raises(UsageError, match="draws must be an int >= 1"):
        sanity(net, x, draws=0)


def test_correlation_equals_that_of_scipy() -> None:
    generator = np.random.default_rng(0)
    for size, levels in [((4, 4), 3), ((7, 5), 100), ((2, 2), 2), ((30, 30), 5)]:
        one, other = generator.integers(0, levels, (2, *size)).astype(np.float32)
        assert spearman(one, other) == pytest.approx(spearmanr(one.ravel(), other.ravel()).statistic)
    assert spearman(np.zeros((2, 2)), np.arange(4.0)) == 0
