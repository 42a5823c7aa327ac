"""Networks, each an `nn.Sequential` of named stages, the last one `head`, that returns logits."""

from cnnkit.nets.alexnet import alexnet
from cnnkit.nets.blocks import KERAS, TORCHVISION, Style
from cnnkit.nets.densenet import DenseBlock, bottleneck, densenet, transition
from cnnkit.nets.googlenet import Inception, googlenet
from cnnkit.nets.lenet import lenet, lenet_bn
from cnnkit.nets.nin import nin, nin_block
from cnnkit.nets.pretrained import WEIGHTS, Weights
from cnnkit.nets.resnet import BASIC, BOTTLENECK, Residual, resnet
from cnnkit.nets.vgg import vgg, vgg_block
from cnnkit.nets.zoo import ZOO, Entry, Published, create, entry, list_networks

__all__ = [
    "BASIC",
    "BOTTLENECK",
    "KERAS",
    "TORCHVISION",
    "WEIGHTS",
    "ZOO",
    "DenseBlock",
    "Entry",
    "Inception",
    "Published",
    "Residual",
    "Style",
    "Weights",
    "alexnet",
    "bottleneck",
    "create",
    "densenet",
    "entry",
    "googlenet",
    "lenet",
    "lenet_bn",
    "list_networks",
    "nin",
    "nin_block",
    "resnet",
    "transition",
    "vgg",
    "vgg_block",
]
