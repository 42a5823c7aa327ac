"""The network that a run trains: one of the zoo or a module from Python, checked before anything is written."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import UsageError
from cnnkit.core.shape import by
from cnnkit.experiment.config import RunConfig
from cnnkit.nets import create
from cnnkit.train import World

__all__ = ["build_network"]


def build_network(
    config: RunConfig, given: nn.Module | None, channels: int, size: tuple[int, int], num_classes: int, world: World
) -> nn.Module:
    """Return the network for these images and classes: one of the zoo, or a copy of the given module.

    Raises UsageError if the network does not accept the images, does not output logits for the classes, or has no
    trainable parameters.
    """
    alone = isinstance(config.batch_size, int) and config.batch_size < 2 * world.size  # one image per process
    if given is not None:
        try:
            net = copy.deepcopy(given)
        except Exception as error:  # of an attribute of the module
            raise UsageError(
                f"the network cannot be copied ({error}): remove attributes that are not layers"
            ) from error
        if world.size > 1:  # each process may have initialised it with another seed
            net.load_state_dict(world.broadcast(net.state_dict()))
        _require_logits(copy.deepcopy(net), torch.zeros(2, channels, *size), num_classes)
        if alone:
            where = next(net.parameters()).device
            _try_one_image(copy.deepcopy(net).train(), torch.zeros(1, channels, *size, device=where))
        return net
    arguments: dict[str, Any] = config.model_kwargs | {
        "in_channels": channels,
        "num_classes": num_classes,
        "image_size": size,
    }
    if alone:
        with torch.device("meta"):
            _try_one_image(create(config.net, **arguments), torch.empty(1, channels, *size))
    return create(config.net, **arguments)


def _require_logits(net: nn.Module, images: Tensor, num_classes: int) -> None:
    """Raise UsageError unless the network outputs logits, N x classes, for the images."""
    where = next(net.parameters(), None)
    if where is None:
        raise UsageError("the network has no parameters to train")
    try:
        with torch.random.fork_rng():  # for dropout
            logits = net.train()(images.to(where.device))
    except Exception as error:  # of the network's own code
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise UsageError(f"the network does not accept images of {by(*images.shape[1:])}: {reason}") from error
    shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
    if shape != (len(images), num_classes):
        raise UsageError(
            f"the network outputs {shape} for {len(images)} images; it must output logits, N x classes, for the "
            f"{num_classes} classes of the data"
        )
    if not logits.requires_grad and any(parameter.requires_grad for parameter in net.parameters()):
        raise UsageError("the network's logits do not depend on its parameters: it cannot learn")


def _try_one_image(net: nn.Module, image: Tensor) -> None:
    """Raise UsageError if batch normalisation gets a single value per channel."""
    try:
        net(image)
    except ValueError as error:
        raise UsageError(f"batch_size must be at least 2 with batch normalisation ({error})") from error
