"""The networks: each a plain `nn.Sequential` of named stages, the last one `head`, returning logits."""

from cnnkit.nets.lenet import lenet, lenet_bn
from cnnkit.nets.zoo import ZOO, Entry, create, entry, list_networks

__all__ = ["ZOO", "Entry", "create", "entry", "lenet", "lenet_bn", "list_networks"]
