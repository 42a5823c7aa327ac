"""Initial weights and the optimiser, as the settings name them."""

from typing import Any

import torch
from torch import nn

from cnnkit.core.errors import unknown
from cnnkit.ops import MultiChannelConv2D
from cnnkit.train.config import TrainConfig

__all__ = ["initialise", "make_optimizer"]


def initialise(net: nn.Module, init: str) -> None:
    """Set the weights: "torch" leaves them as built, "glorot" is Keras' (Glorot and Bengio 2010, formula 16).

    Glorot-uniform weights and zero biases in every dense and convolutional layer. Raises UsageError for another name.
    """
    if init not in ("torch", "glorot"):
        raise unknown("init", init, ("torch", "glorot"))
    for layer in net.modules() if init == "glorot" else ():
        if isinstance(layer, nn.Linear | nn.Conv2d | MultiChannelConv2D):
            nn.init.xavier_uniform_(layer.weight)
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
