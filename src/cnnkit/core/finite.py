"""NaN and Inf in a network's weights and outputs: detection, and the layer that they come from."""

import contextlib
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from cnnkit.core.errors import CnnkitError
from cnnkit.core.modes import prediction_mode

__all__ = ["not_finite", "require_finite"]


def not_finite(tensors: Mapping[str, Tensor]) -> str | None:
    """Return the first tensor that holds NaN or Inf, as "NaN: NAME"; None if all are finite."""
    for name, tensor in tensors.items():
        if tensor.is_floating_point():
            values = tensor if tensor.itemsize > 1 else tensor.float()  # torch cannot reduce 8-bit floats
            # a sum is fast, and finite only if all values are; it may overflow although all values are finite
            if not values.sum().isfinite() and not values.isfinite().all():
                return f"{'NaN' if values.isnan().any() else 'Inf'}: {name}"
    return None


def require_finite(net: nn.Module, x: Tensor, logits: Tensor, names: Sequence[object]) -> None:
    """Raise CnnkitError with the image and the reason if a network's logits for images x are not all finite."""
    wrong = ~logits.isfinite().reshape(len(logits), -1)
    if not wrong.any():
        return
    row = int(wrong.any(1).nonzero()[0])
    value = "NaN" if logits[row].isnan().any() else "Inf"
    raise CnnkitError(f"the network returns {value} for {names[row]}: {_reason(net, x[row : row + 1])}")


def _reason(net: nn.Module, x: Tensor) -> str:
    """Return why a network's output for a batch x is not finite."""
    if found := not_finite(net.state_dict()):
        return f"its weights hold {found}"
    if not x.isfinite().all():
        return "its input is not finite: check the mean and std of the preprocessing"
    first: list[str] = []

    def look(name: str, layer: nn.Module, arguments: Any, output: Any) -> None:
        if isinstance(output, Tensor) and not torch.isfinite(output).all():
            first.append(f"{name or type(layer).__name__} ({str(output.dtype).removeprefix('torch.')})")

    with contextlib.ExitStack() as hooks, prediction_mode(net):
        for name, layer in net.named_modules():
            if next(layer.children(), None) is None:
                hooks.enter_context(layer.register_forward_hook(partial(look, name)))
        net(x)
    where = f"in {first[0]}" if first else "in between"
    return f"its weights and input are finite, but values overflow {where}"
