"""Effective receptive fields: the influence of each input pixel on one element of a feature map."""

import torch
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.modes import prediction_mode
from cnnkit.core.shape import count
from cnnkit.core.text import counted
from cnnkit.deploy import Classifier
from cnnkit.explain.features import network, outputs

__all__ = ["effective_receptive_field"]


def effective_receptive_field(
    model: nn.Module | Classifier,
    input_size: tuple[int, int, int],
    name: str | None = None,
    samples: int = 20,
    seed: int = 0,
) -> Tensor:
    """Return the influence of each pixel of an image C x H x W on the centre of a feature map, as H x W with sum 1.

    Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep convolutional neural networks, 2016.
    The method: run standard normal images, one by one, through the network in evaluation mode; backpropagate a gradient
    of 1 in every channel at the centre (row H' // 2, column W' // 2) of the map to the image; average its absolute
    value over the image's channels and the `samples` images; scale the sum to 1. The paper uses 20 images.

    The map is the output of the stage or layer `name` (a dotted path), by default of the last stage that outputs a map.
    Its theoretical field is `trace(net, input_size).stages[i].receptive`. The network and the global random state are
    not changed. Raises UsageError if the part is unknown or outputs no map, or if the network does not accept such
    images; CnnkitError if no gradient arrives.
    """
    count(samples, "samples")
    net = network(model)
    generator = torch.Generator().manual_seed(seed)
    like = next(net.parameters(), torch.empty(0))
    field = torch.zeros(input_size[1:], dtype=like.dtype, device=like.device)
    with prediction_mode(net), torch.inference_mode(False):  # to allow gradients
        for _ in range(samples):
            x = torch.randn(1, *input_size, generator=generator).to(like).requires_grad_()
            maps = [output for output in outputs(net, x, None if name is None else [name]).values() if output.ndim == 4]
            if not maps:
                raise UsageError(f"{name or 'the network'} outputs no feature map C x H x W")
            height, width = maps[-1].shape[-2:]
            centre = maps[-1][..., height // 2, width // 2].sum()
            if centre.requires_grad and (gradient := torch.autograd.grad(centre, x, allow_unused=True)[0]) is not None:
                field += gradient[0].abs().mean(0)
    if not field.sum() > 0:
        raise CnnkitError(
            f"no gradient arrives from {name or 'the last map'} in {counted(samples, 'sample')}; use more samples"
        )
    return field / field.sum()
