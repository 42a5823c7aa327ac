"""Attribution methods, computed by Captum: each gives every pixel of a network's input its part in one logit."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from cnnkit.core.errors import CnnkitError
from cnnkit.core.extras import require
from cnnkit.core.resize import resize
from cnnkit.explain.subject import Subject

__all__ = ["METHODS", "Heat", "Method", "heat_of", "parts_of"]

PIXELS, MAX_BATCH = 2**19, 64  # of one pass: pixels (ten images of 224 x 224), and images
WINDOWS = 8  # occluding windows along a side; they overlap by half
STEPS = 64  # of the integral: on the tested networks, the sum differs from the logits' difference by less than 1 %
SAMPLES, NOISE, SEED = 32, 0.15, 0  # of SmoothGrad: noisy copies, their noise as a share of the range of values


@dataclass(frozen=True)
class Heat:
    """Heat over the input, N x h x w, and for a method that explains by a layer also over its map, N x h' x w'."""

    pixels: Tensor
    cells: Tensor | None = None


@dataclass(frozen=True)
class Method:
    """A row of the table of methods.

    `compute` takes the network, images N x C x h x w (few enough for one pass) and the N logits to explain.
    """

    compute: Callable[[Subject, Tensor, Tensor], Heat]
    by_layer: bool = False
    signed: bool = True


def heat_of(method: Method, subject: Subject, x: Tensor, targets: Tensor) -> Heat:
    """Return a method's heat for images N x C x h x w of any number, as float32 on the CPU.

    Raises CnnkitError if Captum is missing, if no gradient arrives, or if the heat is not finite.
    """
    with torch.inference_mode(False), torch.enable_grad():
        found = [
            method.compute(subject, some.detach().clone().requires_grad_(), wanted)
            for some, wanted in zip(parts_of(x), targets.to(x.device).split(_at_once(x)), strict=True)
        ]
    pixels = torch.cat([heat.pixels.detach().float().cpu() for heat in found])
    if not pixels.isfinite().all():
        raise CnnkitError("the explanation holds NaN or Inf: gradients of the network overflow")
    cells = [heat.cells.detach().float().cpu() for heat in found if heat.cells is not None]
    return Heat(pixels, torch.cat(cells) if cells else None)


def parts_of(x: Tensor) -> tuple[Tensor, ...]:
    """Return images in parts for one pass each."""
    return tuple(x.split(_at_once(x)))


def _at_once(x: Tensor) -> int:
    return min(MAX_BATCH, max(1, PIXELS // x.shape[-2:].numel()))


def _captum() -> Any:
    return require("captum.attr", "explain")


def _gradcam(subject: Subject, x: Tensor, targets: Tensor) -> Heat:
    """Selvaraju et al. 2017: the channels of a map, weighted by their mean gradients, summed; negative sums are 0.

    The map is stretched over the input, as in the paper.
    """
    layer = subject.net.get_submodule(subject.layer)
    try:
        cells = _captum().LayerGradCam(subject, layer).attribute(x, targets, relu_attributions=True)
    except RuntimeError as error:
        raise CnnkitError(f"no gradient arrives at {subject.layer}: {str(error).partition(chr(10))[0]}") from error
    return Heat(resize(cells, (x.shape[-2], x.shape[-1]))[:, 0], cells[:, 0])


def _occlusion(subject: Subject, x: Tensor, targets: Tensor) -> Heat:
    """Zeiler and Fergus 2014: how much the logit falls, on average, when a window over the pixel is set to 0."""
    window = tuple(-(-side // WINDOWS) for side in x.shape[-2:])
    heat = (
        _captum()
        .Occlusion(subject)
        .attribute(
            x.detach(),
            (x.shape[1], *window),
            (x.shape[1], *(-(-side // 2) for side in window)),
            baselines=0,
            target=targets,
            perturbations_per_eval=max(1, _at_once(x) // len(x)),
        )
    )
    return Heat(heat[:, 0])  # all channels have the same value


def _integrated_gradients(subject: Subject, x: Tensor, targets: Tensor) -> Heat:
    """Sundararajan, Taly and Yan 2017: the sum over all pixels is the logit's difference to that of an input of 0."""
    method = _captum().IntegratedGradients(subject)
    heat: Tensor = method.attribute(x, 0, targets, n_steps=STEPS, internal_batch_size=max(len(x), _at_once(x)))
    return Heat(heat.sum(1))


def _smoothgrad(subject: Subject, x: Tensor, targets: Tensor) -> Heat:
    """Smilkov et al. 2017: the mean gradient over copies of the image with normal noise, signed."""
    saliency, heat = _captum().Saliency(subject), []
    # the same on every device, and the global random state is not used
    noise = torch.randn(SAMPLES, *x.shape[1:], generator=torch.Generator().manual_seed(SEED)).to(x)
    for image, target in zip(x.detach().split(1), targets.tolist(), strict=True):
        noisy = image + NOISE * (image.max() - image.min()) * noise
        gradients = [
            saliency.attribute(some.requires_grad_(), target=target, abs=False) for some in noisy.split(_at_once(x))
        ]
        heat.append(torch.cat(gradients).mean(0))
    return Heat(torch.stack(heat).sum(1))


METHODS: Mapping[str, Method] = {
    "gradcam": Method(_gradcam, by_layer=True, signed=False),
    "occlusion": Method(_occlusion),
    "integrated-gradients": Method(_integrated_gradients),
    "smoothgrad": Method(_smoothgrad),
}
