"""Effective receptive fields: how much each input pixel weighs in one element of a feature map."""

import torch
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError, UsageError
from cnnkit.core.modes import prediction_mode
from cnnkit.core.shape import count
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
    """Return each pixel's share in the centre of a feature map, for images of `input_size` C x H x W: H x W, sum 1.

    Luo, Li, Urtasun, Zemel: Understanding the effective receptive field in deep convolutional neural networks, 2016.
    The recipe: standard normal images, one after the other, through the net in prediction mode; a gradient of 1 in
    every channel at the centre (row H' // 2, column W' // 2) of the map goes back to the image; its absolute value is
    averaged over the image's channels and the `samples` images, then scaled to the sum 1. The paper takes 20 images.

    The map is the output of the stage or layer called `name` (a dotted path); without it, of the last stage that
    gives one. The theoretical field around it is `trace(net, input_size).stages[i].receptive`. The net stays as it
    was, and so do the global random numbers. Raises UsageError if the part is unknown or gives no map, or the net
    cannot take such an image, CnnkitError if no gradient arrives.
    """
    count(samples, "samples")
    net = network(model)
    generator = torch.Generator().manual_seed(seed)
    like = next(net.parameters(), torch.empty(0))
    field = torch.zeros(input_size[1:], dtype=like.dtype, device=like.device)
    with prediction_mode(net), torch.inference_mode(False):  # which brings the gradients back
        for _ in range(samples):
            x = torch.randn(1, *input_size, generator=generator).to(like).requires_grad_()
            maps = [output for output in outputs(net, x, None if name is None else [name]).values() if output.ndim == 4]
            if not maps:
                raise UsageError(f"{name or 'the network'} gives no feature map C x H x W")
            height, width = maps[-1].shape[-2:]
            centre = maps[-1][..., height // 2, width // 2].sum()
            if centre.requires_grad and (gradient := torch.autograd.grad(centre, x, allow_unused=True)[0]) is not None:
                field += gradient[0].abs().mean(0)
    if not field.sum() > 0:
        raise CnnkitError(
            f"no gradient comes back from {name or 'the last map'} in {samples} samples; use more samples"
        )
    return field / field.sum()
