"""Initial weights and the optimiser, as the settings name them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import unknown
from cnnkit.ops import MultiChannelConv2D
from cnnkit.train.config import TrainConfig

__all__ = ["initialise", "make_optimizer"]


INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "torch": None,
    "glorot": nn.init.xavier_uniform_,  # Glorot and Bengio 2010, formula 16
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),  # He et al. 2015, formula 10
}


def initialise(net: nn.Module, init: str) -> None:
    """Set the weights of every dense and convolutional layer: as built ("torch"), as Keras does ("glorot"), or "he".

    Except for "torch", biases start at zero. Raises UsageError for another name.
    """
    if init not in INITS:
        raise unknown("init", init, INITS)
    for layer in net.modules():
        if (fill := INITS[init]) and isinstance(layer, nn.Linear | nn.Conv2d | MultiChannelConv2D):
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of `config`, with fused kernels where torch has them."""
    parameters = net.parameters()
    common: dict[str, Any] = {"lr": config.lr, "weight_decay": config.weight_decay}
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, momentum=config.momentum, fused=True, **common)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, momentum=config.momentum, **common)
    adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return adam(parameters, fused=True, **common)
