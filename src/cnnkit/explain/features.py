"""Feature maps of an image, and filters of convolutions."""

from collections.abc import Iterable
from contextlib import ExitStack
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import UsageError, unknown
from cnnkit.core.finite import require_finite
from cnnkit.core.modes import prediction_mode
from cnnkit.core.modules import unwrapped
from cnnkit.core.shape import by
from cnnkit.deploy import Classifier
from cnnkit.ops import Conv2D, MultiChannelConv2D

__all__ = ["feature_maps", "filters", "find", "network", "outputs", "with_stages"]


def feature_maps(model: nn.Module | Classifier, image: Any, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Run a network in evaluation mode, without gradients, and return the outputs of its stages or layers.

    `image` is a float batch N x C x H x W for a module, or what `predict` takes for a Classifier. `names` are dotted
    paths of stages or layers ("conv2", "conv2.0.body.conv1"), by default all stages in order. A map is N x C' x H' x
    W', a dense layer's output N x F. For a layer that runs more than once, the last output is returned. The network is
    not changed. Raises UsageError for an unknown name, a part that does not run or outputs no tensor, and a batch that
    the network does not accept; CnnkitError for maps with NaN or Inf.
    """
    net, x = network(model), model.batch(image) if isinstance(model, Classifier) else image
    # tensors created in inference mode could not be used in training later
    with prediction_mode(net), torch.inference_mode(False), torch.no_grad():
        maps = outputs(net, x, names)
    for name, values in maps.items():
        require_finite(net, x, values, [f"image {row} in {name}" for row in range(len(x))])
    return maps


def filters(model: nn.Module | Classifier, name: str | None = None) -> Tensor:
    """Return a copy of the weights of a convolution, O x C x kh x kw (C per group).

    It is the first convolution of the network, or of the stage or layer `name` (a dotted path). Raises UsageError if
    there is none, or if the name is unknown.
    """
    net = network(model)
    part = net if name is None else find(with_stages(net), name)
    for layer in part.modules():
        if isinstance(layer, nn.Conv2d | MultiChannelConv2D):
            return layer.weight.detach().clone()
        if isinstance(layer, Conv2D):
            return layer.weight.detach().clone()[None, None]
    raise UsageError(f"{name or 'the network'} has no convolution")


def network(model: nn.Module | Classifier) -> nn.Module:
    """Return the network of a classifier, or a module without wrappers."""
    return model.net if isinstance(model, Classifier) else unwrapped(model)


def outputs(net: nn.Module, x: Tensor, names: Iterable[str] | None = None) -> dict[str, Tensor]:
    """Return the outputs of parts of `net` as `feature_maps` does, in its current mode and gradient setting."""
    if x.ndim != 4:
        raise UsageError(f"x must be N x C x H x W, not {tuple(x.shape)}")
    net = with_stages(net)
    if names is None:
        names = [name for name, _ in net.named_children()]
    names = [names] if isinstance(names, str) else list(names)
    seen: dict[str, Any] = {}

    def keep(name: str, module: nn.Module, arguments: Any, output: Any) -> None:
        seen[name] = output.clone() if isinstance(output, Tensor) else output  # the next layer may operate in place

    with ExitStack() as hooks:
        for name in names:
            hooks.enter_context(find(net, name).register_forward_hook(partial(keep, name)))
        try:
            net(x)
        except (RuntimeError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise UsageError(f"the network does not accept a batch of {by(*x.shape)}: {reason}") from error
    for name in names:
        if not isinstance(seen.get(name), Tensor):
            raise UsageError(f"{name} outputs no tensor" if name in seen else f"{name} does not run in this network")
    return {name: seen[name] for name in names}


def with_stages(net: nn.Module) -> nn.Module:
    """Return a network with named children: itself, or a lone layer in a Sequential."""
    return net if next(net.children(), None) else nn.Sequential(net)


def find(net: nn.Module, path: str) -> nn.Module:
    """Return the part of `net` at a dotted path; the UsageError for an unknown one lists the parts beside it."""
    parts: dict[str, nn.Module] = dict(net.named_modules(remove_duplicate=False))
    if path and path in parts:
        return parts[path]
    above = path
    while above not in parts or next(parts[above].children(), None) is None:
        above = above.rpartition(".")[0]
    prefix = f"{above}." if above else ""
    wrong = prefix + path.removeprefix(prefix).split(".")[0]
    beside = [prefix + name for name, _ in parts[above].named_children()]
    raise unknown("layer", path if wrong in parts else wrong, beside)
