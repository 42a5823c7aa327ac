"""Folding of batch normalisation into the layer before it."""

import copy
from typing import Any

from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_linear_bn_eval

from cnnkit.core.modules import unwrapped

__all__ = ["fold"]

FUSED: dict[type[nn.Module], tuple[type[nn.Module], Any]] = {
    nn.BatchNorm2d: (nn.Conv2d, fuse_conv_bn_eval),
    nn.BatchNorm1d: (nn.Linear, fuse_linear_bn_eval),
}


class _Tracer(fx.Tracer):
    """Traces down to the layers of torch and cnnkit."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return type(m).__module__.startswith(("torch.nn", "cnnkit.ops")) and not isinstance(m, nn.Sequential)


def fold(net: nn.Module) -> fx.GraphModule:
    """Return a copy of `net` for prediction, with fewer layers and the same outputs up to rounding.

    Batch normalisation is folded into a convolution or dense layer whose output nothing else uses. Raises torch.fx's
    errors if the network's code depends on the values of its input.
    """
    net = copy.deepcopy(unwrapped(net)).eval()
    folded = fx.GraphModule(net, _Tracer().trace(net))
    layers = dict(folded.named_modules())
    for node in list(folded.graph.nodes):
        norm = layers.get(str(node.target)) if node.op == "call_module" else None
        if norm is None or type(norm) not in FUSED:
            continue
        (kind, fuse), before = FUSED[type(norm)], node.args[0]
        assert isinstance(before, fx.Node)
        layer = layers.get(str(before.target)) if before.op == "call_module" else None
        if isinstance(layer, kind) and len(before.users) == 1:
            fused = fuse(layer, norm)
            layer.weight, layer.bias = fused.weight, fused.bias
            node.replace_all_uses_with(before)
            folded.graph.erase_node(node)
    folded.delete_all_unused_submodules()
    folded.recompile()
    return folded.requires_grad_(False)
