"""Metrics over batches."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cnnkit.core.errors import UsageError
from cnnkit.data import Batches, ImageSet, Preprocess
from cnnkit.train import evaluate


def test_evaluation_is_exact_over_unequal_batches() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3)).train()
    images, labels = torch.randint(0, 256, (23, 1, 8, 8), dtype=torch.uint8), torch.randint(0, 3, (23,))
    whole = net(images / 255)
    for batch_size in (1, 5, 23, 100):
        metrics = evaluate(net, Batches(ImageSet(images, labels), batch_size, Preprocess((8, 8))))
        assert metrics.loss == pytest.approx(F.cross_entropy(whole, labels).item(), rel=1e-6)
        assert metrics.accuracy == (whole.argmax(1) == labels).sum().item() / 23
        assert metrics.num_images == 23
    assert net.training
    with pytest.raises(UsageError, match="no image to evaluate on"):
        evaluate(net, [])
