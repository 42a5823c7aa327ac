"""Initial weights, frozen layers, learning rates of stages, and the optimiser."""

from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import UsageError, pick
from cnnkit.ops import MultiChannelConv2D
from cnnkit.train.config import TrainConfig

__all__ = ["freeze", "initialise", "make_optimizer"]


INITS: dict[str, Callable[[Tensor], Tensor] | None] = {
    "torch": None,
    "glorot": nn.init.xavier_uniform_,  # Glorot and Bengio 2010, formula 16
    "he": partial(nn.init.kaiming_normal_, nonlinearity="relu"),  # He et al. 2015, formula 10
}


def initialise(net: nn.Module, init: str) -> None:
    """Initialise all dense and convolutional layers: unchanged ("torch"), as in Keras ("glorot"), or "he".

    Except for "torch", biases are set to zero. Raises UsageError for another name.
    """
    fill = pick(INITS, init, "init")
    for layer in net.modules():
        if fill and isinstance(layer, nn.Linear | nn.Conv2d | MultiChannelConv2D):
            fill(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def freeze(net: nn.Module, patterns: Iterable[str]) -> list[nn.Module]:
    """Freeze the stages and layers that match one of `patterns`, and return them.

    Raises UsageError for a pattern that matches no module, or if no weight is left to train.
    """
    frozen = [module for pattern in patterns for module in _matching(net, pattern, "freeze")]
    for module in frozen:
        module.requires_grad_(False)
    if not any(parameter.requires_grad for parameter in net.parameters()):
        raise UsageError("freeze leaves no weights to train: give fewer patterns")
    return frozen


def make_optimizer(net: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """Return the optimiser of `config` for the trainable weights, with fused kernels where torch has them.

    Each parameter group has a `factor` of the learning rate (`stage_lr`; the last of several matching patterns counts);
    biases and normalisations have no weight decay. Raises UsageError for a pattern that matches no module.
    """
    factors: dict[int, float] = {}
    for pattern, factor in config.stage_lr.items():
        for module in _matching(net, pattern, "stage_lr"):
            factors |= {id(parameter): factor for parameter in module.parameters()}
    groups: dict[tuple[float, float], list[Tensor]] = {}
    for parameter in net.parameters():
        if parameter.requires_grad:
            decay = config.weight_decay if parameter.ndim > 1 else 0.0
            groups.setdefault((factors.get(id(parameter), 1.0), decay), []).append(parameter)
    rows: list[dict[str, Any]] = [
        {"params": parameters, "factor": factor, "weight_decay": decay}
        for (factor, decay), parameters in groups.items()
    ]
    if config.optimizer == "sgd":
        return torch.optim.SGD(rows, config.lr, config.momentum, nesterov=config.nesterov, fused=True)
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(rows, config.lr, momentum=config.momentum)
    adam = torch.optim.Adam if config.optimizer == "adam" else torch.optim.AdamW
    return adam(rows, config.lr, fused=True)


def _matching(net: nn.Module, pattern: str, setting: str) -> list[nn.Module]:
    names = {name: module for name, module in net.named_modules() if name}
    found = [module for name, module in names.items() if fnmatchcase(name, pattern)]
    if not found:
        stages = [name for name, _ in net.named_children()]
        raise UsageError(f"{setting}: no stage or layer matches {pattern!r}; the stages are {', '.join(stages)}")
    return found
