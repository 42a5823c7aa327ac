"""Metrics over batches, by class and of the default recipe."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnkit.core.errors import UsageError
from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.train import Metrics, evaluate


def test_evaluation_is_exact_over_unequal_batches() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train()
    images, labels = torch.randint(0, 256, (23, 1, 8, 8), dtype=torch.uint8), torch.randint(0, 3, (23,))
    whole = net(images / 255)
    for batch_size in (1, 5, 23, 100):
        metrics = evaluate(net, Batches(ImageSet(images, labels), batch_size, Preprocess((8, 8))))
        assert metrics.loss == pytest.approx(F.cross_entropy(whole, labels).item(), rel=1e-6)
        assert metrics.accuracy == (whole.argmax(1) == labels).sum().item() / 23
        assert metrics.confusion.sum(1).equal(torch.bincount(labels, minlength=3))
    assert net.training
    with pytest.raises(UsageError, match="no image to evaluate on"):
        evaluate(net, [])


def test_per_class_figures_by_hand() -> None:
    metrics = Metrics(0.0, torch.tensor([[3, 1, 0], [2, 4, 0], [0, 0, 0]]))
    assert metrics.accuracy == 0.7
    assert metrics.num_images == 10
    rows = metrics.per_class()
    assert rows[0] == {"precision": 0.6, "recall": 0.75, "f1": pytest.approx(2 / 3), "support": 4}
    assert rows[1] == {"precision": 0.8, "recall": pytest.approx(2 / 3), "f1": pytest.approx(8 / 11), "support": 6}
    assert rows[2] == {"precision": None, "recall": None, "f1": None, "support": 0}, "no images, no figures"
